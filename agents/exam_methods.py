"""The methods that sit the exact exam: each is given the reference, β, a seed and a budget of tokens.

PPO, RLOO, SoftQ and DiscreteSAC are the agents of this package. DPO and ReST train small transformers here as
:mod:`agents.lm.dpo` and :mod:`agents.lm.rest` train language models: the same losses, rankings and selection of texts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from agents.base import Agent
from agents.exact import next_logprobs
from agents.exam import Exam, Texts, imitate
from agents.lm.preferences import pairs, rank_answers
from agents.lm.rest import select
from agents.lm.sampling import Answers, sample_answers
from agents.losses import dpo_loss
from agents.networks import clip_gradient, flatten_parameters
from agents.policies import TransformerPolicy
from agents.ppo import PPO
from agents.rloo import RLOO
from agents.sac import DiscreteSAC
from agents.soft_q import SoftQ
from textenvs import Episodes
from textenvs.text_tree import NextLogprobs


@dataclass(frozen=True)
class Examinee:
    """What a method has made."""

    policy: NextLogprobs
    tokens: int
    """That were written for it."""


def of_agent(agent: Agent) -> Examinee:
    """An agent that has learnt."""
    agent.envs.close()
    return Examinee(next_logprobs(agent), agent.num_timesteps)


# -- agents ------------------------------------------------------------------------------------------------------------


def regularised_ppo(
    envs: VectorEnv, policy: TransformerPolicy, reference: TransformerPolicy, beta: float, seed: int, timesteps: int
) -> PPO:
    """PPO that has maximised E[score] − β KL: the KL in its rewards, no entropy bonus; the learning rate falls to 0."""
    return PPO(
        envs,
        policy=policy,
        reference=reference,
        kl_coef=beta,
        seed=seed,
        ent_coef=0.0,
        anneal_timesteps=timesteps,
        learning_rate=2e-3,
    ).learn(timesteps)


def ppo(exam: Exam, beta: float, seed: int, timesteps: int) -> Examinee:
    """PPO with the KL in its rewards."""
    return of_agent(regularised_ppo(exam.envs(128), exam.fresh_policy(), exam.reference, beta, seed, timesteps))


def rloo(exam: Exam, beta: float, seed: int, timesteps: int) -> Examinee:
    """RLOO, in groups of 8 texts."""
    agent = RLOO(
        exam.envs(128, group_size=8),
        policy=exam.fresh_policy(),
        reference=exam.reference,
        kl_coef=beta,
        seed=seed,
        anneal_timesteps=timesteps,
        learning_rate=2e-3,
    )
    return of_agent(agent.learn(timesteps))


def soft_q(exam: Exam, beta: float, seed: int, timesteps: int) -> Examinee:
    """SoftQ from a replay buffer, with τ = β, and a quarter of the budget."""
    agent = SoftQ(
        exam.envs(16),
        policy=exam.fresh_policy(),
        reference=exam.reference,
        tau=beta,
        seed=seed,
        weight_decay=0.0,
        learning_rate=2e-3,
    )
    return of_agent(agent.learn(timesteps // 4))


class ReferencePaid:
    """A reward model: the score of the exam + β log π_ref(text).

    With an entropy bonus of weight β the objective is that of everybody here, E[score] + β E[log π_ref] + β H(π) =
    E[score] − β KL(π ‖ π_ref), for agents that know entropy and no reference.
    """

    name, deterministic, version = "reference_paid", True, "1"

    def __init__(self, exam: Exam, beta: float) -> None:
        envs = exam.envs(1).unwrapped
        self.exam, self.beta, self.task, self.judge = exam, beta, envs.task, envs.judge
        rarest = min(float(logprobs.min()) for logprobs in exam.problem.ref_logprobs)
        self.low, self.high = self.judge.low + beta * rarest, self.judge.high

    def score(self, episodes: Episodes) -> np.ndarray:
        """Scores float32 [B]."""
        rows = np.concatenate([episodes.prompt_ids, episodes.completion_ids], axis=1)
        with torch.no_grad():
            logprobs = Texts.of(self.task, rows, episodes.lengths).logprobs(self.exam.reference).numpy()
        return np.asarray(self.judge(episodes).total + self.beta * logprobs, dtype=np.float32)


def discrete_sac(exam: Exam, beta: float, seed: int, timesteps: int) -> Examinee:
    """DiscreteSAC from a replay buffer with a fixed temperature β, and a quarter of the budget.

    It trains networks of its own, from nothing: the reference is in the reward alone.
    """
    agent = DiscreteSAC(
        exam.envs(16, reward=ReferencePaid(exam, beta)),
        seed=seed,
        initial_alpha=beta,
        alpha_learning_rate=0.0,
        weight_decay=0.0,
        learning_rate=1e-3,
    )
    return of_agent(agent.learn(timesteps // 4))


# -- from preferences, and by imitation --------------------------------------------------------------------------------

ANSWERS = 4
"""To each prompt; all their pairs are compared."""
ANNOTATOR_SCALE = 8.0
"""How sure the annotator of DPO's rankings is: P(i before j) = σ(scale · (score_i − score_j))."""


