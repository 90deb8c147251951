"""What every exported agent does alike: evaluation while it learns, early stop, best checkpoint, exact resume,
schedules, prediction, devices, refusals. Agents that are exported later are covered by themselves."""

from __future__ import annotations

import csv
import dataclasses
import inspect
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import agents
from agents import Agent, CheckpointError, EvaluateCallback, evaluate_agent
from agents.off_policy import ReplayLearner
from agents.schedules import schedulable
from textenvs import TextVectorEnv

AGENTS: list[type[Agent]] = [
    each
    for each in vars(agents).values()
    if isinstance(each, type) and issubclass(each, Agent) and not inspect.isabstract(each)
]
SCHEDULES = [(kind, name) for kind in AGENTS for name in schedulable(kind.Config)]
LEARNERS = list(dict.fromkeys(kind for kind, _ in SCHEDULES))
COPY = "textenvs/Copy-v0"
VARYING = {"length": 3, "num_symbols": 4, "min_length": 2}
SMALL = {  # of these every config takes what it has
    "num_envs": 8,
    "group_size": 4,
    "batch_size": 8,
    "learning_starts": 8,
    "updates_per_window": 2,
    "epochs": 2,
    "num_minibatches": 2,
    "num_layers": 1,
    "width": 16,
    "num_heads": 2,
}
every_agent = pytest.mark.parametrize("kind", AGENTS)
every_learner = pytest.mark.parametrize("kind", LEARNERS)


def small(kind: type[Agent], **more: Any) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(kind.Config)}
    return {name: value for name, value in (SMALL | more).items() if name in known}


def make(kind: type[Agent], log_dir: Path | None = None, seed: int = 0, **more: Any) -> Agent:
    return kind(COPY, seed=seed, env_kwargs=VARYING, log_dir=log_dir, **small(kind, **more))


def bits(tree: Any) -> Any:
    """A state to be compared bit for bit, without the random stream of predictions."""
    if isinstance(tree, dict):
        return {name: bits(value) for name, value in tree.items() if "predict" not in name}
    if isinstance(tree, torch.Tensor):
        return tree.detach().numpy().tobytes()
    return tree.tobytes() if isinstance(tree, np.ndarray) else tree


def everything(agent: Agent) -> dict[str, Any]:
    counters = [agent.num_timesteps, agent.num_episodes, agent.num_updates, agent.gradient_samples]
    parts = {"state": agent._get_state(), "collector": agent.collector.get_state(), "env": agent.envs.get_state()}
    return {"counters": counters, "rng": agent.rng.bit_generator.state} | bits(parts)


