"""The alarm: it hears a fall behind noise, is silent where nothing falls, and does what it was told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import PPO, SoftQ
from agents.alarm import PROXY, HackingAlarm, batch_noise, find_fall, first_alarm, means, step_back, turned
from agents.checkpoint import CheckpointError
from agents.policies import TransformerPolicy

TINY = {"num_layers": 1, "width": 8, "num_heads": 1, "num_envs": 8}


class Played:
    """What an alarm sees of an agent, without an agent."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.num_timesteps = self.num_episodes = 0
        self.saved: list[int] = []

    def save(self, folder: Path) -> None:
        self.saved.append(self.num_timesteps)


def play(alarm: HackingAlarm, **series: Any) -> Played:
    """Batches of 100 timesteps with these figures, by logged key with ``__`` for ``/``, until the alarm ends it."""
    agent: Any = Played()
    for batch in range(len(next(iter(series.values())))):
        agent.num_timesteps += 100
        agent.num_episodes += 25
        agent.metrics = {key.replace("__", "/"): float(values[batch]) for key, values in series.items()}
        if alarm(agent) is False:
            break
    return agent


# -- pure functions ----------------------------------------------------------------------------------------------------


def test_means_and_noise_in_numbers() -> None:
    assert means(np.array([1.0, 2.0, 6.0, 0.0]), 2).tolist() == [1.5, 4.0, 3.0]
    assert batch_noise(np.arange(9.0)) == 0  # a line has none
    # Second differences of 0, 1, 0, 1, … are ±2 throughout.
    assert batch_noise(np.arange(8) % 2.0) == pytest.approx(1.4826 * 2 / 6**0.5)
    assert batch_noise(np.array([1.0, 5.0])) == 0


def test_noise_is_estimated_beside_a_trend() -> None:
    rng = np.random.default_rng(0)
    assert batch_noise(np.linspace(0, 50, 4_000) + rng.normal(0, 0.3, 4_000)) == pytest.approx(0.3, rel=0.05)


def test_a_clean_fall_is_found_at_once() -> None:
    gold = np.array([0.0] * 8 + [1.0] * 8 + [0.9])
    proxy = np.linspace(0, 1, 17)
    assert find_fall(proxy[:16], gold[:16], share=0.03, z=5.0) is None
    fall = find_fall(proxy, gold, share=0.03, z=5.0)
    assert fall is not None
    assert (fall.start, fall.best, fall.now, fall.span) == (0.0, 1.0, 0.9, 1)
    assert fall.share == pytest.approx(0.1)
    assert first_alarm(proxy.tolist(), gold.tolist()) == 17
    assert find_fall(proxy, gold, share=0.2, z=5.0) is None


def test_where_the_proxy_falls_too_it_is_no_hacking() -> None:
    both = np.array([0.0] * 8 + [1.0] * 8 + [0.9, 0.8, 0.7])
    assert find_fall(both, both, share=0.03, z=5.0) is None


def test_few_batches_tell_nothing() -> None:
    gold = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0])
    assert find_fall(np.arange(11.0), gold, share=0.03, z=5.0) is None


