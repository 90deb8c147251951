"""Groups of completions: put together from texts of unequal length, held back until they are complete, given up."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agents import GRPO, RLOO
from agents.collect import Rollout
from agents.groups import GroupAgent, Groups, _share_of_equal
from textenvs import RewardError, TextEnv, TextVectorEnv

VARYING = {"length": 4, "num_symbols": 3, "min_length": 1}
TINY: dict[str, Any] = {"num_envs": 12, "group_size": 4, "width": 16, "num_heads": 2, "num_layers": 1}


def make(agent_class: type[GroupAgent] = RLOO, **more: Any) -> GroupAgent:
    return agent_class("textenvs/Copy-v0", env_kwargs=VARYING, **(TINY | more))


def ended(*sub_envs: int, scores: list[float] | None = None, cut_off: tuple[int, ...] = ()) -> Rollout:
    """Texts of one token that ended in these sub-environments, in this order; token and score say which."""
    size = len(sub_envs)
    terminated = ~np.isin(np.arange(size), cut_off)
    return Rollout(
        rows=np.arange(size)[:, None],
        lengths=np.ones(size, dtype=np.int64),
        rewards=np.array(scores or range(size), dtype=np.float32)[:, None],
        logprobs=np.zeros((size, 1), dtype=np.float32),
        terminated=terminated,
        truncated=~terminated,
        action_masks=None,
        sub_envs=np.array(sub_envs, dtype=np.int64),
        keys=None,
        prompt_index=None,
        timesteps=size,
    )


# -- putting groups together -------------------------------------------------------------------------------------------


def test_groups_literal() -> None:
    """Sub-environments 0, 1 | 2, 3. Sub-environment 0 ends two texts before 1 has ended its first."""
    groups = Groups(2, 4)
    texts, of_group = groups.add(ended(0, 0, 3, 2))
    assert (texts.sub_envs.tolist(), of_group.tolist()) == ([3, 2], [0, 0])
    assert (len(groups), groups.lag) == (2, 2)
    texts, of_group = groups.add(ended(1, 2, scores=[7.0, 8.0]))
    assert (texts.sub_envs.tolist(), texts.scores.tolist(), of_group.tolist()) == ([0, 1], [0.0, 7.0], [0, 0])
    assert (len(groups), groups.lag) == (2, 1)  # the second text of 0, and of 2
    texts, of_group = groups.add(ended(3, 0, 1, scores=[4.0, 5.0, 6.0]))
    assert texts.scores.tolist() == [1.0, 6.0, 8.0, 4.0]  # the second texts of 0 and 1, then those of 2 and 3
    assert of_group.tolist() == [0, 0, 1, 1]
    texts, of_group = groups.add(ended())
    assert (len(texts), len(of_group), len(groups)) == (0, 0, 1)


def test_texts_that_were_cut_off_belong_to_no_group() -> None:
    groups = Groups(3, 6)
    texts, of_group = groups.add(ended(0, 1, 2, 3, 4, 5, cut_off=(1, 3, 5)))
    assert (texts.sub_envs.tolist(), of_group.tolist()) == ([0, 2], [0, 0])  # 4 was left alone
    assert len(groups) == 0
    alone, none = Groups(2, 2).add(ended(0, 1, cut_off=(0,)))
    assert (len(alone), len(none)) == (0, 0)


def test_the_whole_batch_as_one_group() -> None:
    groups = Groups(None, 5)
    texts, of_group = groups.add(ended(4, 4, 1, cut_off=(1,)))
    assert (texts.sub_envs.tolist(), of_group.tolist(), len(groups), groups.lag) == ([4, 1], [0, 0], 0, 0)
    assert len(groups.add(ended(3))[0]) == 0


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_every_episode_is_given_out_once_beside_those_of_its_prompt(mode: AutoresetMode) -> None:
    """Against a dictionary by hand, over many windows of texts that differ in length."""
    envs = TextVectorEnv("Copy", 12, group_size=4, autoreset_mode=mode, **VARYING)
    agent = RLOO(envs, width=16, num_heads=2, num_layers=1)
    agent.collector.reset(0)
    numbers = np.zeros(12, dtype=int)
    by_hand: dict[tuple[int, int], list[tuple[int, ...]]] = defaultdict(list)
    given: list[list[tuple[int, ...]]] = []
    most = 0
    for _ in range(40):
        rollout = agent.collector.collect(5)
        for row, sub_env in zip(rollout.rows.tolist(), rollout.sub_envs.tolist(), strict=True):
            by_hand[sub_env // 4, int(numbers[sub_env])].append((sub_env, *row))
            numbers[sub_env] += 1
        texts, of_group = agent._groups.add(rollout)
        assert (np.diff(of_group) >= 0).all()
        for group in np.unique(of_group):
            rows, where = texts.rows[of_group == group], texts.sub_envs[of_group == group]
            assert len(np.unique(rows[:, :4], axis=0)) == 1  # one prompt
            assert len(set((where // 4).tolist())) == 1
            given.append([(e, *row) for e, row in zip(where.tolist(), rows.tolist(), strict=True)])
        most = max(most, agent._groups.lag)
        assert len(agent._groups) == sum(len(texts) for texts in by_hand.values() if len(texts) < 4)
    assert most > 3  # they have drifted apart
    complete = [sorted(texts) for texts in by_hand.values() if len(texts) == 4]
    assert sorted(sorted(texts) for texts in given) == sorted(complete)
    assert len(complete) > 100


def test_texts_of_one_length_are_never_held_back() -> None:
    agent = RLOO("textenvs/Reverse-v0", **TINY).learn(200)
    assert (agent.metrics["charts/held_episodes"], agent.metrics["charts/group_lag"]) == (0, 0)
    assert agent.gradient_samples == agent.num_timesteps


def test_states_go_on_where_they_were() -> None:
    one, other = Groups(2, 4), Groups(2, 4)
    other.set_state(one.get_state())  # empty
    one.add(ended(0, 0, 3))
    other.set_state(one.get_state())
    for groups in (one, other):
        texts, _ = groups.add(ended(1, 2))
        assert texts.sub_envs.tolist() == [0, 1, 3, 2] or texts.sub_envs.tolist() == [0, 1, 2, 3]
    assert one.get_state()["numbers"].tolist() == other.get_state()["numbers"].tolist() == [1]
    assert one.get_state()["ended"].tolist() == other.get_state()["ended"].tolist() == [2, 1, 1, 1]


def test_share_of_equal_groups() -> None:
    assert _share_of_equal(np.array([1.0, 1.0, 0.0, 1.0]), np.array([0, 0, 1, 1])) == 0.5
    assert np.isnan(_share_of_equal(np.zeros(0), np.zeros(0, dtype=int)))


# -- beginning anew ----------------------------------------------------------------------------------------------------


def test_sub_environments_that_drifted_apart_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(max_lag=2)
    seeds: list[int | None] = []
    reset = agent.collector.reset
    monkeypatch.setattr(agent.collector, "reset", lambda seed=None: (seeds.append(seed), reset(seed)))
    lags: list[float] = []
    agent.learn(3_000, callback=lambda agent: lags.append(agent.metrics["charts/group_lag"]))
    assert seeds[0] == 0
    assert len(set(seeds)) == len(seeds) == 1 + sum(lag > 2 for lag in lags[:-1])  # every time with another seed
    assert len(seeds) > 2
    assert None not in seeds
    assert 2 < max(lags) < 8
    free = make(max_lag=10_000).learn(3_000)
    assert free.metrics["charts/group_lag"] > 5


@pytest.mark.parametrize("agent_class", [RLOO, GRPO])
def test_after_an_interruption_groups_still_have_one_prompt(agent_class: type[GroupAgent]) -> None:
    """Under the old seed the sub-environments of a group, which had drifted apart, would go on with other prompts."""
    broken = False

    def moody(prompts: list[str], completions: list[str]) -> list[float]:
        return [float("nan") if broken else float(len(text)) for text in completions]

    agent = make(agent_class, group_size=4)
    agent.envs.unwrapped.set_reward(moody)
    agent.learn(500)
    assert agent.metrics["charts/group_lag"] > 0
    broken = True
    with pytest.raises(RewardError):
        agent.learn(100)
    broken = False
    seen = []
    update = agent._update

    def watched(texts: Rollout, groups: np.ndarray) -> Any:
        seen.extend(len(np.unique(texts.rows[groups == group, :4], axis=0)) for group in np.unique(groups))
        return update(texts, groups)

    agent._update = watched  # type: ignore[method-assign]
    agent.learn(500)
    assert len(seen) > 20
    assert set(seen) == {1}


def test_an_environment_that_cannot_be_put_back_begins_anew(tmp_path: Path) -> None:
    agent = make().learn(300)
    assert len(agent._groups) > 0
    agent.save(tmp_path / "saved")
    envs = TextVectorEnv("Copy", 20, group_size=4, **VARYING)
    resumed = RLOO.load(tmp_path / "saved", env=envs)
    resumed.learn(1)
    # Of what was held back nothing is left: held and given out together are the episodes of this window.
    used = resumed.gradient_samples - agent.gradient_samples
    assert len(resumed._groups) < 20
    assert used < 100
    with pytest.raises(ValueError, match="group_size=4, but the environment given has groups of 2"):
        RLOO.load(tmp_path / "saved", env=TextVectorEnv("Copy", 12, group_size=2, **VARYING))


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent_class", [RLOO, GRPO])
def test_environments_without_groups_are_refused_with_advice(agent_class: type[GroupAgent]) -> None:
    name = agent_class.__name__
    for envs in (TextVectorEnv("Copy", 8), SyncVectorEnv([lambda: TextEnv("Copy")] * 8)):
        with pytest.raises(ValueError, match=rf"{name} compares texts.*gym\.make_vec\(.*group_size=8\).*{name}\(…"):
            agent_class(envs)
        with pytest.raises(ValueError, match="Make it with groups"):
            agent_class(envs, group_size=4)
        with pytest.raises(ValueError, match="group_size=None compares all texts of a batch"):
            agent_class(envs, group_size=None)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="group_size must be None or at least 2"):
        make(group_size=1)
    with pytest.raises(ValueError, match="num_envs must be a multiple of group_size, got 12 and 5"):
        make(group_size=5)
    with pytest.raises(ValueError, match="group_size=3, but the environment given has groups of 4"):
        RLOO(TextVectorEnv("Copy", 12, group_size=4), group_size=3)
    with pytest.raises(ValueError, match=r"RLOO\('textenvs/Copy-v0', group_size=…\), not in env_kwargs"):
        RLOO("textenvs/Copy-v0", env_kwargs={"group_size": 4})
    with pytest.raises(ValueError, match="max_lag"):
        make(max_lag=0)
    with pytest.raises(ValueError, match="length_normalisation must be 'tokens', 'texts' or 'budget'; got 'sum'"):
        make(GRPO, length_normalisation="sum")


def test_ids_that_are_not_batched_are_refused() -> None:
    gym.register("test_groups/Words-v0", entry_point=TextEnv, kwargs={"task": "Copy"})
    try:
        with pytest.raises(ValueError, match="Words-v0 is not batched natively and has no groups"):
            RLOO("test_groups/Words-v0")
    finally:
        del gym.registry["test_groups/Words-v0"]


def test_made_environments_bring_their_group_size() -> None:
    agent = RLOO(TextVectorEnv("Copy", 12, group_size=6), width=16)
    assert (agent.config.group_size, agent.config.num_envs) == (6, 12)
    assert make().envs.unwrapped.text_spec.group_size == 4
    assert make().env_kwargs == VARYING  # evaluations have no groups


def test_tasks_without_prompts_may_be_one_group() -> None:
    options = {"width": 16, "num_heads": 2, "num_envs": 8}
    agent = GRPO("textenvs/HiddenTarget-v0", group_size=None, **options).learn(100)
    assert agent.text_spec.group_size == 1
    assert agent.gradient_samples > 0
    assert agent.metrics["charts/equal_groups"] == 0
    made = RLOO(TextVectorEnv("HiddenTarget", 8), group_size=None, width=16).learn(100)
    assert made.gradient_samples > 0
