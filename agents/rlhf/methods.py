"""Methods of alignment by name: each trains a policy from the same start, under the same budget.

    METHODS["rloo"].train(course, **METHODS["rloo"].config)

A method is a function of a :class:`agents.rlhf.course.Course` and its hyper-parameters, which measures along its way.
To add one: write the function, and an entry of ``METHODS``. ``scripts/rlhf.py --methods sft,rloo`` runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agents.grpo import GRPO
from agents.lm.best_of_n import best_of_n_kl, choose_best
from agents.lm.dpo import DPOConfig, train_dpo
from agents.lm.rest import ReSTConfig, Step, train_rest
from agents.lm.sampling import Answers, sample_answers
from agents.lm.sft import SFTConfig
from agents.ppo import PPO
from agents.rlhf import rlaif_method
from agents.rlhf.comparison import add_ranked_texts
from agents.rlhf.course import Course
from agents.rlhf.settings import RLHFError
from agents.rlhf.stages import EVALUATION, Stage
from agents.rloo import RLOO
from agents.soft_q import SoftQ
from textenvs.errors import unknown_name

TOKENS_OF_A_TEXT = 16
"""About as long as texts are under a reward model: over so many tokens for each of the budget, learning rates fall."""

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """A way from the SFT model to one that the annotator likes better.

    Attributes:
        name: on the command line, in files and folders.
        label: in tables and figures.
        train: called with a course and the hyper-parameters.
        config: hyper-parameters; those of ``grid`` chosen on a seed of its own, see docs/methods.md.
        grid: what they were chosen among, every combination: nine for each method that learns.
        stages: what it needs beside the reward model; each stage after those that it needs.
    """

    name: str
    label: str
    train: Callable[..., None]
    config: Config = field(default_factory=dict)
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()


# -- no gradient step --------------------------------------------------------------------------------------------------


def sft(course: Course) -> None:
    """The SFT model as it is: what all others are compared with."""
    course.measure(course.start(), reward_calls=0, comparisons=0)


def best_of_n(course: Course) -> None:
    """The SFT model writes n answers, the reward model chooses one. Its budget is spent on the texts that are measured,
    so n is the budget over their number; smaller n on the way there."""
    count, world = course.evaluation_texts, course.job.world
    n = max(course.budget // count, 1)
    policy, seed = course.start(), course.job.stream(EVALUATION)
    paid = world.paid_reward(course.job.folder)
    envs = world.envs("test", min(count, 256) * n, paid, group_size=n)
    answers = sample_answers(policy, envs, count, k=n, seed=seed)
    envs.close()
    for size in [2**i for i in range(n.bit_length()) if 2**i < n] + [n]:
        best = choose_best(first_answers(answers, size))
        course.measure_answers(best, kl=best_of_n_kl(size), reward_calls=size * count)


def first_answers(answers: Answers, n: int) -> Answers:
    """The first n of the K answers to each prompt."""
    chosen = np.arange(len(answers.scores) * answers.k).reshape(answers.scores.shape)[:, :n].reshape(-1)
    return Answers(answers.episodes.take(chosen), answers.scores[:, :n])


# -- supervised, on its own best texts ---------------------------------------------------------------------------------


def rejection_sft(course: Course, *, learning_rate: float, k: int, epochs: int) -> None:
    """SFT on the best of k answers to each of budget / k prompts, once."""
    _rest(course, ReSTConfig(1, (0.0,), "best", course.budget // k, k, SFTConfig(learning_rate, epochs=epochs)))


def rest(course: Course, *, learning_rate: float, k: int, grows: int, thresholds: Sequence[float]) -> None:
    """ReST: ``grows`` times budget / grows texts are written, and as many SFT steps on the best of each as there are
    thresholds."""
    prompts = course.budget // (grows * k)
    _rest(course, ReSTConfig(grows, tuple(thresholds), "quantile", prompts, k, SFTConfig(learning_rate)))


def _rest(course: Course, config: ReSTConfig) -> None:
    policy = course.start()
    envs = course.envs(min(config.prompts, 256 // config.k) * config.k, config.k)

    def after_step(done: int, of: int, step: Step) -> None:
        course.is_due(done / of)
        if step.improve == len(config.thresholds):
            course.measure(policy, reward_calls=step.grow * config.prompts * config.k)

    train_rest(policy, envs, replace(config, seed=course.seed), callback=after_step)
    envs.close()


# -- from the preferences themselves -----------------------------------------------------------------------------------


def dpo(course: Course, *, beta: float, learning_rate: float, epochs: int) -> None:
    """DPO on the comparisons that the reward model has learnt from; the reward model is never asked."""
    _dpo(course, DPOConfig(beta, learning_rate=learning_rate, epochs=epochs))


def ipo(course: Course, *, beta: float, learning_rate: float, epochs: int) -> None:
    """IPO, likewise."""
    _dpo(course, DPOConfig(beta, "ipo", learning_rate=learning_rate, epochs=epochs))


def _dpo(course: Course, config: DPOConfig) -> None:
    policy = course.start()

    def after_step(step: int, of: int, figures: dict[str, float]) -> None:
        if course.is_due(step / of):
            used = course.comparisons * min(step * config.epochs / of, 1.0)
            course.measure(policy, reward_calls=0, comparisons=round(used))

    train_dpo(policy, course.rankings, replace(config, seed=course.seed), callback=after_step)


# -- reinforcement learning on the reward model ------------------------------------------------------------------------


def ppo(course: Course, *, kl_coef: float, learning_rate: float, num_envs: int, num_minibatches: int) -> None:
    """PPO with a critic that starts from the reward model."""
    agent = PPO(
        course.envs(num_envs),
        policy=course.start(critic=course.reward_model),
        reference=course.reference.frozen_copy(),
        seed=course.seed,
        kl_coef=kl_coef,
        learning_rate=learning_rate,
        epochs=2,
        num_minibatches=num_minibatches,
        anneal_timesteps=course.budget * TOKENS_OF_A_TEXT,
    )
    _learn(course, agent)


def rloo(course: Course, **config: Any) -> None:
    """RLOO: the other answers to the same prompt are the baseline."""
    _learn_in_groups(course, RLOO, **config)


def grpo(course: Course, **config: Any) -> None:
    """GRPO: advantages are normalised in the group, the KL is part of the loss."""
    _learn_in_groups(course, GRPO, **config)


def _learn_in_groups(
    course: Course,
    kind: Any,
    *,
    kl_coef: float,
    learning_rate: float,
    num_envs: int,
    group_size: int,
    epochs: int,
    num_minibatches: int,
) -> None:
    agent = kind(
        course.envs(num_envs, group_size),
        policy=course.start(),
        reference=course.reference.frozen_copy(),
        seed=course.seed,
        kl_coef=kl_coef,
        learning_rate=learning_rate,
        epochs=epochs,
        num_minibatches=num_minibatches,
        anneal_timesteps=course.budget * TOKENS_OF_A_TEXT,
    )
    _learn(course, agent)


def replay(
    course: Course, *, kl_coef: float, learning_rate: float, num_envs: int, updates_per_window: int, head_start: int
) -> None:
    """SoftQ with a replay buffer: first ``head_start`` gradient steps on the answers that were ranked, then on those
    and its own."""
    agent = SoftQ(
        course.envs(num_envs),
        policy=course.start(critic=course.reward_model),
        reference=course.reference.frozen_copy(),
        seed=course.seed,
        tau=kl_coef,
        learning_rate=learning_rate,
        updates_per_window=updates_per_window,
        batch_size=16,
        learning_starts=16,
        recent_episodes=2 * num_envs,
        exact_kl=True,
    )
    judged = add_ranked_texts(agent, course.job) if head_start else 0
    if head_start:
        agent.learn_offline(head_start)
        course.measure(agent.policy, reward_calls=judged)
    _learn(course, agent, judged)


def _learn(course: Course, agent: Any, judged: int = 0) -> None:
    """Play and learn until the budget is used up.

    Args:
        judged: texts that the reward model was asked about before the first episode.
    """

    def after_batch(agent: Any) -> bool:
        calls = judged + agent.num_episodes
        if course.is_due(calls / course.budget):
            course.measure(agent.policy, reward_calls=calls)
        return bool(calls < course.budget)

    if judged < course.budget:
        agent.learn(10**12, callback=after_batch)
    agent.envs.close()


# -- all of them -------------------------------------------------------------------------------------------------------

RATES = (3e-4, 1e-3, 3e-3)
COEFFICIENTS = (0.08, 0.15, 0.3)
GROUPS: Config = {
    "kl_coef": 0.08,
    "learning_rate": 1e-3,
    "num_envs": 64,
    "group_size": 4,
    "epochs": 2,
    "num_minibatches": 2,
}

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("sft", "SFT", sft),
        Method("best_of_n", "best-of-n", best_of_n),
        Method(
            "rejection_sft",
            "rejection-sampling SFT",
            rejection_sft,
            {"learning_rate": 3e-3, "k": 16, "epochs": 2},
            {"learning_rate": RATES, "k": (4, 8, 16)},
        ),
        Method(
            "rest",
            "ReST",
            rest,
            {"learning_rate": 1e-3, "grows": 4, "k": 4, "thresholds": (0.7, 0.8, 0.9)},
            {"learning_rate": RATES, "grows": (1, 2, 4)},
        ),
        Method(
            "dpo",
            "DPO",
            dpo,
            {"learning_rate": 3e-3, "beta": 0.3, "epochs": 4},
            {"learning_rate": RATES, "beta": (0.03, 0.1, 0.3)},
        ),
        Method(
            "ipo",
            "IPO",
            ipo,
            {"learning_rate": 1e-3, "beta": 1.0, "epochs": 4},
            {"learning_rate": RATES, "beta": (0.3, 1.0, 3.0)},
        ),
        Method(
            "rlaif",
            "RLAIF (DPO on an AI judge's labels)",
            rlaif_method.rlaif,
            {"learning_rate": 3e-3, "beta": 0.1, "epochs": 4},
            {"learning_rate": RATES, "beta": (0.03, 0.1, 0.3)},
            rlaif_method.STAGES,
        ),
        Method("rloo", "RLOO", rloo, GROUPS, {"learning_rate": RATES, "kl_coef": COEFFICIENTS}),
        Method("grpo", "GRPO", grpo, GROUPS, {"learning_rate": RATES, "kl_coef": COEFFICIENTS}),
        Method(
            "ppo",
            "PPO",
            ppo,
            {"learning_rate": 1e-3, "kl_coef": 0.08, "num_envs": 64, "num_minibatches": 4},
            {"learning_rate": RATES, "kl_coef": COEFFICIENTS},
        ),
        Method(
            "replay",
            "SoftQ from replay",
            replay,
            {"learning_rate": 5e-4, "kl_coef": 0.08, "num_envs": 64, "updates_per_window": 8, "head_start": 160},
            {"learning_rate": (1.5e-4, 5e-4, 1.5e-3), "kl_coef": COEFFICIENTS},
        ),
    )
}


def get_methods(names: Sequence[str]) -> list[Method]:
    """Methods by name, in the order given.

    Raises:
        RLHFError: an unknown name, one that comes twice, or none.
    """
    for name in names:
        if name not in METHODS:
            raise RLHFError(unknown_name("method", name, METHODS))
    if len(set(names)) != len(names) or not names:
        raise RLHFError(f"--methods must be different names, at least one; got {','.join(names) or 'none'}.")
    return [METHODS[name] for name in names]
