"""What agents that learn from a replay buffer share: play, keep, and learn many times from what is kept."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from agents.base import Agent, AgentConfig, Metrics
from agents.checkpoint import Tree, load_optimizer_state, module_state, optimizer_state, to_tensors
from agents.demonstrations import read_demonstrations
from agents.environments import find_task
from agents.episode_metrics import episode_metrics
from agents.networks import (
    CausalTransformer,
    TransformerConfig,
    clip_gradient,
    flatten_parameters,
    make_linear,
)
from agents.policies import IncrementalDecoder, sample
from agents.replay import EpisodeReplay, ReplayBatch
from agents.returns import step_mask
from agents.targets import masked_max, take
from textenvs import Episodes
from textenvs.rewards import Judge


class ReplayLearner(Agent):
    """An agent whose updates draw from ``self.replay``; an algorithm says what one update is.

    Attributes:
        replay: the buffer. ``add_demonstrations`` puts texts of others into it, before or between calls of ``learn``.
        num_gradient_steps: updates of the weights so far.
    """

    replay: EpisodeReplay
    loss_names: ClassVar[tuple[str, ...]]
    """What ``_update`` logs."""

    num_gradient_steps = 0

    def __init__(self, env: str | VectorEnv, **others: Any) -> None:
        if {"policy", "reference"} & others.keys():
            raise TypeError(
                f"{type(self).__name__} trains a network of its own and takes no policy= or reference=. From a replay "
                f"buffer SoftQ trains a policy of yours, a language model for instance: π ∝ π_ref · exp(Q / τ)."
            )
        super().__init__(env, **others)

    @abstractmethod
    def _update(self) -> Tensor:
        """One gradient step; returns [len(loss_names)], without gradients."""

    @abstractmethod
    def _invalidate_caches(self) -> None:
        """Forget what was decoded: the weights change."""

    def _charts(self) -> Metrics:
        """What is logged besides losses."""
        return {}

    def add_demonstrations(
        self, texts: Episodes | str | Path, scores: np.ndarray | None = None, *, source: str = "demonstrations"
    ) -> int:
        """Put texts that somebody else wrote into the replay buffer: an oracle, people, other agents.

        Args:
            texts: Episodes, e.g. from :func:`agents.demonstrations.oracle_episodes`, or a JSONL file as
                :func:`agents.demonstrations.read_demonstrations` reads it.
            scores: [B], NaN where a text has none; None: all have none, or the file says. What has no score is judged
                as the environment judges.
            source: what ``replay.sources`` will call them.

        Returns:
            How many were added.

        Raises:
            ValueError: texts that this environment could not have brought forth, or an environment whose task lives in
                other processes. The buffer is as it was.
            RewardError: the reward model failed; likewise.
        """
        task = self.replay.task
        if task is None:
            raise ValueError(
                "The environment does not show its task in this process, by which texts are read and judged: use "
                "replay.add_episodes(…, task=)."
            )
        if not isinstance(texts, Episodes):
            texts, said = read_demonstrations(texts, task)
            scores = said if scores is None else scores
        judge = getattr(self.envs.unwrapped, "judge", None)
        reward = judge.model if isinstance(judge, Judge) else None
        return self.replay.add_episodes(texts, scores, source=source, task=task, reward=reward)

    def set_reward(self, reward: Any, *, rescore: bool = True) -> None:
        """Have the environment judge by another reward model from the next finished text on, and the texts in the
        replay buffer be judged by it as well.

        Args:
            reward: any form of reward spec.
            rescore: False: what is in the buffer keeps its scores.

        Raises:
            TypeError, ValueError: it is none, or not one for these texts; everything is as it was.
            RewardError: the reward model failed on a stored text; likewise.
        """
        if rescore:
            self.replay.rescore(reward)
        super().set_reward(reward)

    def learn_offline(self, num_updates: int) -> Metrics:
        """Learn from what the buffer holds, without playing.

        Args:
            num_updates: gradient steps.

        Returns:
            The mean of each logged loss, as ``learn`` logs them.

        Raises:
            ValueError: fewer episodes in the buffer than a batch.
        """
        if num_updates < 1:
            raise ValueError(f"num_updates must be at least 1; got {num_updates}.")
        if len(self.replay) < self.config.batch_size:
            raise ValueError(
                f"The replay buffer holds {len(self.replay)} episodes; a batch needs {self.config.batch_size}. Add "
                f"demonstrations with replay.add_episodes, or make batch_size smaller."
            )
        # Fused optimisers tell nobody that weights change. Nothing is decoded until the updates are over.
        self._invalidate_caches()
        logged = torch.stack([self._update() for _ in range(num_updates)])
        self.num_updates += 1
        return dict(zip(self.loss_names, logged.mean(0).tolist(), strict=True))

    def _iterate(self) -> Metrics:
        config = self.config
        rollout = self._collect(config.num_steps or self.text_spec.max_new_tokens)
        self.replay.add(rollout)
        losses = dict.fromkeys(self.loss_names, float("nan"))
        if len(self.replay) >= max(config.learning_starts, config.batch_size):
            losses = self.learn_offline(config.updates_per_window)
        charts = {"charts/replay_episodes": float(len(self.replay))}
        return episode_metrics(rollout) | losses | self._charts() | charts


@dataclass(frozen=True)
class OffPolicyConfig(AgentConfig):
    """Hyper-parameters that the agents of this family share."""

    num_envs: int = 16
    """Sub-environments, where the environment is given as an id: few, so that updates come often."""
    num_steps: int | None = None
    """Steps of a window; None: the length budget of the task, so a window brings about ``num_envs`` episodes."""
    updates_per_window: int = 16
    """Gradient steps after each window."""
    batch_size: int = 32
    """Episodes of a minibatch."""
    learning_starts: int = 64
    """Episodes in the buffer before the first gradient step; at least ``batch_size``."""
    capacity: int = 10_000
    """Episodes that the replay buffer holds."""
    deduplicate: bool = False
    """Keep equal texts once, with the mean of their scores."""
    recent_share: float = 0.5
    """Share of every minibatch that comes from the last ``recent_episodes`` only."""
    recent_episodes: int = 256
    score_share: float = 0.0
    """Share of every minibatch that is drawn by score, better texts of a prompt more often."""
    score_temperature: float = 0.1
    """How much more often, in units of the score: smaller is more."""
    rare_share: float = 0.0
    """Share of every minibatch in which every score occurs equally often."""
    priority_cap: float | None = 10.0
    """No episode is drawn more than this many times as often as uniformly; None: no limit."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    """As in AdamW."""
    max_grad_norm: float = 1.0
    reward_scale: float = 10.0
    """Networks learn scores × this; for scores between 0 and 1, learning at the scale of 1 is several times slower."""
    num_layers: int = 2
    width: int = 64
    num_heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("updates_per_window", "batch_size", "learning_starts", "capacity", "recent_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.num_steps is not None and self.num_steps < 1:
            raise ValueError(f"num_steps must be None or at least 1; got {self.num_steps}.")
        self._check_positive("learning_rate", "max_grad_norm", "reward_scale", "score_temperature")
        self._check_shares("recent_share", "score_share", "rare_share")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must not be negative; got {self.weight_decay}.")
        if self.recent_share + self.score_share + self.rare_share > 1:
            raise ValueError(
                f"recent_share, score_share and rare_share are parts of one minibatch; they add up to "
                f"{self.recent_share + self.score_share + self.rare_share}."
            )
        if self.priority_cap is not None and not self.priority_cap >= 1:
            raise ValueError(f"priority_cap must be None or at least 1; got {self.priority_cap}.")
        needed = max(self.batch_size, self.learning_starts)
        if self.capacity < needed:
            raise ValueError(
                f"A replay buffer with capacity={self.capacity} episodes never holds the {needed} that batch_size="
                f"{self.batch_size} and learning_starts={self.learning_starts} need; raise capacity."
            )
        TransformerConfig(self.num_layers, self.width, self.num_heads)

    def _check_positive(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")

    def _check_shares(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1; got {getattr(self, name)}.")


@dataclass(frozen=True)
class Batch:
    """Episodes of a minibatch as tensors on the agent's device."""

    replayed: ReplayBatch
    rows: Tensor  # [B, L]
    lengths: Tensor  # [B]
    scores: Tensor  # [B], scaled
    mask: Tensor  # [B, T] True at generated tokens
    actions: Tensor  # [B, T], padding replaced by some token: what stands there counts nowhere
    action_masks: Tensor | None  # [B, T, V] bool, everything legal in the padding


