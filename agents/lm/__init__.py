"""Language models in the place of the small networks. Needs the extra ``lm`` (transformers)."""

from agents.lm.actor_critic import LMActorCritic

__all__ = ["LMActorCritic"]
