"""The exact exam: environments that can be enumerated, and references with habits of their own.

Every method (:mod:`agents.exam_methods`) is given the same problem, to maximise E[score] − β KL(π ‖ π_ref), and is
graded exactly, without sampling (:mod:`textenvs.exact`). The reference is a small transformer pretrained on skewed
texts, so it is far from uniform and the KL has something to hold on to.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from agents.exact import next_logprobs
from agents.losses import masked_mean
from agents.networks import TransformerConfig, clip_gradient, flatten_parameters
from agents.policies import TransformerPolicy
from agents.returns import step_mask
from textenvs.exact import ExactProblem
from textenvs.regularised import best_of_n_bound
from textenvs.tasks.base import Task
from textenvs.text_tree import NextLogprobs, TextTree

# -- references --------------------------------------------------------------------------------------------------------


def skewed_policy(num_tokens: int, seed: int, strength: float = 1.0) -> NextLogprobs:
    """A source of texts with habits: a first-order chain whose next token depends on the last one, log-linearly with
    normal weights of standard deviation ``strength``; illegal tokens are left out.

    Args:
        num_tokens: V.
        seed: of the weights.
        strength: 0 is uniform.
    """
    weights = np.random.default_rng(seed).normal(size=(num_tokens + 1, num_tokens)) * strength

    def next_logprobs(rows: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        written = (rows != num_tokens).cumsum(1).argmax(1)  # column of the last token; of a row without any, the first
        logits = weights[rows[np.arange(len(rows)), written]]
        if masks is not None:
            logits = np.where(masks, logits, -np.inf)
        return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)

    return next_logprobs


def legal_actions(task: Task, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray | None:
    """Legal actions bool [n, T, V] before each token of finished texts; None without masks.

    Args:
        task: what they are of.
        rows: int64 [n, L], final observations.
        lengths: int64 [n], tokens of the completions.
    """
    if not task.has_masks:
        return None
    masks = np.ones((len(rows), task.max_new_tokens, task.pad_id), dtype=np.bool_)
    for t in range(task.max_new_tokens):
        prefix = rows.copy()
        prefix[:, task.prompt_length + t :] = task.pad_id
        reached = lengths > t
        masks[reached, t] = task.action_masks(prefix[reached], np.full(int(reached.sum()), t))
    return masks


@dataclass(frozen=True)
class Texts:
    """Finished texts as a policy evaluates them."""

    rows: Tensor
    """int64 [n, L]."""
    lengths: Tensor
    """int64 [n]."""
    masks: Tensor | None
    """bool [n, T, V]; None without masks."""

    @classmethod
    def of(cls, task: Task, rows: np.ndarray, lengths: np.ndarray) -> Texts:
        """Texts of a task, with their legal actions."""
        masks = legal_actions(task, rows, lengths)
        return cls(
            torch.from_numpy(rows), torch.from_numpy(lengths), None if masks is None else torch.from_numpy(masks)
        )

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Tensor) -> Texts:
        """Those with these numbers [m], or for which it is True [n]."""
        return Texts(self.rows[index], self.lengths[index], None if self.masks is None else self.masks[index])

    def logprobs(self, policy: TransformerPolicy) -> Tensor:
        """Log-probabilities [n] of the texts under a policy, in nats, with gradients."""
        return policy.evaluate(self.rows, self.lengths, self.masks).logprobs.sum(1)


def imitate(
    policy: TransformerPolicy, texts: Texts, *, steps: int, learning_rate: float, rng: np.random.Generator
) -> list[float]:
    """Train a policy in place on texts, by cross-entropy, with Adam and a learning rate that falls to 0.

    Args:
        policy: what is trained; its value head is not.
        texts: what it learns to write; each step takes 128 of them, with replacement.
        steps: gradient steps.
        learning_rate: of the first step.
        rng: of their order.

    Returns:
        The loss of every step, in nats per token.
    """
    parameters, gradient = flatten_parameters(policy)
    optimizer = torch.optim.Adam([parameters], learning_rate, eps=1e-5, fused=True)
    losses: list[Tensor] = []
    for step in range(steps):
        batch = texts.take(torch.from_numpy(rng.integers(len(texts), size=128)))
        evaluation = policy.evaluate(batch.rows, batch.lengths, batch.masks)
        loss = -masked_mean(evaluation.logprobs, step_mask(batch.lengths, policy.max_new_tokens))
        gradient.zero_()
        loss.backward()
        clip_gradient(gradient, 1.0)
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        optimizer.step()
        losses.append(loss.detach())
    policy.invalidate_cache()
    return torch.stack(losses).tolist()


def pretrain(
    policy: TransformerPolicy, trees: list[TextTree], source: NextLogprobs, *, texts: int, steps: int, seed: int
) -> list[float]:
    """Train a policy in place on texts that a source writes.

    Args:
        policy: what is trained; its value head is not.
        trees: prompts, each as often.
        source: who writes the texts.
        texts: how many, over all prompts.
        steps: gradient steps, with a learning rate of 3e-3 at first.
        seed: of texts and their order.

    Returns:
        The loss of every step, in nats per token.
    """
    rng = np.random.default_rng(seed)
    each = -(-texts // len(trees))
    rows, lengths = [], []
    for tree in trees:
        chances = np.exp(tree.logprobs(source))
        index = rng.choice(len(tree), size=each, p=chances / chances.sum())
        rows.append(tree.rows(index))
        lengths.append(tree.lengths[index])
    written = Texts.of(trees[0].task, np.concatenate(rows), np.concatenate(lengths))
    return imitate(policy, written, steps=steps, learning_rate=3e-3, rng=rng)


# -- environments ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Paper:
    """An environment of the exam, pure data.

    Attributes:
        name: in tables and files.
        env_id: the environment.
        sizes: its arguments.
        prompts: how many of its prompts are averaged over, each with the same weight: all of the train split; 0: it has
            none.
        betas: the β at which methods are graded.
        strength: of the habits of the texts that the reference learns.
    """

    name: str
    env_id: str
    sizes: dict[str, int]
    prompts: int
    betas: tuple[float, ...]
    strength: float = 1.0


PAPERS = (
    Paper("hidden target", "textenvs/HiddenTarget-v0", {"length": 5, "num_symbols": 6}, 0, (0.03, 0.1)),
    Paper("reverse with EOS", "textenvs/Reverse-v0", {"length": 3, "num_symbols": 3, "min_length": 2}, 34, (0.05, 0.2)),
    Paper("brackets, masked", "textenvs/DyckMasked-v0", {"length": 3, "num_kinds": 3}, 25, (0.05, 0.2)),
)


class Exam:
    """A paper with its reference and its exact solution."""

    def __init__(self, paper: Paper, *, texts: int = 4_096, steps: int = 400) -> None:
        self.paper = paper
        self.spec = spec = self.envs(1).unwrapped.text_spec
        sizes = (spec.num_tokens, spec.prompt_length, spec.max_new_tokens)
        self.policy = TransformerPolicy(*sizes, TransformerConfig(2, 32, 2), seed=0)
        source = skewed_policy(spec.num_tokens, seed=1, strength=paper.strength)
        prompts = range(paper.prompts) if paper.prompts else None
        trees = ExactProblem(self.envs(1), source, prompts=prompts).trees
        self.losses = pretrain(self.policy, trees, source, texts=texts, steps=steps, seed=2)
        self.reference = self.policy.frozen_copy()
        self.problem = ExactProblem(self.envs(1), next_logprobs(self.reference, spec), prompts=prompts)

    def envs(self, num_envs: int, **more: Any) -> Any:
        """A vector environment of the paper."""
        arguments = {**self.paper.sizes, **more}
        return gym.make_vec(self.paper.env_id, num_envs, vectorization_mode="vector_entry_point", **arguments)

    def fresh_policy(self) -> TransformerPolicy:
        """A policy that begins as the reference and can be trained."""
        sizes = (self.policy.policy_head.out_features, self.policy.prompt_length, self.policy.max_new_tokens)
        twin = TransformerPolicy(*sizes, self.policy.trunk.config)
        twin.load_state_dict(self.policy.state_dict())
        return twin

    @cached_property
    def frontier(self) -> list[tuple[float, float]]:
        """(KL, reward) of the best policies, from the reference to the best texts."""
        return [(point.kl, point.reward) for point in self.problem.frontier()]

    def grade(self, policy: NextLogprobs, beta: float) -> dict[str, float]:
        """Where a policy is, exactly, and what it misses."""
        grade = self.problem.grade(policy, beta)
        point = {name: value for name, value in asdict(grade.point).items() if value is not None}
        # A method above the frontier would show a mistake in the exam; β-duality makes this safe against rounding.
        above = grade.point.reward - self.problem.reward_at(grade.point.kl)
        return point | {"regret": grade.regret, "closed": grade.closed, "optimal": grade.optimal, "above": above}

    def best_of_n(self, n: int, betas: tuple[float, ...]) -> dict[str, Any]:
        """Best-of-n, exactly, with the bound of its KL and the share of the gap closed at each β."""
        point = self.problem.best_of_n(n)
        closed = {str(beta): self.problem.grade(point, beta).closed for beta in betas}
        return {"n": n, "kl": point.kl, "reward": point.reward, "bound": best_of_n_bound(n), "closed": closed}


@lru_cache(maxsize=len(PAPERS))
def sit(name: str, texts: int = 4_096, steps: int = 400) -> Exam:
    """The exam of a paper by its name; the reference is pretrained once in a process."""
    return Exam(next(paper for paper in PAPERS if paper.name == name), texts=texts, steps=steps)