def write(exam: Exam, policy: TransformerPolicy, timesteps: int, seed: int) -> tuple[Answers, Texts]:
    """Answers to as many prompts as the budget of tokens is enough for, were all texts as long as can be."""
    envs = exam.envs(32 * ANSWERS, group_size=ANSWERS)
    task = envs.unwrapped.task
    prompts = max(timesteps // (ANSWERS * task.max_new_tokens), 1)
    answers = sample_answers(policy, envs, prompts, k=ANSWERS, seed=seed)
    envs.close()
    return answers, Texts.of(task, answers.rows, answers.episodes.lengths)


def dpo(
    exam: Exam, beta: float, seed: int, timesteps: int, *, learning_rate: float = 2e-3, epochs: int = 6
) -> Examinee:
    """DPO on rankings of texts that the reference wrote.

    Preferences follow Bradley and Terry with the exact score, P = σ(s (r_i − r_j)), so what DPO learns is a reward s r,
    and its optimum is π_ref · exp(s r / β'). With β' = s β that is the same tilted policy as every method's here.
    """
    policy = exam.fresh_policy()
    answers, texts = write(exam, policy, timesteps, seed)
    ranks = rank_answers(answers.scores, ANNOTATOR_SCALE, seed)
    compared = np.stack([pairs(row) for row in ranks])  # [N, M, 2], numbers among the answers to each prompt
    with torch.no_grad():
        reference = texts.logprobs(policy)
    parameters, gradient = flatten_parameters(policy)
    optimizer = torch.optim.Adam([parameters], learning_rate, eps=1e-5, fused=True)
    rng, size = np.random.default_rng([seed, 1]), 32  # another stream than the annotator's noise
    batches = [
        order[start : start + size]
        for order in (rng.permutation(len(ranks)) for _ in range(epochs))
        for start in range(0, len(ranks), size)
    ]
    for step, batch in enumerate(batches):
        numbers = torch.from_numpy((batch[:, None] * ANSWERS + np.arange(ANSWERS)).reshape(-1))
        ratios = texts.take(numbers).logprobs(policy) - reference[numbers]
        flat = torch.from_numpy((compared[batch] + ANSWERS * np.arange(len(batch))[:, None, None]).reshape(-1, 2))
        differences = ratios[flat[:, 0]] - ratios[flat[:, 1]]
        weights = torch.full((len(flat),), 1 / len(flat))
        loss = dpo_loss(differences, weights, ANNOTATOR_SCALE * beta)
        gradient.zero_()
        loss.backward()
        clip_gradient(gradient, 1.0)
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / len(batches))
        optimizer.step()
    policy.invalidate_cache()
    return Examinee(next_logprobs(policy, exam.spec), int(texts.lengths.sum()))


def rest(
    exam: Exam,
    beta: float,
    seed: int,
    timesteps: int,
    *,
    grows: int = 8,
    threshold: float = 0.0,
    keep: str = "best",
    learning_rate: float = 1e-3,
    steps: int = 100,
) -> Examinee:
    """ReST: in each round the policy writes, and imitates the best of its four answers to each prompt.

    A quantile of all scores (``keep="quantile"``) would keep every text where more of them than that tie at the bottom.
    ReST has no β. How far it goes is decided by the number of rounds, and the round that is kept is the one whose own
    texts have the highest mean of score − β log π/π_ref; they are written anyway, but for those of the last round.
    """
    policy = exam.fresh_policy()
    best, kept, tokens = -np.inf, copy.deepcopy(policy.state_dict()), 0
    for grow in range(grows + 1):
        answers, texts = write(exam, policy, timesteps // (grows + 1), 1_000 * seed + grow)
        tokens += int(texts.lengths.sum())
        with torch.no_grad():
            spent = (texts.logprobs(policy) - texts.logprobs(exam.reference)).numpy()
        objective = float((answers.scores.reshape(-1) - beta * spent).mean())
        if objective > best:
            best, kept = objective, copy.deepcopy(policy.state_dict())
        if grow < grows:
            chosen = torch.from_numpy(select(answers.scores, threshold, keep).reshape(-1))
            rng = np.random.default_rng([seed, grow])
            imitate(policy, texts.take(chosen), steps=steps, learning_rate=learning_rate, rng=rng)
    policy.load_state_dict(kept)
    policy.invalidate_cache()
    return Examinee(next_logprobs(policy, exam.spec), tokens)


METHODS: dict[str, Callable[[Exam, float, int, int], Examinee]] = {
    "PPO": ppo,
    "RLOO": rloo,
    "SoftQ": soft_q,
    "DiscreteSAC": discrete_sac,
    "DPO": dpo,
    "ReST": rest,
}
"""What is examined: a method is a function of the exam, β, a seed and a budget of tokens."""
