"""What is ReturnDecomposition's own: running fit, scores of all or nothing, policy. The rest: test_off_policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agents import ReturnDecomposition
from agents.return_decomposition import Fit

SMALL = {
    "num_envs": 8,
    "batch_size": 8,
    "learning_starts": 8,
    "updates_per_window": 2,
    "width": 16,
    "num_heads": 2,
}


def make(**more: Any) -> ReturnDecomposition:
    kwargs = {"length": 4, "num_symbols": 3} | more.pop("env_kwargs", {})
    return ReturnDecomposition("textenvs/Copy-v0", env_kwargs=kwargs, **(SMALL | more))


def test_running_fit_literal() -> None:
    fit = Fit()
    fit.add_scores(np.array([0.0, 1.0] * 64), np.array([0.5, 0.5] * 64))
    assert (fit.mean_score, fit.mean_square, fit.squared_error) == (0.5, 0.5, 0.25)
    assert fit.explained_variance == 0.0  # the mean is all that is known
    fit.add_scores(np.array([0.0, 1.0] * 32), np.array([0.0, 1.0] * 32))  # half of the memory: half the weight
    assert fit.explained_variance == 0.5
    assert Fit().trust == 0.0
    fit.add_evidence(3.0, 4.0, 8)
    assert fit.trust == pytest.approx(0.75, abs=1e-3)
    fit.add_evidence(-100.0, 4.0, 8)
    assert fit.trust == 0.0
    fit.add_evidence(8.0, 4.0, 256)  # the memory is 256 episodes: the rest is forgotten
    assert fit.trust == 1.0
    assert (fit.kept, fit.promised) == (8.0, 4.0)


def test_scores_of_all_or_nothing_are_noticed_and_others_are_not() -> None:
    agent = make(env_kwargs={"reward": "exact_match", "num_symbols": 2, "length": 2}).learn(200)
    assert set(agent.replay.scores) == {0.0, 1.0}
    assert agent.all_or_nothing
    assert agent._shares() == pytest.approx({"recent_share": 1 / 3, "score_share": 0.0, "rare_share": 1 / 3})
    assert agent.metrics["losses/imitation_loss"] != 0.0
    other = make().learn(400)
    assert len(set(other.replay.scores)) > 2
    assert not other.all_or_nothing
    assert other._shares() == {"recent_share": 0.5, "score_share": 0.0, "rare_share": 0.0}
    assert other.metrics["losses/imitation_loss"] == 0.0


def test_policy_is_softmax_of_contributions_and_trusted_continuations() -> None:
    agent = make(epsilon=0.1)
    hidden = torch.randn(5, 16)
    f, c = (agent.network.heads[name](hidden) for name in ("contributions", "continuation"))
    agent.fit.kept, agent.fit.promised = 0.25, 1.0
    with torch.no_grad():
        masks = torch.tensor([True, False, True]).expand(5, 3)
        got = agent._policy(hidden, masks, deterministic=False)
        best = agent._policy(hidden, masks, deterministic=True)
        logits = ((f + 0.25 * c) / (0.02 * 10.0)).masked_fill(~masks, float("-inf"))
    torch.testing.assert_close(got, 0.9 * logits.softmax(-1) + 0.1 * masks / 2)
    assert torch.equal(best.argmax(-1), logits.argmax(-1))


def test_fit_is_of_new_episodes_by_the_weights_before_they_are_learnt_from() -> None:
    agent = make(env_kwargs={"num_symbols": 2}).learn(4 * 8 * 40)
    before = agent.network.heads["baseline"].weight.detach().clone()
    predicted: list[float] = []
    add_scores = agent.fit.add_scores

    def spy(scores: np.ndarray, said: np.ndarray) -> None:
        assert torch.equal(agent.network.heads["baseline"].weight, before)
        predicted.extend(said - scores)
        add_scores(scores, said)

    agent.fit.add_scores = spy  # type: ignore[method-assign]
    agent.learn(4)
    assert len(predicted) == 8
    assert np.abs(predicted).mean() < 0.3  # scores lie between 0 and 1, and it has learnt a little
    assert not torch.equal(agent.network.heads["baseline"].weight, before)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"initial_std": -1.0}, "initial_std must be positive"),
        ({"epsilon": 1.5}, "epsilon must be between 0 and 1; got 1.5"),
        ({"continuation_coef": -0.1}, "continuation_coef must not be negative; got -0.1"),
        ({"imitation_coef": -1.0}, "imitation_coef must not be negative; got -1.0"),
    ],
)
def test_config_values_out_of_range(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**config)
