"""The probes localise mistakes: each of these is planted in PPO, and the probes that fail say where it is.

The sound agent passes all six. What fails under which mistake is the table of docs/probes.md.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import agents.policies
import agents.ppo
from agents import PPO
from agents.policies import Evaluation, TransformerPolicy

PROBES = ("Constant", "Observation", "Discount", "Action", "Both", "Mask")
GAMMA = 0.5
NEAR = 0.15  # of a value; mistakes move one by 0.25 at least
PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "probes.md"

Patch = pytest.MonkeyPatch


def passes(name: str) -> bool:
    """Whether PPO, as it is at the moment, passes a probe: values, sampled score, entropy and masks, as far as the
    probe fixes them."""
    options: dict[str, Any] = {"num_envs": 32, "num_steps": 8, "width": 32, "num_layers": 1, "learning_rate": 2e-3}
    agent = PPO(f"textenvs/Probe{name}-v0", seed=3, gamma=GAMMA, **options)
    history: list[dict[str, float]] = []
    try:
        agent.learn(2_048, callback=lambda agent: history.append(dict(agent.metrics)))
        agent.collector.reset(7)
        rollout = agent.collector.collect(8)
    except (RuntimeError, ValueError):  # from probabilities that are NaN no token can be drawn
        return False
    with torch.no_grad():
        values = agent.policy.values(torch.from_numpy(rollout.rows), torch.from_numpy(rollout.lengths))[0].numpy()
    num_tokens = values.shape[1]
    if name == "Observation":
        right: Any = rollout.rows[:, 4:5]
    else:
        right = GAMMA ** np.arange(num_tokens - 1, -1, -1)
    if name == "Mask":  # of the best text, which begins with 0
        values = values[rollout.rows[:, 0] == 0]
    good = len(values) > 0 and bool(np.isfinite(values).all()) and bool((np.abs(values - right) < NEAR).all())
    if name in ("Action", "Both"):
        good = True  # of the values nothing is asked here
    if name in ("Action", "Both", "Mask"):
        good &= bool(np.mean([row["charts/episodic_return"] for row in history[-3:]]) > 0.9)
    if name == "Mask":  # two actions are legal in each state, and an illegal one ends a text
        good &= all(row["losses/entropy"] < math.log(2) + 0.01 for row in history)
        good &= all(row["charts/episodic_length"] == num_tokens for row in history)
    return good


# -- mistakes ----------------------------------------------------------------------------------------------------------


def nothing(patch: Patch) -> None:
    pass


def no_steps(patch: Patch) -> None:
    patch.setattr(PPO, "_step", lambda self, figures: None)


def value_loss_without_gradient(patch: Patch) -> None:
    loss = agents.ppo.ppo_value_loss
    patch.setattr(agents.ppo, "ppo_value_loss", lambda *args: loss(*args).detach())


def whitening_without_epsilon(patch: Patch) -> None:
    patch.setattr(agents.ppo, "whiten", functools.partial(agents.ppo.whiten, epsilon=0.0))


def bootstrap_after_the_end(patch: Patch) -> None:
    values_of = PPO._values

    def values(self: PPO, rollout: Any, texts: Any) -> Any:
        values, _ = values_of(self, rollout, texts)
        return values, values.gather(1, texts.lengths[:, None] - 1)[:, 0]

    patch.setattr(PPO, "_values", values)


def discount_of_the_last_reward(patch: Patch) -> None:
    gae = agents.ppo.gae
    patch.setattr(
        agents.ppo, "gae", lambda rewards, *rest: gae(rest[-2] * rewards, *rest)
    )  # the last two are gamma, lambda


def no_discount(patch: Patch) -> None:
    gae = agents.ppo.gae
    patch.setattr(agents.ppo, "gae", lambda *args: gae(*args[:4], 1.0, args[5]))


def reward_a_step_early(patch: Patch) -> None:
    gae = agents.ppo.gae

    def early(rewards: torch.Tensor, *rest: Any) -> torch.Tensor:
        first = rewards[:, :1] if rewards.shape[1] == 1 else rewards.roll(-1, 1)
        return gae(first, *rest)

    patch.setattr(agents.ppo, "gae", early)


def blind(patch: Patch) -> None:
    """The network does not see the prompt, in acting or in learning."""

    def covered(method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(self: TransformerPolicy, rows: Any, *rest: Any) -> Any:
            rows = rows.clone() if isinstance(rows, torch.Tensor) else rows.copy()
            rows[:, : self.prompt_length] = 0
            return method(self, rows, *rest)

        return wrapped

    for name in ("act", "evaluate", "values"):
        patch.setattr(TransformerPolicy, name, covered(getattr(TransformerPolicy, name)))


def targets_of_other_texts(patch: Patch) -> None:
    batch_of = PPO._batch

    def batch(self: PPO, rollout: Any) -> Any:
        batch, objective = batch_of(self, rollout)
        others = {name: getattr(batch, name).roll(1, 0) for name in ("advantages", "returns")}
        return replace(batch, **others), objective

    patch.setattr(PPO, "_batch", batch)


def flipped_sign(patch: Patch) -> None:
    loss = agents.ppo.ppo_policy_loss
    patch.setattr(agents.ppo, "ppo_policy_loss", lambda new, old, adv, *rest: loss(new, old, -adv, *rest))


def no_advantages(patch: Patch) -> None:
    loss = agents.ppo.ppo_policy_loss
    patch.setattr(agents.ppo, "ppo_policy_loss", lambda new, old, adv, *rest: loss(new, old, 0 * adv, *rest))


def no_mask_in_sampling(patch: Patch) -> None:
    act = TransformerPolicy.act
    patch.setattr(TransformerPolicy, "act", lambda self, obs, action_mask=None: act(self, obs))


def no_mask_in_the_update(patch: Patch) -> None:
    evaluate = TransformerPolicy.evaluate
    patch.setattr(TransformerPolicy, "evaluate", lambda self, rows, lengths, masks=None: evaluate(self, rows, lengths))


def no_mask_in_the_entropy(patch: Patch) -> None:
    evaluate = TransformerPolicy.evaluate

    def halves(self: TransformerPolicy, rows: Any, lengths: Any, masks: Any = None) -> Evaluation:
        masked, free = evaluate(self, rows, lengths, masks), evaluate(self, rows, lengths)
        return Evaluation(masked.logprobs, free.entropies, masked.values)

    patch.setattr(TransformerPolicy, "evaluate", halves)


def mask_of_the_next_step(patch: Patch) -> None:
    evaluate = TransformerPolicy.evaluate

    def shifted(self: TransformerPolicy, rows: Any, lengths: Any, masks: Any = None) -> Evaluation:
        return evaluate(self, rows, lengths, None if masks is None else masks.roll(-1, 1))

    patch.setattr(TransformerPolicy, "evaluate", shifted)


def infinite_logits(patch: Patch) -> None:
    patch.setattr(agents.policies, "ILLEGAL_LOGIT", -math.inf)


VALUES = {"Constant", "Observation", "Discount", "Mask"}
FAULTS: dict[str, tuple[Callable[[Patch], None], set[str]]] = {
    "none": (nothing, set()),
    "the optimiser does not step": (no_steps, set(PROBES)),
    "the value loss has no gradient": (value_loss_without_gradient, VALUES),
    "advantages are divided by a standard deviation of 0": (whitening_without_epsilon, {"Constant", "Action"}),
    "a value is bootstrapped after the end": (bootstrap_after_the_end, VALUES),
    "γ is applied to the last reward": (discount_of_the_last_reward, VALUES),
    "γ is ignored": (no_discount, {"Discount", "Mask"}),
    "the reward comes a step early": (reward_a_step_early, {"Discount", "Mask"}),
    "the prompt is not seen": (blind, {"Observation", "Both"}),
    "advantages and returns are another text's": (targets_of_other_texts, {"Observation", "Action", "Both", "Mask"}),
    "the policy gradient has the wrong sign": (flipped_sign, {"Action", "Both", "Mask"}),
    "advantages are 0": (no_advantages, {"Action", "Both", "Mask"}),
    "no mask in sampling": (no_mask_in_sampling, {"Mask"}),
    "no mask in the update": (no_mask_in_the_update, {"Mask"}),
    "no mask in the entropy": (no_mask_in_the_entropy, {"Mask"}),
    "the mask of the next step in the update": (mask_of_the_next_step, {"Mask"}),
    "illegal logits are −∞": (infinite_logits, {"Mask"}),
}


@pytest.mark.learning
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_the_probes_of_its_kind(fault: str, monkeypatch: Patch) -> None:
    plant, expected = FAULTS[fault]
    plant(monkeypatch)
    assert {name for name in PROBES if not passes(name)} == expected


def test_the_table_of_the_docs_is_this_one() -> None:
    rows = re.findall(r"^\| (.+?) \|((?: (?:✗|·) \|){6})$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    written = {
        fault: {probe for probe, mark in zip(PROBES, marks.replace("|", " ").split(), strict=True) if mark == "✗"}
        for fault, marks in rows
    }
    assert written == {fault: failing for fault, (_, failing) in FAULTS.items()}