def evaluations(folder: Path) -> list[dict[str, str]]:
    with (folder / "evaluations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_agents_are_found() -> None:
    assert {"PPO", "DQN", "DiscreteSAC", "SoftQ", "RandomAgent", "OracleAgent"} <= {kind.__name__ for kind in AGENTS}
    assert {"PPO", "DQN", "DiscreteSAC", "SoftQ"} <= {kind.__name__ for kind in LEARNERS}


# -- evaluation --------------------------------------------------------------------------------------------------------


@every_agent
def test_evaluation_is_no_training(kind: type[Agent]) -> None:
    evaluated, alone = make(kind), make(kind)
    callback = EvaluateCallback(every_timesteps=40, num_episodes=12)
    evaluated.learn(160, callback=callback)
    alone.learn(160)
    assert everything(evaluated) == everything(alone)
    assert evaluated.metrics.keys() == alone.metrics.keys()
    # Each window brings 32 tokens at most (in 8 sub-environments): 0, then the first count at or beyond 40, 80, …
    steps = [int(row["timesteps"]) for row in callback.results]
    assert steps[0] == 0
    assert [step // 40 for step in steps] == list(range(len(steps)))


@every_agent
def test_results_of_both_splits_and_modes_in_files(kind: type[Agent], tmp_path: Path) -> None:
    agent = make(kind, log_dir=tmp_path)
    callback = EvaluateCallback(every_episodes=20, num_episodes=12)
    agent.learn(240, callback=callback)
    keys = [f"eval/{s}/{m}_{w}" for s in ("train", "test") for m in ("greedy", "sampled") for w in ("score", "length")]
    assert list(callback.results[-1]) == ["timesteps", "episodes", *keys]
    rows = evaluations(tmp_path)
    assert list(rows[0]) == ["timesteps", "eval/episodes", *keys]
    assert len(rows) == len(callback.results) > 2
    for row, result in zip(rows, callback.results, strict=True):
        assert float(row["timesteps"]) == result["timesteps"]
        assert float(row["eval/episodes"]) == result["episodes"]
        assert [float(row[key]) for key in keys] == [result[key] for key in keys]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert {*keys, "charts/SPS"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars(keys[0])] == [row["timesteps"] for row in callback.results]


def test_results_are_those_of_evaluate_agent() -> None:
    agent = make(agents.PPO, seed=3)
    callback = EvaluateCallback(every_timesteps=1_000, num_episodes=20)
    agent.learn(60)
    agent.learn(1, callback=callback)
    again = make(agents.PPO, seed=3).learn(60)  # the evaluation was before that learn's first batch
    for split in ("train", "test"):
        for mode in ("greedy", "sampled"):
            result = evaluate_agent(
                again,
                COPY,
                split=split,
                num_episodes=20,
                deterministic=mode == "greedy",
                seed=350_000,
                env_kwargs=VARYING,
            )
            assert callback.results[0][f"eval/{split}/{mode}_score"] == result.mean_score
            assert callback.results[0][f"eval/{split}/{mode}_length"] == result.lengths.mean()
    assert len({value for name, value in callback.results[0].items() if name.endswith("score")}) > 1


def test_without_prompts_there_is_one_split_and_one_greedy_text() -> None:
    agent = agents.DQN("textenvs/HiddenTarget-v0", env_kwargs={"length": 3, "num_symbols": 4}, **small(agents.DQN))
    callback = EvaluateCallback(every_timesteps=50, num_episodes=30)
    agent.learn(50, callback=callback)
    assert {name for name in callback.results[0] if name.startswith("eval/")} == {
        f"eval/train/{mode}_{what}" for mode in ("greedy", "sampled") for what in ("score", "length")
    }
    greedy, sampled = (callback.results[-1][f"eval/train/{mode}_score"] for mode in ("greedy", "sampled"))
    assert (greedy * 3) % 1 == pytest.approx(0, abs=1e-6)
    assert (sampled * 90) % 1 == pytest.approx(0, abs=1e-4)


def test_learning_stops_at_a_score() -> None:
    oracle, random = make(agents.OracleAgent), make(agents.RandomAgent)
    oracle.learn(10_000, callback=EvaluateCallback(every_timesteps=32, num_episodes=8, stop_at=1.0, consecutive=3))
    assert 64 <= oracle.num_timesteps < 128  # after the third evaluation, the first being that of the beginning
    random.learn(500, callback=EvaluateCallback(every_timesteps=32, num_episodes=8, stop_at=1.0))
    assert random.num_timesteps >= 500
    fresh = make(agents.OracleAgent)
    fresh.learn(10_000, callback=EvaluateCallback(every_timesteps=32, num_episodes=8, stop_at=1.0))
    assert fresh.num_timesteps == 0


class Swinging(agents.OracleAgent):
    """Writes the best text at some counts of timesteps, and the same symbol all along at others."""

    def _predict(self, obs: np.ndarray, action_mask: np.ndarray | None, deterministic: bool) -> np.ndarray:
        good = 60 <= self.num_timesteps < 100
        return super()._predict(obs, action_mask, deterministic) if good else np.zeros(len(obs), dtype=np.int64)


def test_the_best_checkpoint_is_kept(tmp_path: Path) -> None:
    agent = make(Swinging)
    callback = EvaluateCallback(every_timesteps=20, num_episodes=8, keep_best=tmp_path / "best")
    agent.learn(200, callback=callback)
    scores = [row["eval/test/greedy_score"] for row in callback.results]
    assert callback.best == 1.0 == max(scores) > scores[-1]
    best = Swinging.load(tmp_path / "best")
    assert best.num_timesteps == callback.results[scores.index(1.0)]["timesteps"]


@every_learner
def test_the_best_checkpoint_scores_what_was_best(kind: type[Agent], tmp_path: Path) -> None:
    agent = make(kind)
    callback = EvaluateCallback(every_timesteps=30, num_episodes=30, keep_best=tmp_path / "best")
    agent.learn(150, callback=callback)
    best = kind.load(tmp_path / "best")
    again = EvaluateCallback(every_timesteps=1, num_episodes=30)
    results = again.evaluate(best)
    assert round(results["eval/test/greedy_score"], 6) == callback.best
    assert callback.best == round(max(row["eval/test/greedy_score"] for row in callback.results), 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "every_timesteps= or every_episodes="),
        ({"every_timesteps": 5, "every_episodes": 5}, "one of them"),
        ({"every_timesteps": 0}, "every must be at least 1; got 0"),
        ({"every_timesteps": 5, "num_episodes": 0}, "num_episodes must be at least 1"),
        ({"every_timesteps": 5, "consecutive": 0}, "consecutive must be at least 1"),
        ({"every_timesteps": 5, "modes": ("best",)}, "modes must be some of greedy, sampled"),
    ],
)
def test_bad_arguments_of_evaluations(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluateCallback(**arguments)


def test_mistakes_that_show_with_the_agent() -> None:
    with pytest.raises(ValueError, match=r"not given by an id: pass env_id="):
        agents.RandomAgent(TextVectorEnv("Copy", 4)).learn(8, callback=EvaluateCallback(8))
    with pytest.raises(ValueError, match=r"metric must be one of eval/train/greedy_score, .*; got 'score'"):
        make(agents.RandomAgent).learn(8, callback=EvaluateCallback(8, num_episodes=4, metric="score"))
    with pytest.raises(ValueError, match=r"the same name.*pass name="):
        make(agents.RandomAgent).learn(8, callback=[EvaluateCallback(8), EvaluateCallback(9)])


# -- going on ----------------------------------------------------------------------------------------------------------


@every_agent
def test_learn_save_load_learn_equals_learning_through(kind: type[Agent], tmp_path: Path) -> None:
    stopped, straight = make(kind).learn(150), make(kind).learn(150)
    stopped.save(tmp_path / "agent")
    resumed = kind.load(tmp_path / "agent")
    assert everything(resumed) == everything(stopped)
    assert everything(resumed.learn(100)) == everything(straight.learn(100))
    assert everything(resumed) != everything(stopped)


@pytest.mark.parametrize("save_first", [False, True])
@every_agent
def test_a_resumed_run_evaluates_as_an_unbroken_one(kind: type[Agent], save_first: bool, tmp_path: Path) -> None:
    """Killed some batches after its last checkpoint, whichever callback came first."""

    def evaluate(folder: Path) -> EvaluateCallback:
        return EvaluateCallback(every_timesteps=40, num_episodes=8, keep_best=folder / "best")

    def saves_in_the_beginning(agent: Agent) -> None:
        if agent.num_timesteps < 100:
            agent.save(tmp_path / "broken" / "agent")

    straight = make(kind, log_dir=tmp_path / "straight")
    unbroken = evaluate(tmp_path / "straight")
    straight.learn(240, callback=unbroken)

    callbacks = [evaluate(tmp_path / "broken"), saves_in_the_beginning]
    broken = make(kind, log_dir=tmp_path / "broken")
    broken.learn(160, callback=callbacks[::-1] if save_first else callbacks)
    resumed = kind.load(tmp_path / "broken" / "agent", log_dir=tmp_path / "broken")
    lost = broken.num_timesteps - resumed.num_timesteps
    assert lost > 40  # an evaluation and more
    going_on = evaluate(tmp_path / "broken")
    resumed.learn(straight.num_timesteps - resumed.num_timesteps, callback=going_on)

    assert everything(resumed) == everything(straight)
    assert evaluations(tmp_path / "broken") == evaluations(tmp_path / "straight")
    assert going_on.get_state() == unbroken.get_state()
    with (tmp_path / "broken" / "metrics.csv").open() as file:
        steps = [int(row["timesteps"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))  # what was lost and played again stands there once
    for folder in ("broken", "straight"):
        best = kind.load(tmp_path / folder / "best")
        assert best.num_timesteps == kind.load(tmp_path / "straight" / "best").num_timesteps


def test_another_score_or_metric_begins_anew(tmp_path: Path) -> None:
    agent = make(agents.OracleAgent)
    agent.learn(100, callback=EvaluateCallback(20, num_episodes=4, stop_at=0.5, consecutive=1))
    assert agent.num_timesteps == 0
    agent.save(tmp_path / "agent")
    loaded = agents.OracleAgent.load(tmp_path / "agent")
    loaded.save(tmp_path / "again")  # the state of a callback that has not been given again is kept
    for folder in ("agent", "again"):
        same = agents.OracleAgent.load(tmp_path / folder)
        same.learn(100, callback=EvaluateCallback(20, num_episodes=4, stop_at=0.5))
        assert same.num_timesteps == 0
    higher = EvaluateCallback(20, num_episodes=4, stop_at=2.0, metric="eval/train/greedy_length")
    other = agents.OracleAgent.load(tmp_path / "agent").learn(60, callback=higher)
    assert other.num_timesteps >= 20
    assert higher.best is not None
    assert higher.best >= 2


# -- schedules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), SCHEDULES)
def test_a_scheduled_field_changes_and_is_used(kind: type[Agent], name: str, tmp_path: Path) -> None:
    other_fields = {"priority_alpha": 0.5} if name == "priority_beta" else {}
    if name == "priority_beta" and "priority_alpha" not in small(kind, **other_fields):
        pytest.skip("no priorities")
    start = getattr(make(kind).config, name)
    end = 0.01 * start if start else 0.5
    moving = {name: [[0, start], [100, start], [200, end]]}
    agent, same = make(kind, schedules=moving, **other_fields), make(kind, **other_fields)
    agent.learn(100)
    same.learn(100)
    assert everything(agent) == everything(same)
    seen: list[tuple[int, float]] = []
    before = agent.num_timesteps
    agent.learn(160, callback=lambda a: seen.append((a.num_timesteps, getattr(a.config, name))))
    same.learn(160)
    assert everything(agent) != everything(same)
    counts = [before, *(count for count, _ in seen[:-1])]  # a batch is played and learnt from with the values before it
    expected = [np.interp(count, [0, 100, 200], [start, start, end]) for count in counts]
    assert [value for _, value in seen] == pytest.approx(expected)
    assert seen[-1][1] == pytest.approx(end)
    if name == "learning_rate":
        assert {group["lr"] for group in agent.optimizer.param_groups} == {seen[-1][1]}

    stopped, straight = make(kind, schedules=moving, **other_fields), make(kind, schedules=moving, **other_fields)
    stopped.learn(150).save(tmp_path / "agent")
    resumed = kind.load(tmp_path / "agent")
    assert getattr(resumed.given_config, name) == start
    assert everything(resumed.learn(100)) == everything(straight.learn(150).learn(100))


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ({"learning_rat": [[0, 1.0]]}, r"Unknown field for schedules 'learning_rat'\. Did you mean 'learning_rate'"),
        ({"width": [[0, 8]]}, "Unknown field for schedules 'width'"),
        ({"learning_rate": 0.5}, r"schedules\['learning_rate'\] must be points \[\[timesteps, value\], …\]"),
        ({"learning_rate": []}, "must be points"),
        ({"learning_rate": [[0, 1e-3], [0, 1e-4]]}, "timesteps rising"),
        ({"learning_rate": [[-1, 1e-3]]}, "must be points"),
        ({"learning_rate": [[0, True]]}, "must be points"),
        ({"learning_rate": [[0, 1e-3], [9, float("nan")]]}, "must be points"),
        ({"learning_rate": [[0, 1e-3], [9, -1e-3]]}, "learning_rate must be positive; got -0.001"),
    ],
)
@every_learner
def test_schedules_that_are_none(kind: type[Agent], schedules: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(kind, schedules=schedules)


def test_schedules_are_a_mapping_and_may_end_at_0() -> None:
    with pytest.raises(TypeError, match=r"schedules must be a mapping; got \[\]"):
        make(agents.PPO, schedules=[])
    agent = make(agents.PPO, schedules={"learning_rate": [[0, 1e-3], [100, 0]]}).learn(120)
    before = everything(agent)["state"]["network"]
    assert everything(agent.learn(100))["state"]["network"] == before


# -- prediction and devices --------------------------------------------------------------------------------------------


@every_agent
def test_predict_has_no_side_effects(kind: type[Agent]) -> None:
    disturbed, alone = make(kind), make(kind)
    obs, _ = TextVectorEnv("Copy", 5, **VARYING).reset(seed=1)
    given = obs.copy()

    def predict(agent: Agent) -> None:
        for deterministic in (True, False):
            agent.predict(obs, deterministic=deterministic)
            agent.predict(obs[0], deterministic=deterministic)

    disturbed.learn(120, callback=predict)
    alone.learn(120)
    assert everything(disturbed) == everything(alone)
    np.testing.assert_array_equal(obs, given)


@every_agent
def test_a_device_that_is_not_there(kind: type[Agent], tmp_path: Path) -> None:
    for device in ("cuda:97", "gpu"):
        with pytest.raises(ValueError, match=rf"device='{device}' is not to be had here: use 'cpu'"):
            kind(COPY, device=device)
    make(kind).save(tmp_path / "agent")
    with pytest.raises(ValueError, match="device='cuda:97' is not to be had here"):
        kind.load(tmp_path / "agent", device="cuda:97")


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
@every_learner
def test_learning_on_any_device(kind: type[Agent], device: str, tmp_path: Path) -> None:
    agent = kind(COPY, env_kwargs=VARYING, device=device, **small(kind))
    agent.learn(200, callback=EvaluateCallback(80, num_episodes=8))
    agent.save(tmp_path / "agent")
    obs, _ = TextVectorEnv("Copy", 5, **VARYING).reset(seed=1)
    on_cpu = kind.load(tmp_path / "agent").predict(obs)[0]
    np.testing.assert_array_equal(kind.load(tmp_path / "agent", device=device).predict(obs)[0], on_cpu)


# -- refusals ----------------------------------------------------------------------------------------------------------


@every_agent
def test_environments_without_tokens_are_refused_with_advice(kind: type[Agent]) -> None:
    envs = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    for env in ("CartPole-v1", envs):
        with pytest.raises(ValueError, match=r"not token sequences.*Stable-Baselines3"):
            kind(env)


@every_agent
def test_checkpoints_of_another_agent_or_version_are_neither_loaded_nor_overwritten(
    kind: type[Agent], tmp_path: Path
) -> None:
    other = agents.OracleAgent if kind is agents.RandomAgent else agents.RandomAgent
    make(other).save(tmp_path / "agent")
    before = {file.name: file.read_bytes() for file in (tmp_path / "agent").iterdir()}
    with pytest.raises(CheckpointError, match=f"checkpoint of {other.__name__}, not of {kind.__name__}"):
        kind.load(tmp_path / "agent")
    with pytest.raises(
        CheckpointError, match=f"holds a checkpoint of {other.__name__}, not of {kind.__name__}; give another folder"
    ):
        make(kind).save(tmp_path / "agent")
    assert {file.name: file.read_bytes() for file in (tmp_path / "agent").iterdir()} == before

    make(kind).save(tmp_path / "own")
    config = tmp_path / "own" / "config.json"
    config.write_text(config.read_text().replace('"version": 1', '"version": 0'))
    old = config.read_bytes()
    with pytest.raises(CheckpointError, match="checkpoint of version 0; this code reads version 1"):
        kind.load(tmp_path / "own")
    with pytest.raises(CheckpointError, match=r"checkpoint of version 0; this code writes 1\. Give another folder"):
        make(kind).save(tmp_path / "own")
    assert config.read_bytes() == old


@pytest.mark.parametrize("kind", [kind for kind in AGENTS if issubclass(kind, ReplayLearner)])
def test_a_replay_buffer_smaller_than_a_batch(kind: type[Agent]) -> None:
    with pytest.raises(ValueError, match=r"capacity=7 episodes never holds the 8 .*raise capacity"):
        make(kind, capacity=7)
