"""Deep Q-learning for text: the replay buffer holds episodes, and one forward pass values every step of one.

    from agents import DQN
    DQN("textenvs/Reverse-v0", seed=0).learn(200_000, progress_bar=True)

Mnih et al. 2015, "Human-level control through deep reinforcement learning", with switches for what has been found to
help since: double (van Hasselt et al. 2016), dueling (Wang et al. 2016), n-step and λ-returns, prioritised replay
(Schaul et al. 2016), one exploration rate per sub-environment (Horgan et al. 2018). The defaults are the best as
measured (docs/dqn_defaults.md), which textbook DQN is not: a reward at the end travels back one token per target
update.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.base import AgentConfig, Metrics
from agents.checkpoint import Tree, load_optimizer_state, module_state, optimizer_state, to_tensors
from agents.environments import find_task
from agents.losses import masked_mean
from agents.networks import (
    CausalTransformer,
    TransformerConfig,
    clip_gradient,
    flatten_parameters,
    make_linear,
)
from agents.off_policy import ReplayLearner
from agents.policies import IncrementalDecoder, mask_logits, sample
from agents.replay import EpisodeReplay
from agents.returns import step_mask
from agents.targets import (
    LossKind,
    greedy_values,
    lambda_targets,
    masked_max,
    monte_carlo_returns,
    n_step_targets,
    take,
    td_loss,
)


@dataclass(frozen=True)
class DQNConfig(AgentConfig):
    """Hyper-parameters of DQN."""

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
    recent_share: float = 0.5
    """Share of every minibatch that comes from the last ``recent_episodes`` only."""
    recent_episodes: int = 256
    priority_alpha: float = 0.0
    """Prioritised replay: episodes are drawn in proportion to (mean absolute TD error)^α; 0: uniformly."""
    priority_beta: float = 0.4
    """Exponent of the importance weights that correct for it."""
    double: bool = True
    """The online network chooses the greedy action, the target network values it; False: the target network both."""
    dueling: bool = False
    """Two heads: Q = V + A − mean A."""
    n_step: int | None = None
    """n-step targets instead of λ-returns: 1 is textbook DQN; from the length budget on they are observed returns."""
    lambda_: float = 0.9
    """λ of the λ-returns."""
    cut_traces: bool = True
    """λ-returns follow an episode as long as its actions are greedy (Watkins' Q(λ)); False: to its end (Peng's)."""
    lower_bound: bool = True
    """No target below the return observed after the same prefix. What has been written once can be written again, so
    where scores are not noisy this bounds the optimal Q from below (He et al. 2017, "Learning to Play in a Day"; Oh et
    al. 2018, "Self-Imitation Learning"). With noisy scores it makes Q too optimistic: switch it off."""
    target_tau: float = 0.1
    """How far the target network moves towards the online one at each of its updates; 1: it becomes a copy."""
    target_interval: int = 1
    """Gradient steps between updates of the target network."""
    temperature: float = 0.02
    """Actions are drawn from softmax(Q / temperature) (Boltzmann exploration; in units of the reward); 0: the best."""
    epsilon: float = 0.02
    """… or, with this probability, uniformly."""
    epsilon_start: float | None = None
    """ε of the first episode, from where it falls linearly; None: it is ``epsilon`` all along."""
    epsilon_decay: int = 500
    """Episodes that it takes to fall."""
    epsilon_spread: float = 0.0
    """α: sub-environment i of N takes ε^(1 + α i / (N − 1)), as in Ape-X (there 7); 0: all take ε."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    """As in AdamW."""
    max_grad_norm: float = 1.0
    loss: LossKind = "mse"
    """Of TD errors: "mse", or "huber", linear beyond 1 (in scaled units)."""
    reward_scale: float = 10.0
    """The network learns Q × this; for scores between 0 and 1, learning at the scale of 1 is several times slower."""
    gamma: float = 1.0
    """Discount."""
    num_layers: int = 2
    width: int = 64
    num_heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "updates_per_window",
            "batch_size",
            "learning_starts",
            "capacity",
            "recent_episodes",
            "target_interval",
            "epsilon_decay",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("num_steps", "n_step"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be None or at least 1; got {value}.")
        for name in ("learning_rate", "max_grad_norm", "reward_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        for name in ("priority_alpha", "priority_beta", "temperature", "epsilon_spread", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}.")
        for name in ("recent_share", "lambda_", "epsilon", "gamma"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1; got {getattr(self, name)}.")
        if self.epsilon_start is not None and not 0 <= self.epsilon_start <= 1:
            raise ValueError(f"epsilon_start must be None or between 0 and 1; got {self.epsilon_start}.")
        if not 0 < self.target_tau <= 1:
            raise ValueError(f"target_tau must be above 0 and at most 1; got {self.target_tau}.")
        if self.loss not in ("huber", "mse"):
            raise ValueError(f"loss must be 'huber' or 'mse'; got {self.loss!r}.")
        needed = max(self.batch_size, self.learning_starts)
        if self.capacity < needed:
            raise ValueError(
                f"A replay buffer with capacity={self.capacity} episodes never holds the {needed} that batch_size="
                f"{self.batch_size} and learning_starts={self.learning_starts} need; raise capacity."
            )
        TransformerConfig(self.num_layers, self.width, self.num_heads)


PRESETS: dict[str, dict[str, Any]] = {
    # Mnih et al. 2015 with the double estimator of van Hasselt et al. 2016, at the sizes of these environments.
    "textbook": {
        "n_step": 1,
        "lower_bound": False,
        "recent_share": 0.0,
        "temperature": 0.0,
        "epsilon": 0.05,
        "epsilon_start": 1.0,
        "target_tau": 1.0,
        "target_interval": 100,
        "loss": "huber",
        "reward_scale": 1.0,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "max_grad_norm": 10.0,
    },
    # Hessel et al. 2018, "Rainbow", table 1, without noisy networks and without the distributional loss: double,
    # dueling, 3-step targets, replay prioritised with ω = 0.5 and β from 0.4 to 1, ε-greedy in place of the noise.
    "rainbow": {
        "double": True,
        "dueling": True,
        "n_step": 3,
        "priority_alpha": 0.5,
        "priority_beta": 0.4,
        "schedules": {"priority_beta": [[0, 0.4], [100_000, 1.0]]},
        "lower_bound": False,
        "recent_share": 0.0,
        "temperature": 0.0,
        "epsilon": 0.05,
        "epsilon_start": 1.0,
    },
}
"""Named configs: ``DQN(env, **DQN.presets["rainbow"])``."""


class QNetwork(nn.Module):
    """Q(s_t, ·) of every step of an episode, over a causal transformer.

    Args:
        num_tokens: V.
        prompt_length: P.
        max_new_tokens: T.
        config: sizes of the trunk.
        dueling: Q = V + A − mean A from two heads, instead of one head.
        generator: the source of the initial weights.
    """

    def __init__(
        self,
        num_tokens: int,
        prompt_length: int,
        max_new_tokens: int,
        config: TransformerConfig,
        generator: torch.Generator,
        *,
        dueling: bool = False,
    ) -> None:
        super().__init__()
        self.prompt_length = prompt_length
        self.trunk = CausalTransformer(num_tokens, prompt_length + max_new_tokens, config, generator)
        self.advantage_head = make_linear(config.width, num_tokens, generator, std=0.01)
        self.value_head = make_linear(config.width, 1, generator, std=0.0) if dueling else None

    def forward(self, rows: Tensor) -> Tensor:
        """Q [B, T, V] of all steps of the episodes [B, L] int64; ``[b, t]`` has seen the prompt and t tokens."""
        return self.head(self.trunk(rows, self.prompt_length))

    def head(self, hidden: Tensor) -> Tensor:
        """Q [..., V] from states [..., width]."""
        advantages = self.advantage_head(hidden)
        if self.value_head is None:
            return advantages
        # Wang et al. 2016, "Dueling Network Architectures for Deep Reinforcement Learning", equation 9.
        return self.value_head(hidden) + advantages - advantages.mean(-1, keepdim=True)


def exploration_probabilities(
    q_values: Tensor, temperature: float, epsilon: Tensor, action_masks: Tensor | None = None
) -> Tensor:
    """π(a) = (1 − ε) softmax(Q / temperature)(a) + ε / (number of legal actions), illegal actions 0.

    Args:
        q_values: [..., V].
        temperature: 0 is its limit: all on the largest Q, the first of equals.
        epsilon: [...] ε.
        action_masks: [..., V] bool, True where legal; None: all are.

    Returns:
        [..., V], rows sum to 1.
    """
    legal = torch.ones_like(q_values, dtype=torch.bool) if action_masks is None else action_masks
    if temperature > 0:
        best = mask_logits(q_values / temperature, action_masks).softmax(-1)
    else:
        best = F.one_hot(masked_max(q_values, action_masks)[1], q_values.shape[-1])
    uniform = legal / legal.sum(-1, keepdim=True)
    return (1 - epsilon[..., None]) * best + epsilon[..., None] * uniform


class DQN(ReplayLearner):
    """Q-learning from a replay buffer of episodes; ``predict`` is greedy, or sampled as in training."""

    Config = DQNConfig
    presets = PRESETS
    loss_names = ("losses/td_loss", "losses/q_values")

    def _build(self) -> None:
        config, spec = self.config, self.text_spec
        # Independent streams: initial weights, rollouts, predictions.
        seeds = np.random.SeedSequence(self.seed).generate_state(3).tolist()
        self.network = QNetwork(
            spec.num_tokens,
            spec.prompt_length,
            spec.max_new_tokens,
            TransformerConfig(config.num_layers, config.width, config.num_heads),
            torch.Generator().manual_seed(seeds[0]),
            dueling=config.dueling,
        ).to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(seeds[1])
        self.predict_generator = torch.Generator(self.device).manual_seed(seeds[2])
        self.target_network = copy.deepcopy(self.network)
        self.parameters, self.gradient = flatten_parameters(self.network)
        self.target_parameters, _ = flatten_parameters(self.target_network)
        self.target_network.requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            [self.parameters], config.learning_rate, eps=1e-5, weight_decay=config.weight_decay, fused=True
        )
        self._targets_are_online = config.target_tau == 1 and config.target_interval == 1
        self.replay = EpisodeReplay(
            config.capacity, spec, priority_alpha=config.priority_alpha, task=find_task(self.envs)
        )
        self.rollout_decoder = IncrementalDecoder(self.network.trunk, spec.prompt_length)
        self.predict_decoder = IncrementalDecoder(self.network.trunk, spec.prompt_length)
        places = torch.arange(config.num_envs, device=self.device) / max(config.num_envs - 1, 1)
        self._epsilon_exponents = 1 + config.epsilon_spread * places

    @property
    def epsilon(self) -> float:
        """Present ε of the schedule."""
        config = self.config
        if config.epsilon_start is None:
            return config.epsilon
        progress = min(1.0, self.num_episodes / config.epsilon_decay)
        return config.epsilon_start + progress * (config.epsilon - config.epsilon_start)

    def _charts(self) -> Metrics:
        return {"charts/epsilon": self.epsilon}

    def _update(self) -> Tensor:
        """One gradient step; returns what is logged, in the order of ``loss_names``."""
        config, spec = self.config, self.text_spec
        batch = self.replay.sample(
            config.batch_size,
            self.rng,
            recent=config.recent_episodes,
            recent_share=config.recent_share,
            beta=config.priority_beta,
        )
        rows = torch.from_numpy(batch.rows).to(self.device)
        lengths = torch.from_numpy(batch.lengths).to(self.device)
        scores = torch.from_numpy(batch.scores).to(self.device) * config.reward_scale
        weights = torch.from_numpy(batch.weights).to(self.device)
        action_masks = None
        if batch.action_masks is not None:
            action_masks = torch.from_numpy(batch.action_masks).to(self.device)
            # Steps that were never played have no legal action; what comes out for them counts nowhere.
            action_masks |= ~step_mask(lengths, spec.max_new_tokens)[..., None]
        mask = step_mask(lengths, spec.max_new_tokens)
        # Padding has no Q of its own; what stands there counts nowhere.
        actions = rows[:, spec.prompt_length :].clamp(max=spec.num_tokens - 1)

        q_values = self.network(rows)
        q_taken = take(q_values, actions)
        with torch.no_grad():
            # A target network that is copied after every step is the online network: no need to ask it.
            q_target = q_values.detach() if self._targets_are_online else self.target_network(rows)
            targets = self._targets(scores, lengths, actions, q_values.detach(), q_target, action_masks)
        loss = td_loss(q_taken, targets, mask, config.loss, weights)

        self.gradient.zero_()
        loss.backward()
        clip_gradient(self.gradient, config.max_grad_norm)
        self.optimizer.step()
        self.num_gradient_steps += 1
        self.gradient_samples += int(batch.lengths.sum())
        with torch.no_grad():
            if self.num_gradient_steps % config.target_interval == 0:
                self.target_parameters.lerp_(self.parameters, config.target_tau)
            if config.priority_alpha > 0:
                errors = torch.where(mask, (q_taken - targets).abs(), 0.0).sum(1) / lengths
                self.replay.update_priorities(batch.index, errors.cpu().numpy())
            return torch.stack([loss, masked_mean(q_taken, mask) / config.reward_scale])

    def _targets(
        self,
        scores: Tensor,
        lengths: Tensor,
        actions: Tensor,
        q_values: Tensor,
        q_target: Tensor,
        action_masks: Tensor | None,
    ) -> Tensor:
        """What Q(s_t, a_t) is to become, [B, T]."""
        config = self.config
        last = torch.arange(actions.shape[1], device=lengths.device) == lengths[:, None] - 1
        rewards = torch.where(last, scores[:, None], 0.0)
        values = greedy_values(q_values if config.double else q_target, q_target, action_masks)
        if config.n_step is not None:
            targets = n_step_targets(rewards, values, lengths, config.n_step, config.gamma)
        else:
            greedy = masked_max(q_values, action_masks)[1] == actions if config.cut_traces else None
            targets = lambda_targets(rewards, values, lengths, config.lambda_, config.gamma, greedy)
        if config.lower_bound:
            targets = torch.maximum(targets, monte_carlo_returns(rewards, lengths, config.gamma))
        return targets

    def _act(self, obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        epsilon = self.epsilon**self._epsilon_exponents
        return self._draw(self.rollout_decoder, self.generator, obs, action_mask, self.config.temperature, epsilon)

    def _predict(self, obs: np.ndarray, action_mask: np.ndarray | None, deterministic: bool) -> np.ndarray:
        temperature, epsilon = (0.0, 0.0) if deterministic else (self.config.temperature, self.epsilon)
        epsilons = torch.full((len(obs),), epsilon, device=self.device)
        return self._draw(self.predict_decoder, self.predict_generator, obs, action_mask, temperature, epsilons)[0]

    @torch.inference_mode()
    def _draw(
        self,
        decoder: IncrementalDecoder,
        generator: torch.Generator,
        obs: np.ndarray,
        action_mask: np.ndarray | None,
        temperature: float,
        epsilon: Tensor,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions [N] and their log-probabilities [N]."""
        q_values = self.network.head(decoder(obs)) / self.config.reward_scale
        masks = None if action_mask is None else torch.from_numpy(action_mask != 0).to(self.device)
        probabilities = exploration_probabilities(q_values, temperature, epsilon, masks)
        uniforms = torch.rand(len(obs), 1, generator=generator, device=self.device)
        actions = sample(probabilities, uniforms)
        logprobs = take(probabilities, actions).log()
        return actions.cpu().numpy().copy(), logprobs.cpu().numpy().copy()

    def _invalidate_caches(self) -> None:
        self.rollout_decoder.invalidate()
        self.predict_decoder.invalidate()

    def seed_prediction(self, seed: int) -> None:
        """Restart the random stream of sampled predictions."""
        self.predict_generator.manual_seed(seed)

    def _get_state(self) -> Tree:
        return {
            "network": module_state(self.network),
            "target_network": module_state(self.target_network),
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
        self.target_network.load_state_dict(to_tensors(state["target_network"]))
        load_optimizer_state(self.optimizer, state.get("optimizer", {}))
        self.replay.set_state(state["replay"])
        self.num_gradient_steps = state["counters"]["num_gradient_steps"]
        generators = to_tensors(state["generators"])
        self.generator.set_state(generators["rollout"])
        self.predict_generator.set_state(generators["predict"])
        self._invalidate_caches()