class Heads(nn.Module):
    """Linear heads over a causal transformer: numbers for every step of an episode and every token.

    Args:
        num_tokens: V.
        prompt_length: P.
        max_new_tokens: T.
        config: sizes of the trunk.
        sizes: name of each head and how many numbers it gives; V in most cases.
        generator: the source of the initial weights.
    """

    def __init__(
        self,
        num_tokens: int,
        prompt_length: int,
        max_new_tokens: int,
        config: TransformerConfig,
        sizes: dict[str, int],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.prompt_length = prompt_length
        self.trunk = CausalTransformer(num_tokens, prompt_length + max_new_tokens, config, generator)
        self.heads = nn.ModuleDict(
            {name: make_linear(config.width, size, generator, std=0.01) for name, size in sizes.items()}
        )

    def forward(self, rows: Tensor) -> Tensor:
        """States [B, T, width] of all steps of the episodes [B, L]; ``[b, t]`` has seen the prompt and t tokens."""
        return self.trunk(rows, self.prompt_length)


class OffPolicyAgent(ReplayLearner):
    """A replay learner with one network, one optimiser, and a policy that is read off the network's states.

    An algorithm names its heads (``_heads``), its loss (``_loss``), and its policy (``_policy``).
    """

    Config: ClassVar[type[AgentConfig]] = OffPolicyConfig

    @abstractmethod
    def _heads(self) -> dict[str, int]:
        """Name and size of each head."""

    @abstractmethod
    def _loss(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """What the update minimises, and what is logged, in the order of ``loss_names``."""

    @abstractmethod
    def _policy(self, hidden: Tensor, action_masks: Tensor | None, deterministic: bool) -> Tensor:
        """Probabilities [N, V] of the next token in the states [N, width]; illegal ones 0."""

    def _after_step(self) -> None:
        """What follows a gradient step, e.g. an update of a target network."""

    def _build(self) -> None:
        config, spec = self.config, self.text_spec
        # Independent streams: initial weights, rollouts, predictions.
        seeds = np.random.SeedSequence(self.seed).generate_state(3).tolist()
        self.network = Heads(
            spec.num_tokens,
            spec.prompt_length,
            spec.max_new_tokens,
            TransformerConfig(config.num_layers, config.width, config.num_heads),
            self._heads(),
            torch.Generator().manual_seed(seeds[0]),
        ).to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(seeds[1])
        self.predict_generator = torch.Generator(self.device).manual_seed(seeds[2])
        self.parameters, self.gradient = flatten_parameters(self.network)
        self._make_optimizer()
        self.replay = EpisodeReplay(
            config.capacity,
            spec,
            deduplicate=config.deduplicate,
            priority_cap=config.priority_cap,
            score_temperature=config.score_temperature,
            task=find_task(self.envs),
        )
        self.rollout_decoder = IncrementalDecoder(self.network.trunk, spec.prompt_length)
        self.predict_decoder = IncrementalDecoder(self.network.trunk, spec.prompt_length)

    def _make_optimizer(self) -> None:
        config = self.config
        self.optimizer = torch.optim.AdamW(
            [self.parameters], config.learning_rate, eps=1e-5, weight_decay=config.weight_decay, fused=True
        )

    def _update(self) -> Tensor:
        batch = self._sample_batch()
        loss, logged = self._loss(batch)
        self.gradient.zero_()
        loss.backward()
        clip_gradient(self.gradient, self.config.max_grad_norm)
        self.optimizer.step()
        self.num_gradient_steps += 1
        self.gradient_samples += int(batch.replayed.lengths.sum())
        with torch.no_grad():
            self._after_step()
        return torch.stack([x.detach() for x in logged])

    def _shares(self) -> dict[str, float]:
        """What parts of a minibatch are drawn otherwise than uniformly, as ``EpisodeReplay.sample`` takes them."""
        return {name: getattr(self.config, name) for name in ("recent_share", "score_share", "rare_share")}

    def _sample_batch(self) -> Batch:
        config, spec = self.config, self.text_spec
        replayed = self.replay.sample(config.batch_size, self.rng, recent=config.recent_episodes, **self._shares())
        rows = torch.from_numpy(replayed.rows).to(self.device)
        lengths = torch.from_numpy(replayed.lengths).to(self.device)
        mask = step_mask(lengths, spec.max_new_tokens)
        action_masks = None
        if replayed.action_masks is not None:
            # Steps that were never played have no legal action; what comes out for them counts nowhere.
            action_masks = torch.from_numpy(replayed.action_masks).to(self.device) | ~mask[..., None]
        return Batch(
            replayed=replayed,
            rows=rows,
            lengths=lengths,
            scores=torch.from_numpy(replayed.scores).to(self.device) * config.reward_scale,
            mask=mask,
            actions=rows[:, spec.prompt_length :].clamp(max=spec.num_tokens - 1),
            action_masks=action_masks,
        )

    # -- acting --------------------------------------------------------------------------------------------------------

    def _act(self, obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        return self._draw(self.rollout_decoder, self.generator, obs, action_mask, deterministic=False)

    def _predict(self, obs: np.ndarray, action_mask: np.ndarray | None, deterministic: bool) -> np.ndarray:
        return self._draw(self.predict_decoder, self.predict_generator, obs, action_mask, deterministic)[0]

    @torch.inference_mode()
    def _draw(
        self,
        decoder: IncrementalDecoder,
        generator: torch.Generator,
        obs: np.ndarray,
        action_mask: np.ndarray | None,
        deterministic: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions [N] and their log-probabilities [N]."""
        masks = None if action_mask is None else torch.from_numpy(action_mask != 0).to(self.device)
        probabilities = self._policy(decoder(obs), masks, deterministic)
        uniforms = torch.rand(len(obs), 1, generator=generator, device=self.device)
        actions = sample(probabilities, uniforms)
        logprobs = take(probabilities, actions).log()
        return actions.cpu().numpy().copy(), logprobs.cpu().numpy().copy()

    @torch.inference_mode()
    def next_logprobs(self, rows: Tensor, written: int, action_masks: Tensor | None = None) -> Tensor:
        """Log-probabilities [B, V] of the next token that the agent would sample after ``written`` tokens of the rows
        [B, L], under masks [B, V]; −inf where it never would."""
        column = self.text_spec.prompt_length + written
        hidden = self.network.trunk(rows[:, : column + 1], column)[:, 0]
        return self._policy(hidden, action_masks, deterministic=False).log()

    def _invalidate_caches(self) -> None:
        self.rollout_decoder.invalidate()
        self.predict_decoder.invalidate()

    def seed_prediction(self, seed: int) -> None:
        """Restart the random stream of sampled predictions."""
        self.predict_generator.manual_seed(seed)

    # -- saving --------------------------------------------------------------------------------------------------------

    def _get_state(self) -> Tree:
        return {
            "network": module_state(self.network),
            "optimizer": optimizer_state(self.optimizer),
            "replay": self.replay.get_state(),
            "counters": {"num_gradient_steps": self.num_gradient_steps},
            "generators": {
                "rollout": self.generator.get_state(),
                "predict": self.predict_generator.get_state(),
            },
        }

    def _set_state(self, state: Tree) -> None:
        self.network.load_state_dict(to_tensors(state["network"]))
        load_optimizer_state(self.optimizer, state.get("optimizer", {}))
        self.replay.set_state(state["replay"])
        self.num_gradient_steps = state["counters"]["num_gradient_steps"]
        generators = to_tensors(state["generators"])
        self.generator.set_state(generators["rollout"])
        self.predict_generator.set_state(generators["predict"])
        self._invalidate_caches()


def one_hot_best(values: Tensor, action_masks: Tensor | None) -> Tensor:
    """Probability 1 for the best legal action (the first of equals), [N, V], of values [N, V]."""
    return nn.functional.one_hot(masked_max(values, action_masks)[1], values.shape[-1]).to(values.dtype)