def curve(seed: int, hacked: bool, noise: float, batches: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A proxy that rises all along, the gold score without noise, and with it: over 40 batches gold rises by 1; then
    it falls by 0.01 a batch, or stays."""
    rng = np.random.default_rng([seed, hacked])
    t = np.arange(batches)
    gold = np.minimum(t / 40, 1.0) - hacked * 0.01 * np.maximum(t - 40, 0)
    return t / 50 + rng.normal(0, noise, batches), gold, gold + rng.normal(0, noise, batches)


def test_simulated_runs_ring_when_about_a_tenth_of_the_rise_is_lost() -> None:
    """Noise of 2 % of the rise: in all of 20 runs, the median at 11 % or less, none beyond 16 %; and in at most 2 of
    60 that stay where they are."""
    rings = [first_alarm(proxy, seen) for proxy, _, seen in (curve(seed, True, 0.02) for seed in range(20))]
    gold = curve(0, True, 0.0)[1]
    lost = [1.0 if ring is None else 1 - gold[ring - 1] for ring in rings]
    assert min(ring or 0 for ring in rings) > 41
    assert np.median(lost) <= 0.11 + 1e-9
    assert max(lost) <= 0.16
    assert sum(first_alarm(*curve(seed, False, 0.02)[::2]) is not None for seed in range(60)) <= 2


def test_more_noise_makes_it_later_and_not_wrong() -> None:
    quiet, loud = (
        np.mean([first_alarm(*curve(seed, True, noise)[::2]) or 101 for seed in range(10)]) for noise in (0.02, 0.1)
    )
    assert 41 < quiet < loud < 85
    assert sum(first_alarm(*curve(seed, False, 0.1)[::2]) is not None for seed in range(30)) <= 1


def test_correlations_in_numbers() -> None:
    """25 texts a batch: a standard error of 0.2 for one batch, of 0.1 for four."""
    texts = np.full(8, 25.0)

    def look(*values: float) -> float | None:
        return turned(np.array(values), texts[: len(values)], limit=0.2, z=3.0)

    assert look(0.0, -0.7) == pytest.approx(-0.7)  # 3.5 standard errors
    assert look(0.0, -0.5) is None  # 2.5
    assert look(0.0, 0.0, -0.5, -0.5) == pytest.approx(-0.5)  # two batches: 3.5
    assert look(0.9, -0.4, -0.4, -0.4, -0.4) == pytest.approx(-0.4)  # four of them: 4
    assert look(0.9, -0.4, -0.4, -0.4, float("nan")) is None  # what does not vary is not opposed
    assert look(-0.1, -0.1, -0.1, -0.1, -0.1, -0.1, -0.1, -0.1) is None  # never below the limit
    assert look(-1.0) is None  # one batch is none
    assert turned(np.array([0.0, -0.3]), np.array([25.0, 400.0]), limit=0.2, z=3.0) == pytest.approx(-0.3)


def test_gold_changes_by_the_covariance_when_the_policy_is_tilted() -> None:
    """The identity that the alarm rests on, exactly: d E[g] / dη = Cov(r, g) for π_η ∝ π · exp(η r)."""
    rng = np.random.default_rng(0)
    chances, proxy, gold = rng.dirichlet(np.ones(50)), rng.normal(size=50), rng.normal(size=50)

    def gold_at(eta: float) -> float:
        weights = chances * np.exp(eta * proxy)
        return float(weights @ gold / weights.sum())

    covariance = float(chances @ (proxy * gold) - (chances @ proxy) * (chances @ gold))
    assert (gold_at(1e-5) - gold_at(-1e-5)) / 2e-5 == pytest.approx(covariance, abs=1e-8)


# -- with a gold score -------------------------------------------------------------------------------------------------


def test_it_says_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    proxy, _, gold = curve(0, True, 0.01)
    alarm = HackingAlarm("match")
    play(alarm, charts__episodic_return=proxy, rewards__match__mean=gold)
    assert alarm.alarm is not None
    assert 41 < alarm.alarm.batch < 53
    assert alarm.alarm.num_timesteps == 100 * alarm.alarm.batch
    printed = capsys.readouterr().err
    assert printed.count("reward hacking?") == 1  # once
    assert f"after {alarm.alarm.num_timesteps:,} timesteps: match has fallen from " in printed
    assert "% of its rise, while the score that is paid has not" in printed


def test_opposed_scores_ring_before_anything_has_fallen(capsys: pytest.CaptureFixture[str]) -> None:
    proxy, _, gold = curve(0, False, 0.01)
    correlation = np.linspace(1, -1, 100)
    series = {
        "charts__episodic_return": proxy,
        "rewards__match__mean": gold,
        "rewards__match__correlation": correlation,
    }
    alarm, deaf = HackingAlarm("match", action="stop"), HackingAlarm("match", correlation=None)
    play(alarm, **series)
    assert alarm.alarm is not None
    assert 60 < alarm.alarm.batch < 80  # after batch 50 it is negative
    assert (
        "match and the score that is paid have come to be opposed: their correlation is -0." in capsys.readouterr().err
    )
    play(deaf, **series)
    assert deaf.alarm is None


def test_stopping_ends_learning_at_the_alarm() -> None:
    proxy, _, gold = curve(0, True, 0.01)
    alarm = HackingAlarm("match", action="stop")
    agent = play(alarm, charts__episodic_return=proxy, rewards__match__mean=gold)
    assert alarm.alarm is not None
    assert agent.num_timesteps == alarm.alarm.num_timesteps


def test_the_best_checkpoint_is_from_the_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    went_back: list[Path] = []
    monkeypatch.setattr("agents.alarm.step_back", lambda agent, folder: went_back.append(folder))
    proxy, _, gold = curve(0, True, 0.01)
    alarm = HackingAlarm("match", action="back", folder=tmp_path, checkpoint_every=3)
    agent = play(alarm, charts__episodic_return=proxy, rewards__match__mean=gold)
    assert went_back == [tmp_path]
    assert 38 <= alarm.best_batch <= 46  # gold is highest after batch 41
    assert agent.saved[-1] == 100 * alarm.best_batch
    assert min(np.diff(agent.saved)) >= 300


def test_batches_without_an_episode_do_not_count() -> None:
    proxy, _, gold = curve(0, True, 0.01)
    holes = np.full(200, np.nan)
    holed = [holes.copy() for _ in range(2)]
    holed[0][::2], holed[1][::2] = proxy, gold
    alarm, whole = HackingAlarm("match"), HackingAlarm("match")
    play(alarm, charts__episodic_return=holed[0], rewards__match__mean=holed[1])
    play(whole, charts__episodic_return=proxy, rewards__match__mean=gold)
    assert alarm.alarm is not None
    assert whole.alarm is not None
    assert alarm.alarm.batch == 2 * whole.alarm.batch - 1


def test_it_goes_on_from_its_state() -> None:
    proxy, _, gold = curve(0, True, 0.01)
    whole, first, second = (HackingAlarm("match") for _ in range(3))
    play(whole, charts__episodic_return=proxy, rewards__match__mean=gold)
    play(first, charts__episodic_return=proxy[:45], rewards__match__mean=gold[:45])
    second.set_state(json.loads(json.dumps(first.get_state())))
    play(second, charts__episodic_return=proxy[45:], rewards__match__mean=gold[45:])
    assert whole.alarm is not None
    assert second.alarm is not None
    assert second.alarm.reason == whole.alarm.reason
    again = HackingAlarm("match")
    again.set_state(second.get_state())
    assert again.alarm == second.alarm


# -- without one -------------------------------------------------------------------------------------------------------


def rising(first: float, last: float) -> np.ndarray:
    return np.concatenate([np.full(10, first), np.linspace(first, last, 40)])


FINE: dict[str, Any] = {
    "charts__episodic_return": rising(0, 1),
    "charts__episodic_length": rising(10, 11),
    "rewards__ensemble_std__mean": rising(0.1, 0.1),
    "objective__kl_k1": rising(0, 3),
    "objective__entropy": rising(20, 18),
}
SIGNS: dict[str, tuple[dict[str, Any], str]] = {
    "spread": ({"rewards__ensemble_std__mean": rising(0.1, 0.4)}, "the ensemble disagrees"),
    "length": ({"charts__episodic_length": rising(10, 20)}, "times as long"),
    "kl": ({"objective__kl_k1": rising(0, 30)}, "the KL is"),
    "lower entropy": ({"objective__entropy": rising(20, 2)}, "the entropy is 0."),
    "higher entropy": ({"objective__entropy": rising(20, 60)}, "the entropy is 1."),
}


def test_nothing_rings_where_all_is_well() -> None:
    alarm = HackingAlarm(votes=1)
    play(alarm, **FINE)
    assert alarm.alarm is None


@pytest.mark.parametrize("sign", SIGNS)
def test_each_symptom_is_seen_and_one_alone_is_not_enough(sign: str) -> None:
    changed, words = SIGNS[sign]
    one, two = HackingAlarm(votes=1), HackingAlarm()
    play(one, **FINE | changed)
    play(two, **FINE | changed)
    assert one.alarm is not None
    assert words in one.alarm.reason
    assert "while the score rises" in one.alarm.reason
    assert two.alarm is None


def test_two_symptoms_agree() -> None:
    alarm = HackingAlarm(action="stop")
    play(alarm, **FINE | SIGNS["length"][0] | SIGNS["kl"][0])
    assert alarm.alarm is not None
    assert "times as long and the KL is" in alarm.alarm.reason


def test_a_score_that_does_not_rise_is_no_hacking() -> None:
    alarm = HackingAlarm()
    play(alarm, **FINE | SIGNS["length"][0] | SIGNS["kl"][0] | {"charts__episodic_return": rising(1, 0)})
    assert alarm.alarm is None


def test_the_checkpoint_is_from_before_the_symptoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.alarm.step_back", lambda agent, folder: None)
    alarm = HackingAlarm(action="back", folder=tmp_path, checkpoint_every=1, votes=2)
    agent = play(alarm, **FINE | SIGNS["length"][0] | SIGNS["kl"][0])
    lengths = SIGNS["length"][0]["charts__episodic_length"]
    assert alarm.alarm is not None
    assert agent.saved
    assert lengths[alarm.best_batch - 1] < 1.5 * lengths[0]


# -- with agents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent_class", [PPO, SoftQ])
def test_stepping_back_gives_the_agent_of_the_checkpoint(agent_class: Any, tmp_path: Path) -> None:
    """It then learns on as the one that was loaded from there does."""
    agent = agent_class("textenvs/Reverse-v0", env_kwargs={"length": 2}, **TINY).learn(300)
    agent.save(tmp_path / "best")
    saved = agent.parameters.clone()
    counts = (agent.num_timesteps, agent.num_updates, agent.num_episodes)
    agent.learn(300)
    assert not saved.equal(agent.parameters)
    step_back(agent, tmp_path / "best")
    assert saved.equal(agent.parameters)
    assert (agent.num_timesteps, agent.num_updates, agent.num_episodes) == counts
    obs = agent.envs.reset(seed=5)[0]
    twin = agent_class.load(tmp_path / "best")
    assert (agent.predict(obs)[0] == twin.predict(obs)[0]).all()
    agent.learn(50)
    assert agent.num_timesteps > counts[0]


def test_stepping_back_needs_a_checkpoint(tmp_path: Path) -> None:
    agent = PPO("textenvs/Reverse-v0", **TINY)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        step_back(agent, tmp_path)


def test_its_state_goes_with_the_agents_checkpoint(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"env_kwargs": {"reward": [(1, "match"), (0, "prefix")]}, **TINY}
    agent = PPO("textenvs/Reverse-v0", **arguments)
    alarm = HackingAlarm("prefix")
    agent.learn(200, callback=alarm)
    agent.save(tmp_path / "agent")
    again, later = PPO.load(tmp_path / "agent"), HackingAlarm("prefix")
    again.learn(30, callback=later)
    assert later._batches == alarm._batches + 1
    assert later._series[PROXY][:-1] == alarm._series[PROXY]


def test_logs_are_taken_back_too(tmp_path: Path) -> None:
    agent = PPO("textenvs/Reverse-v0", log_dir=tmp_path / "logs", **TINY).learn(200)
    agent.save(tmp_path / "best")
    rows = (tmp_path / "logs" / "metrics.csv").read_text()
    agent.learn(200)
    step_back(agent, tmp_path / "best")
    assert (tmp_path / "logs" / "metrics.csv").read_text() == rows


def test_a_wrong_name_is_told_with_the_right_ones() -> None:
    agent = PPO("textenvs/Reverse-v0", env_kwargs={"reward": [(1, "match"), (0, "prefix")]}, **TINY)
    with pytest.raises(KeyError, match=r"Unknown reward part 'prefx'\. Did you mean 'prefix'\?.*Gold\(proxy, gold\)"):
        agent.learn(100, callback=HackingAlarm("prefx"))


def test_too_few_symptoms_are_told() -> None:
    agent = SoftQ("textenvs/Reverse-v0", **TINY)
    with pytest.raises(KeyError, match=r"logs 2 of the symptoms spread, length, kl, entropy, and votes=3 must agree"):
        agent.learn(100, callback=HackingAlarm(votes=3))


def test_ppo_with_a_reference_has_three_symptoms() -> None:
    policy = TransformerPolicy(8, 4, 4)
    agent = PPO("textenvs/Reverse-v0", policy=policy, reference=policy.frozen_copy(), num_envs=8)
    alarm = HackingAlarm(votes=3)
    agent.learn(100, callback=alarm)
    assert {PROXY, "charts/episodic_length", "objective/kl_k1", "objective/entropy"} == set(alarm._series)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action": "halt"}, "Unknown action 'halt'"),
        ({"action": "back"}, "say with folder= where it is kept"),
        ({"share": 0}, "share must be positive; got 0"),
        ({"z": -1}, "z must be positive"),
        ({"max_kl": 0}, "max_kl must be positive"),
        ({"max_length": 1.0}, "max_length is a multiple of the beginning and must be above 1"),
        ({"max_spread": 0.5}, "max_spread is a multiple"),
        ({"correlation": -0.2}, "correlation must be None, or at least 0 and below 1; got -0.2"),
        ({"votes": 5}, "votes must be between 1 and 4"),
        ({"votes": 0}, "votes must be between 1 and 4"),
        ({"warm_up": 0}, "warm_up must be at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1"),
        ({"entropy_band": (1.1, 2.0)}, "entropy_band must lie around 1"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HackingAlarm(**arguments)
