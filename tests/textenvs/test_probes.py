"""Probes: a sound agent passes all six, and each mistake of docs/probes.md is shown first by the probe named there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from textenvs import TextVectorEnv

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "probes.md").read_text(encoding="utf-8")
PROBES = ("ProbeConstant", "ProbeObservation", "ProbeDiscount", "ProbeAction", "ProbeBoth", "ProbeMask")
"""In the order of the page."""
GAMMA = 0.5
NUM_ENVS = 16
NUM_UPDATES = 100

MISTAKES = {  # as the page says it, and the probe that shows it first
    "the value loss is missing": "ProbeConstant",
    "the last reward is discounted too": "ProbeConstant",
    "returns go on across the end of an episode": "ProbeConstant",
    "advantages are divided by their deviation, which is 0 where all are equal": "ProbeConstant",
    "the value does not see the observation": "ProbeObservation",
    "the reward arrives a step late, in the next episode": "ProbeObservation",
    "nothing is discounted": "ProbeDiscount",
    "the reward is not carried back to earlier tokens": "ProbeDiscount",
    "the sign of the policy's gradient": "ProbeAction",
    "the policy does not see the observation": "ProbeBoth",
    "sampling ignores the mask": "ProbeMask",
    "the mask of the first token is used for the second": "ProbeMask",
    "logits of −∞ under a mask turn the entropy into NaN": "ProbeMask",
}


@dataclass
class Play:
    """What an agent knows after learning: of greedy texts in each sub-environment, and of the way there."""

    prompts: np.ndarray
    values: np.ndarray
    """[N, T], of the state before each token."""
    scores: np.ndarray
    num_invalid: int
    """Texts that an illegal token ended, while it learnt and afterwards."""
    finite: bool


class TabularAgent:
    """Actor-critic with tables for value and policy, and with one mistake or none.

    Args:
        probe: task name.
        mistake: a key of ``MISTAKES``, or None.
    """

    def __init__(self, probe: str, mistake: str | None) -> None:
        self.envs = TextVectorEnv(probe, NUM_ENVS)
        self.spec = self.envs.text_spec
        self.mistake = mistake
        self.rng = np.random.default_rng(0)
        self.value_table: dict[tuple[int, ...], float] = {}
        self.logit_table: dict[tuple[int, ...], np.ndarray] = {}
        self.num_invalid = 0
        self.late_rewards = np.zeros(NUM_ENVS)

    def learn(self) -> TabularAgent:
        """Windows of two episodes a sub-environment; Monte Carlo returns."""
        obs, info = self.envs.reset(seed=0)
        masks = self._masks(info, NUM_ENVS)
        for _ in range(NUM_UPDATES):
            rollout = []
            for _ in range(2 * self.spec.max_new_tokens):
                probabilities = np.stack([self._policy(*state) for state in zip(obs, masks, strict=True)])
                actions = np.where(probabilities > 0, np.log(np.maximum(probabilities, 1e-30)), -np.inf)
                actions = (actions + self.rng.gumbel(size=actions.shape)).argmax(axis=1)
                following, rewards, over, _, info = self.envs.step(actions)
                self._count(info)
                rollout.append((obs, masks, actions, rewards, over))
                obs, masks = following, self._masks(info, NUM_ENVS, masks)
            self._update(rollout)
        return self

    def play(self) -> Play:
        """A greedy episode in each sub-environment."""
        envs = TextVectorEnv(self.envs.task, 4 * NUM_ENVS)
        obs, info = envs.reset(seed=1)
        prompts, masks, values = obs[:, : self.spec.prompt_length].copy(), self._masks(info, len(obs)), []
        scores = np.zeros(len(obs))
        for _ in range(self.spec.max_new_tokens):
            actions = np.array([self._policy(*state).argmax() for state in zip(obs, masks, strict=True)])
            values.append([self._value(row) for row in obs])
            obs, rewards, _, _, info = envs.step(actions)
            self._count(info)
            scores += rewards
            masks = self._masks(info, len(obs), masks)
        finite = all(np.isfinite(logits).all() for logits in self.logit_table.values())
        return Play(prompts, np.array(values).T, scores, self.num_invalid, finite)

    def _masks(self, info: dict, count: int, before: np.ndarray | None = None) -> np.ndarray:
        masks = info.get("action_mask")
        if masks is None or self.mistake == "sampling ignores the mask":
            return np.ones((count, self.spec.num_tokens), dtype=bool)
        if self.mistake == "the mask of the first token is used for the second" and before is not None:
            return before
        return masks.astype(bool)

    def _count(self, info: dict) -> None:
        self.num_invalid += int((info.get("final_info", {}).get("finish_reason") == np.array("invalid")).sum())

    def _value(self, row: np.ndarray) -> float:
        return self.value_table.get(self._key(row, "the value does not see the observation"), 0.0)

    def _key(self, row: np.ndarray, blind: str) -> tuple[int, ...]:
        """The state, as far as it is seen: without the prompt under the mistake ``blind``."""
        return tuple((row[self.spec.prompt_length :] if self.mistake == blind else row).tolist())

    def _policy(self, row: np.ndarray, mask: np.ndarray) -> np.ndarray:
        key = self._key(row, "the policy does not see the observation")
        logits = self.logit_table.get(key, np.zeros(self.spec.num_tokens))
        weights = np.where(mask, np.exp(logits - logits[mask].max()), 0.0)
        return weights / weights.sum()

    def _update(self, rollout: list) -> None:
        rewards = np.stack([step[3] for step in rollout])
        if self.mistake == "the reward arrives a step late, in the next episode":
            rewards, self.late_rewards = np.concatenate([self.late_rewards[None], rewards[:-1]]), rewards[-1]
        returns, following = np.zeros_like(rewards), np.zeros(NUM_ENVS)
        for t in reversed(range(len(rollout))):
            gamma = 1.0 if self.mistake == "nothing is discounted" else GAMMA
            goes_on = ~rollout[t][4]
            if self.mistake == "returns go on across the end of an episode":
                goes_on = np.ones_like(goes_on)
            if self.mistake == "the reward is not carried back to earlier tokens":
                goes_on = np.zeros_like(goes_on)
            reward = rewards[t] * (gamma if self.mistake == "the last reward is discounted too" else 1.0)
            returns[t] = following = reward + gamma * goes_on * following
        advantages = returns - np.array([[self._value(row) for row in step[0]] for step in rollout])
        if self.mistake is not None and self.mistake.startswith("advantages are divided"):
            with np.errstate(invalid="ignore"):
                advantages = (advantages - advantages.mean()) / advantages.std()
        for sample in self.rng.permutation(returns.size):
            t, i = divmod(int(sample), NUM_ENVS)
            row, mask, action = (array[i] for array in rollout[t][:3])
            self._learn_policy(row, mask, action, advantages[t, i])
            if self.mistake != "the value loss is missing":
                key = self._key(row, "the value does not see the observation")
                self.value_table[key] = self._value(row) + 0.1 * (returns[t, i] - self._value(row))

    def _learn_policy(self, row: np.ndarray, mask: np.ndarray, action: int, advantage: float) -> None:
        probabilities = self._policy(row, mask)
        gradient = advantage * ((np.arange(len(mask)) == action) - probabilities)
        if self.mistake == "the sign of the policy's gradient":
            gradient = -gradient
        with np.errstate(divide="ignore", invalid="ignore"):
            logprobs = np.log(probabilities)
            if self.mistake is None or not self.mistake.startswith("logits of −∞"):
                logprobs = np.where(mask, logprobs, 0.0)
            entropy = -(probabilities * logprobs).sum()
            gradient += 1e-3 * -probabilities * (logprobs + entropy)
        key = self._key(row, "the policy does not see the observation")
        # Bounded, so that no probability is rounded to 0.
        self.logit_table[key] = np.clip(self.logit_table.get(key, np.zeros(len(mask))) + 0.3 * gradient, -9, 9)


def passes(probe: str, mistake: str | None) -> bool:
    """Whether the agent knows what the page says that a sound one knows."""
    with np.errstate(invalid="ignore"):
        play = TabularAgent(probe, mistake).learn().play()

    def near(values: np.ndarray, wanted: np.ndarray | float, tolerance: float = 0.1) -> bool:
        return bool((np.abs(values - wanted) < tolerance).all())

    if not play.finite or play.num_invalid:
        return False
    if probe == "ProbeConstant":
        return near(play.values[:, 0], 1.0)
    if probe == "ProbeObservation":
        return near(play.values[:, 0], play.prompts[:, -1])
    if probe == "ProbeDiscount":
        return near(play.values, np.array([GAMMA, 1.0]))
    if probe == "ProbeMask":
        return near(play.values, np.array([GAMMA, 1.0])) and (play.scores == 1.0).all()
    return bool((play.scores == 1.0).all())


@pytest.mark.parametrize("probe", PROBES)
def test_a_sound_agent_passes(probe):
    assert passes(probe, None)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_fails_the_probe_that_is_named_and_none_before(mistake):
    named = MISTAKES[mistake]
    assert next((probe for probe in PROBES if not passes(probe, mistake)), None) == named


def test_the_page_says_the_same():
    for mistake, probe in MISTAKES.items():
        assert f"- {mistake}: `{probe}`" in " ".join(PAGE.split())
    assert PAGE.count("\n- ") == len(MISTAKES)
    order = [line.split("`")[1].removesuffix("-v0") for line in PAGE.splitlines() if line.startswith("| `Probe")]
    assert tuple(order) == PROBES
