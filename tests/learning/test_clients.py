"""Other people's agents train on these environments: a plain loop, and sb3-contrib's MaskablePPO under a mask."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import textenvs

pytestmark = pytest.mark.learning

ROOT = Path(__file__).resolve().parents[2]


def loop_of_the_docs() -> Any:
    """The function ``train`` of docs/other_agents.md."""
    text = (ROOT / "docs" / "other_agents.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    (block,) = (each for each in blocks if "def train(" in each)
    assert len(block.splitlines()) <= 60
    namespace: dict[str, Any] = {"gym": gym}
    exec(compile(block.rpartition("print(")[0], "other_agents.md", "exec"), namespace)
    return namespace["train"]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("DyckMasked", {"length": 2}), ("Copy", {"length": 2, "num_symbols": 4}), ("RandomWalkMasked", {})],
)
def test_a_plain_loop_of_sixty_lines_learns(name, sizes):
    train = loop_of_the_docs()
    task = textenvs.TextEnv(name, **sizes).task
    at_first = train(f"textenvs/{name}-v0", 1_024, **sizes)
    assert at_first < task.random_score + 0.2
    assert train(f"textenvs/{name}-v0", 60_000, **sizes) > 0.9


def note_ends(envs: Any) -> list[str]:
    """A list that grows by how each text of an environment for Stable-Baselines3 ended."""
    reasons: list[str] = []
    step_wait = envs.step_wait

    def step_and_note() -> Any:
        result = step_wait()
        reasons.extend(info["finish_reason"] for info in result[3] if "finish_reason" in info)
        return result

    envs.step_wait = step_and_note
    return reasons


@pytest.mark.parametrize("kind", ["native", "one by one"])
def test_maskable_ppo_learns_and_takes_no_illegal_action(kind):
    from sb3_contrib import MaskablePPO
    from stable_baselines3.common.env_util import make_vec_env

    env_id, sizes = "textenvs/DyckMasked-v0", {"length": 2}
    if kind == "native":
        envs = textenvs.as_sb3_vec_env(gym.make_vec(env_id, num_envs=16, **sizes))
    else:
        envs = make_vec_env(env_id, n_envs=16, env_kwargs=sizes)
    reasons = note_ends(envs)
    model = MaskablePPO(
        "MlpPolicy", envs, n_steps=64, batch_size=256, n_epochs=8, learning_rate=2e-3, gamma=1.0, seed=0,
        device="cpu",
    )  # fmt: skip
    model.learn(25_000)
    assert len(reasons) > 5_000
    assert set(reasons) == {"length"}  # an illegal action would have been "invalid"
    obs, scores = envs.reset(), []
    for _ in range(40):
        masks = np.stack(envs.env_method("action_masks"))
        actions, _ = model.predict(obs, deterministic=True, action_masks=masks)
        obs, rewards, ended, _ = envs.step(actions)
        scores.extend(rewards[ended])
    assert set(reasons) == {"length"}
    assert np.mean(scores) > 0.9  # random legal play: 1/3
