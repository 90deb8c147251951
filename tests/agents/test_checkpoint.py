"""Checkpoints: exact resume, clear refusals, nothing overwritten, no pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from safetensors.numpy import load_file

from agents import PPO, Agent, CheckpointError, OracleAgent, RandomAgent
from agents.checkpoint import load_state, save_checkpoint
from textenvs import TextEnv, TextVectorEnv

VARYING = {"length": 3, "num_symbols": 3, "min_length": 1}
TINY = {"num_envs": 6, "width": 16, "num_heads": 2, "num_layers": 1, "num_steps": 5}


def make(**more: Any) -> PPO:
    return PPO("textenvs/Copy-v0", env_kwargs=VARYING, **(TINY | more))


def everything(agent: Agent) -> dict[str, Any]:
    """Counters and state as nested lists, to be compared bit for bit."""
    counters = [agent.num_timesteps, agent.num_episodes, agent.num_updates, agent.gradient_samples]
    return {"counters": counters, "rng": agent.rng.bit_generator.state} | plain(
        {"state": agent._get_state(), "collector": agent.collector.get_state(), "env": agent.envs.get_state()}
    )


def plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return tree.tolist() if isinstance(tree, torch.Tensor | np.ndarray) else tree


@pytest.mark.parametrize("config", [{}, {"anneal_timesteps": 500, "target_kl": 0.05}])
def test_learn_save_load_learn_equals_learning_through(tmp_path: Path, config: dict[str, Any]) -> None:
    stopped, straight = make(**config), make(**config)
    stopped.learn(150)
    in_flight = stopped.collector.get_state()["lengths"]
    assert in_flight.any()  # else the test would not see whether they carry over
    stopped.save(tmp_path / "checkpoint")
    resumed = PPO.load(tmp_path / "checkpoint")
    assert everything(resumed) == everything(stopped)
    resumed.learn(150)
    straight.learn(150)
    straight.learn(150)
    assert everything(resumed) == everything(straight)
    assert everything(resumed) != everything(stopped)


def test_saving_changes_nothing(tmp_path: Path) -> None:
    saved, straight = make(), make()
    saved.learn(200, callback=lambda agent: agent.save(tmp_path / "checkpoint"))
    straight.learn(200)
    assert everything(saved) == everything(straight)


@pytest.mark.parametrize("agent_class", [RandomAgent, OracleAgent])
def test_baselines_too(tmp_path: Path, agent_class: type[Agent]) -> None:
    def make_one() -> Agent:
        return agent_class("textenvs/Copy-v0", env_kwargs=VARYING, num_envs=6)

    stopped, straight = make_one(), make_one()
    stopped.learn(50).save(tmp_path / "checkpoint")
    resumed = agent_class.load(tmp_path / "checkpoint").learn(50)
    assert everything(resumed) == everything(straight.learn(50).learn(50))


def test_an_agent_that_has_not_begun(tmp_path: Path) -> None:
    make().save(tmp_path / "checkpoint")
    resumed = PPO.load(tmp_path / "checkpoint")
    assert everything(resumed.learn(60)) == everything(make().learn(60))


def test_loading_onto_another_environment(tmp_path: Path) -> None:
    agent = make().learn(60)
    agent.save(tmp_path / "checkpoint")
    more = TextVectorEnv("Copy", 9, **VARYING)
    resumed = PPO.load(tmp_path / "checkpoint", env=more)
    assert resumed.config.num_envs == 9
    assert torch.equal(resumed.parameters, agent.parameters)
    resumed.learn(60)
    assert resumed.num_timesteps == 60 + 90
    sync = SyncVectorEnv([lambda: TextEnv("Copy", **VARYING)] * 6)
    PPO.load(tmp_path / "checkpoint", env=sync).learn(60).save(tmp_path / "sync")
    with pytest.raises(CheckpointError, match="pass env="):
        PPO.load(tmp_path / "sync")
    assert PPO.load(tmp_path / "sync", env=sync).learn(60).num_timesteps > 150


def test_episodes_that_cannot_be_restored_are_the_same_at_every_resumption(tmp_path: Path) -> None:
    def sync() -> SyncVectorEnv:
        return SyncVectorEnv([lambda: TextEnv("Copy", **VARYING)] * 6)

    agent = PPO(sync(), **TINY).learn(60)
    agent.save(tmp_path / "checkpoint")
    first, second = (PPO.load(tmp_path / "checkpoint", env=sync()).learn(60) for _ in range(2))
    assert torch.equal(first.parameters, second.parameters)
    # …and not those of the beginning once more.
    begun = PPO(sync(), **TINY)
    begun.learn(1)
    resumed = PPO.load(tmp_path / "checkpoint", env=sync())
    resumed.learn(1)
    assert not np.array_equal(begun.collector.get_state()["obs"], resumed.collector.get_state()["obs"])


def test_a_checkpoint_survives_a_kill_between_the_two_renames(tmp_path: Path) -> None:
    agent = make().learn(60)
    agent.save(tmp_path / "checkpoint")
    (tmp_path / "checkpoint").rename(tmp_path / ".checkpoint.123.old")
    (tmp_path / ".checkpoint.123.tmp").mkdir()
    assert everything(PPO.load(tmp_path / "checkpoint")) == everything(agent)
    agent.save(tmp_path / "checkpoint")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_environment_arguments_that_json_cannot_hold(tmp_path: Path) -> None:
    agent = PPO("textenvs/Copy-v0", env_kwargs={"reward": lambda completions: [0.5] * len(completions)}, **TINY)
    agent.learn(60).save(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="pass env="):
        PPO.load(tmp_path / "checkpoint")


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    make().learn(30).save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_another_agent_version_or_thing(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="checkpoint of PPO, not of RandomAgent"):
        RandomAgent.load(checkpoint)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        PPO.load(tmp_path / "nowhere")
    edit(checkpoint, version=99)
    with pytest.raises(CheckpointError, match="version 99"):
        PPO.load(checkpoint)
    edit(checkpoint, format="something else")
    with pytest.raises(CheckpointError, match="no format"):
        PPO.load(checkpoint)


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [
        ({"length": 4, "num_symbols": 3, "min_length": 1}, "prompt_length"),
        ({"length": 3, "num_symbols": 4, "min_length": 1}, "pad_id"),
        ({"length": 3, "num_symbols": 4}, "max_new_tokens"),
    ],
)
def test_another_kind_of_environment(checkpoint: Path, kwargs: dict[str, Any], name: str) -> None:
    with pytest.raises(CheckpointError, match=f"environment with {name}="):
        PPO.load(checkpoint, env=TextVectorEnv("Copy", 2, **kwargs))


@pytest.mark.parametrize("file", ["state.json", "network.safetensors", "collector.safetensors", "config.json"])
def test_damaged_files(checkpoint: Path, file: str) -> None:
    whole = (checkpoint / file).read_bytes()
    (checkpoint / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        PPO.load(checkpoint)


def test_missing_parts(checkpoint: Path) -> None:
    (checkpoint / "network.safetensors").unlink()
    with pytest.raises(CheckpointError, match="network"):
        PPO.load(checkpoint)


def test_other_folders_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    agent = make()
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        agent.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "precious"
    (tmp_path / "file").write_text("precious")
    with pytest.raises(CheckpointError, match="is a file"):
        agent.save(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    agent.save(tmp_path / "empty")
    assert PPO.load(tmp_path / "empty").num_timesteps == 0


def test_notes_beside_a_checkpoint_are_not_deleted(checkpoint: Path) -> None:
    (checkpoint / "metrics.csv").write_text("precious")
    with pytest.raises(CheckpointError, match=r"metrics\.csv"):
        make().save(checkpoint)
    assert (checkpoint / "metrics.csv").read_text() == "precious"
    assert PPO.load(checkpoint).num_timesteps == 30


def test_a_failed_save_leaves_the_earlier_checkpoint(checkpoint: Path) -> None:
    before = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    with pytest.raises(CheckpointError, match="JSON"):
        save_checkpoint(checkpoint, {"agent": "PPO"}, {"thing": {"leaf": object()}})
    with pytest.raises(CheckpointError, match="only numbers"):
        save_checkpoint(checkpoint, {"agent": "PPO"}, {"thing": {"leaf": np.array(["text"], dtype=object)}})
    with pytest.raises(CheckpointError, match="must be a dict"):
        save_checkpoint(checkpoint, {"agent": "PPO"}, {"thing": np.zeros(2)})
    with pytest.raises(CheckpointError, match="slash"):
        save_checkpoint(checkpoint, {"agent": "PPO"}, {"thing": {"a/b": 1}})
    assert {file.name: file.read_bytes() for file in checkpoint.iterdir()} == before
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint"]  # nothing temporary left


# -- the files ---------------------------------------------------------------------------------------------------------


def test_trees_come_back(tmp_path: Path) -> None:
    tree = {
        "arrays": {"a": np.arange(3), "b": {"c": np.array([2**64 - 1], dtype=np.uint64), "d": torch.ones(2, 2)}},
        "numbers": {"big": 2**127 + 1, "text": "ü", "none": None, "list": [1, 2], "scalar": np.float32(0.5)},
        "both": {"scalar": np.array(3.0), "flags": np.array([True, False]), "text": "x"},
    }
    save_checkpoint(tmp_path / "tree", {}, tree)
    loaded = load_state(tmp_path / "tree")
    assert plain(loaded) == plain(tree)
    assert loaded["arrays"]["b"]["c"].dtype == np.uint64
    assert loaded["both"]["scalar"].shape == ()


def test_a_checkpoint_is_readable_by_itself(checkpoint: Path) -> None:
    names = {file.name for file in checkpoint.iterdir()}
    assert names == {
        "config.json",
        "state.json",
        *(f"{name}.safetensors" for name in ("network", "optimizer", "generators", "collector", "env")),
    }
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["agent"] == "PPO"
    assert config["env"] == {"id": "textenvs/Copy-v0", "kwargs": VARYING}
    assert config["config"]["num_steps"] == 5
    assert config["counters"]["num_timesteps"] == 30
    weights = load_file(checkpoint / "network.safetensors")
    assert weights["policy_head.weight"].shape == (16, 4)
