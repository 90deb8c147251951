"""PPO with a queue between playing and learning: which batch is learnt from when, and with which log-probabilities."""

import numpy as np
import pytest
import torch

from agents import PPO
from agents.benchmark.stale_ppo import StalePPO
from agents.checkpoint import CheckpointError

ENV = "textenvs/Reverse-v0"
KWARGS = {"length": 2, "num_symbols": 4}
SMALL = {"num_envs": 8, "width": 8, "num_heads": 2, "num_layers": 1, "learning_rate": 1e-2, "target_kl": None}


def make(kind=StalePPO, **config):
    return kind(ENV, env_kwargs=KWARGS, seed=3, **{**SMALL, **config})


def learn(agent, batches):
    return agent.learn(batches * 8 * 2)  # texts of two tokens


class Diary:
    """Writes down what is played and what is learnt from."""

    def __init__(self, agent, monkeypatch):
        self.played, self.learnt, self.log = [], [], []
        play, update = agent._play, PPO._update

        def spy_play():
            rollout, metrics = play()
            self.played.append(rollout)
            return rollout, metrics

        def spy_update(this, rollout):
            self.learnt.append((len(self.played) - 1, this.num_updates, rollout))
            metrics = update(this, rollout)
            self.log.append(metrics)
            return metrics

        monkeypatch.setattr(agent, "_play", spy_play)
        monkeypatch.setattr(PPO, "_update", spy_update)


def test_age_0_is_ppo_to_the_bit():
    ours, theirs = learn(make(), 4), learn(make(PPO), 4)
    assert torch.equal(ours.parameters, theirs.parameters)
    assert {name: ours.metrics[name] for name in PPO.loss_names} == {x: theirs.metrics[x] for x in PPO.loss_names}
    assert ours.gradient_samples == theirs.gradient_samples == 4 * 8 * 2 * 4  # batches, texts, tokens, epochs
    assert ours.num_learnt == ours.num_episodes == 32


@pytest.mark.parametrize(("age", "when"), [(0, [0, 1, 2, 3, 4]), (1, [1, 2, 3, 4]), (2, [2, 3, 4]), (4, [4])])
def test_a_batch_is_learnt_from_so_many_updates_after_it_was_played(age, when, monkeypatch):
    agent = make(age=age)
    diary = Diary(agent, monkeypatch)
    learn(agent, 5)
    assert [batch for batch, _, _ in diary.learnt] == when
    for number, (_, updates_before, rollout) in enumerate(diary.learnt):
        assert updates_before == number
        np.testing.assert_array_equal(rollout.rows, diary.played[number].rows)
        np.testing.assert_array_equal(rollout.logprobs, diary.played[number].logprobs)  # as sampled
    assert agent.num_learnt == 8 * len(when)
    assert agent.num_episodes == 40
    assert len(agent.waiting) == age


def test_nothing_is_learnt_while_the_queue_fills():
    agent = make(age=2)
    before = agent.parameters.clone()
    learn(agent, 2)
    assert torch.equal(agent.parameters, before)
    assert (agent.num_updates, agent.num_learnt, agent.gradient_samples) == (0, 0, 0)
    assert np.isnan([agent.metrics[name] for name in (*PPO.loss_names, "updates/kl", "updates/moved")]).all()
    learn(agent, 1)
    assert not torch.equal(agent.parameters, before)
    assert agent.metrics["updates/kl"] > 0


def test_without_the_importance_ratio_every_ratio_begins_at_1(monkeypatch):
    """One minibatch: what is logged is what the gradient step starts from."""
    for importance_ratio in (True, False):
        agent = make(age=2, importance_ratio=importance_ratio, epochs=1, num_minibatches=1)
        diary = Diary(agent, monkeypatch)
        learn(agent, 6)
        distances = [metrics["losses/approx_kl"] for metrics in diary.log]
        assert distances[0] == pytest.approx(0, abs=1e-6)  # the first batch: nothing has been learnt yet
        if importance_ratio:
            assert min(distances[1:]) > 1e-5
        else:
            assert distances == pytest.approx([0] * 4, abs=1e-6)
            assert [metrics["losses/clipfrac"] for metrics in diary.log] == [0] * 4
            _, _, last = diary.learnt[-1]
            assert np.abs(last.logprobs - diary.played[3].logprobs).max() > 1e-3
        monkeypatch.undo()


def test_log_probabilities_of_a_fresh_batch_are_those_it_was_sampled_with():
    agent = make()
    learn(agent, 3)
    rollout, _ = agent._play()
    np.testing.assert_allclose(agent._logprobs(rollout).numpy(), rollout.logprobs, atol=1e-5)


def test_how_far_an_update_moved_the_policy(monkeypatch):
    agent = make()
    agent.collector.reset(0)
    rollout, _ = agent._play()
    change = np.log(np.tile([1.5, 1.1], (8, 1))).astype(np.float32)  # of the first and of the second token
    monkeypatch.setattr(agent, "_logprobs", lambda this: torch.from_numpy(this.logprobs + change))
    # ((0.5 - ln 1.5) + (0.1 - ln 1.1)) / 2, and one token of two is beyond 20 %.
    assert agent._movement(rollout) == pytest.approx({"updates/kl": 0.04961236, "updates/moved": 0.5}, abs=1e-6)


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="age must be at least 0; got -1"):
        make(age=-1)
    with pytest.raises(TypeError, match=r"Unknown config key 'ages'\. Did you mean 'age'"):
        make(ages=1)
    with pytest.raises(TypeError, match="age must be an integer"):
        make(age=1.5)
    with pytest.raises(CheckpointError, match="StalePPO has no checkpoints"):
        make().save(tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()
