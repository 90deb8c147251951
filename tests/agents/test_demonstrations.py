"""Texts by others in a replay buffer: what is taken, what is computed about them, what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv

import agents
from agents import DQN, CheckpointError, RandomAgent
from agents.demonstrations import masks_of_rows, oracle_episodes, read_demonstrations
from agents.evaluation import play_episodes
from agents.off_policy import ReplayLearner
from agents.replay import EpisodeReplay
from textenvs import Episodes, RewardError, Task, TextEnv, TextVectorEnv


def make(**sizes: Any) -> tuple[TextEnv, EpisodeReplay]:
    env = TextEnv("Reverse", **({"length": 3, "num_symbols": 4} | sizes))
    return env, EpisodeReplay(20, env.text_spec, keep_logprobs=True)


@pytest.mark.parametrize("sizes", [{}, {"min_length": 1}])
def test_oracle_texts_are_judged_as_the_environment_would(sizes: dict[str, int]) -> None:
    env, replay = make(**sizes)
    episodes = oracle_episodes(env.task, 12, seed=3)
    assert replay.add_episodes(episodes, task=env.task) == 12
    np.testing.assert_array_equal(replay.scores, np.ones(12))
    assert replay.sources == ["demonstrations"] * 12
    batch = replay.sample(12, np.random.default_rng(0))
    assert batch.logprobs is not None
    written = np.arange(env.task.max_new_tokens) < batch.lengths[:, None]
    assert np.isnan(batch.logprobs[written]).all()
    assert not batch.logprobs[~written].any()
    for row, length in zip(batch.rows[:4], batch.lengths[:4], strict=True):  # what playing them pays
        env.reset(options={"prompt": row[: env.task.prompt_length]})
        for t in range(length):
            obs, reward, over, _, _ = env.step(row[env.task.prompt_length + t])
        assert (reward, over) == (1.0, True)
        np.testing.assert_array_equal(obs, row)


def test_the_oracle_writes_to_prompts_of_the_split() -> None:
    for split in ("train", "test"):
        env, _ = make(split=split)
        episodes = oracle_episodes(env.task, 40, seed=0)
        assert (env.task.prompt_set.is_test(episodes.prompt_ids) == (split == "test")).all()
        again = oracle_episodes(env.task, 40, seed=0)
        np.testing.assert_array_equal(again.completion_ids, episodes.completion_ids)
        assert not np.array_equal(oracle_episodes(env.task, 40, seed=1).prompt_ids, episodes.prompt_ids)


def test_scores_of_ones_own_and_another_judge() -> None:
    env, replay = make()
    episodes = oracle_episodes(env.task, 3, seed=0)
    replay.add_episodes(episodes, np.array([0.25, 0.5, 0.75]), source="people")
    np.testing.assert_array_equal(replay.scores, np.array([0.25, 0.5, 0.75], dtype=np.float32))
    replay.add_episodes(episodes, np.array([0.25, np.nan, 0.75]), task=env.task, reward={"name": "length"})
    np.testing.assert_array_equal(replay.scores[3:], np.array([0.25, 3, 0.75], dtype=np.float32))
    assert replay.sources == ["people"] * 3 + ["demonstrations"] * 3
    with pytest.raises(ValueError, match=r"1 of 3 texts have no score: pass task="):
        replay.add_episodes(episodes, np.array([0.25, np.nan, 0.75]))
    with pytest.raises(ValueError, match=r"scores must be 3 finite numbers .* got \(2,\)"):
        replay.add_episodes(episodes, np.zeros(2))
    with pytest.raises(RewardError, match="broken"):
        replay.add_episodes(episodes, task=env.task, reward=_broken)
    assert len(replay) == 6


def _broken(completions: list[str]) -> list[float]:
    raise OSError("broken")


def test_demonstrations_can_be_judged_anew() -> None:
    env, replay = make()
    replay.add_episodes(oracle_episodes(env.task, 3, seed=0), np.zeros(3))
    replay.rescore("match", env.task)
    np.testing.assert_array_equal(replay.scores, np.ones(3))


def test_jsonl_with_and_without_scores(tmp_path: Path) -> None:
    env, replay = make(min_length=1)
    lines = [{"prompt": "012", "completion": "210"}, {"prompt": "3", "completion": "33", "score": 0.5}]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    episodes, scores = read_demonstrations(path, env.task)
    assert episodes.completions == ["210", "33"]
    np.testing.assert_array_equal(episodes.lengths, [4, 3])  # with EOS
    np.testing.assert_array_equal(scores, np.array([np.nan, 0.5], dtype=np.float32))
    replay.add_episodes(episodes, scores, task=env.task)
    np.testing.assert_array_equal(replay.scores, np.array([1, 0.5], dtype=np.float32))
    batch = replay.sample(2, np.random.default_rng(2))
    assert {tuple(row) for row in batch.rows} <= {(0, 1, 2, 2, 1, 0, 4), (5, 5, 3, 3, 3, 4, 5)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "012"}', 'an object with a "completion"'),
        ("[]", 'an object with a "completion"'),
        ("{", "Expecting"),
        ('{"completion": "012"}', 'Reverse has prompts: the line needs a "prompt"'),
        ('{"prompt": "012", "completion": "2X0"}', "'X' .* is not a token"),
        ('{"prompt": "012", "completion": "21"}', "2 tokens; exactly 3, as nothing ends a text of Reverse earlier"),
        ('{"prompt": "012", "completion": "2101"}', "4 tokens; exactly 3"),
        ('{"prompt": "012", "completion": "210", "score": "high"}', "\"score\" must be a finite number; got 'high'"),
        ('{"prompt": "012", "completion": "210", "score": NaN}', '"score" must be a finite number; got nan'),
    ],
)
def test_lines_that_are_no_texts(line: str, message: str, tmp_path: Path) -> None:
    env, _ = make()
    path = tmp_path / "texts.jsonl"
    path.write_text('{"prompt": "012", "completion": "210"}\n' + line + "\n")
    with pytest.raises(ValueError, match=rf"texts\.jsonl, line 2: .*{message}"):
        read_demonstrations(path, env.task)


def test_texts_that_the_environment_does_not_write() -> None:
    env, replay = make(min_length=1)
    good = oracle_episodes(env.task, 2, seed=0)

    def refused(match: str, **changes: Any) -> None:
        with pytest.raises(ValueError, match=match):
            replay.add_episodes(dataclasses.replace(good, **changes), np.zeros(2))
        assert len(replay) == 0

    eos, completions = 4, good.completion_ids.copy()
    completions[1, 1] = 7
    refused(r"Token 1 of text 1 is 7; tokens lie in 0 … 4", completion_ids=completions)
    refused(r"Text 0 goes on after '<eos>'", completion_ids=np.full((2, 4), eos), lengths=np.array([2, 2]))
    refused(
        r"Text 0 does not end: it has 3 of 4 tokens, and the last one is '1', not '<eos>'",
        completion_ids=np.ones((2, 4), dtype=np.int64),
        lengths=np.array([3, 3]),
    )
    refused(r"Text 0 has 0 tokens; from 1 to 4 are possible", lengths=np.array([0, 2]))
    refused(r"prompts of 2 tokens, this environment 3", prompt_ids=np.zeros((2, 2), dtype=np.int64))
    other = oracle_episodes(TextEnv("Reverse", length=3, num_symbols=5, min_length=1).task, 2, seed=0)
    with pytest.raises(ValueError, match="of another vocabulary"):
        replay.add_episodes(other, np.zeros(2))
    replay.add_episodes(dataclasses.replace(good, completion_ids=np.ones((2, 4), int), lengths=np.full(2, 4)), good.key)


def test_masks_of_demonstrations(masked_task: Task) -> None:
    spec = TextVectorEnv(masked_task, 1, invalid_reward=-1.0).text_spec
    replay = EpisodeReplay(10, spec)
    episodes = oracle_episodes(masked_task, 1, seed=0)
    with pytest.raises(ValueError, match="illegal actions: pass task="):
        replay.add_episodes(episodes, np.ones(1))
    replay.add_episodes(episodes, task=masked_task)
    masks = replay.sample(1, np.random.default_rng(0)).action_masks
    expected = [[True, True, True], [False, True, True], [True, False, True], [False, True, True]]
    np.testing.assert_array_equal(masks, [expected])
    wrong = Episodes(
        prompt_ids=episodes.prompt_ids,
        completion_ids=np.array([[0, 1, 1, 2]]),
        lengths=episodes.lengths,
        finish_reason=episodes.finish_reason,
        key=episodes.key,
        vocab=episodes.vocab,
    )
    with pytest.raises(ValueError, match="Token 2 of text 0, '1', is illegal there"):
        replay.add_episodes(wrong, np.ones(1), task=masked_task)


def test_masks_that_are_computed_are_those_that_were_kept(masked_task: Task) -> None:
    agent = DQN(TextVectorEnv(masked_task, 8, invalid_reward=-1.0), batch_size=8, learning_starts=500)
    agent.learn(200)
    kept = agent.replay
    computed = EpisodeReplay(kept.capacity, kept.text_spec, masks_of=masked_task)
    assert "masks" not in computed.get_state()
    state = {name: array for name, array in kept.get_state().items() if name != "masks"}
    computed.set_state(state)
    batches = [replay.sample(20, np.random.default_rng(0)) for replay in (kept, computed)]
    np.testing.assert_array_equal(batches[0].action_masks, batches[1].action_masks)
    scores = computed.scores
    computed.rescore(masked_task.default_reward, masked_task)
    np.testing.assert_allclose(computed.scores, scores)
    rows = np.array([[0, 1, 3, 3]])
    assert not masks_of_rows(masked_task, rows, np.array([2]))[0, 2:].any()


# -- an agent's own ----------------------------------------------------------------------------------------------------

REVERSE = {"length": 3, "num_symbols": 4}
LEARNERS = [kind for kind in vars(agents).values() if isinstance(kind, type) and issubclass(kind, ReplayLearner)]
every_learner = pytest.mark.parametrize("kind", LEARNERS)


@every_learner
def test_an_agent_judges_demonstrations_as_its_environment_does(kind: type[ReplayLearner], tmp_path: Path) -> None:
    agent = kind("textenvs/Reverse-v0", env_kwargs=REVERSE | {"reward": "exact_match"}, batch_size=4)
    assert agent.replay.task is not None
    path = tmp_path / "texts.jsonl"
    lines = [{"prompt": "012", "completion": "210"}, {"prompt": "012", "completion": "211"}]
    lines += [{"prompt": "012", "completion": "000", "score": 0.25}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert agent.add_demonstrations(path) == 3
    np.testing.assert_array_equal(agent.replay.scores, np.array([1, 0, 0.25], dtype=np.float32))
    agent.add_demonstrations(str(path), np.array([0.5, np.nan, np.nan]), source="people")
    np.testing.assert_array_equal(agent.replay.scores[3:], np.array([0.5, 0, 0], dtype=np.float32))
    assert agent.replay.sources == ["demonstrations"] * 3 + ["people"] * 3
    agent.add_demonstrations(oracle_episodes(agent.replay.task, 5, seed=0), source="oracle")
    np.testing.assert_array_equal(agent.replay.scores[6:], np.ones(5))
    before = state_of(agent)
    agent.learn_offline(2)
    assert state_of(agent) != before
    assert agent.num_timesteps == 0

    path.write_text('{"prompt": "012", "completion": "21"}\n')
    with pytest.raises(ValueError, match="line 1: the completion has 2 tokens; exactly 3"):
        agent.add_demonstrations(path)
    assert len(agent.replay) == 11


def state_of(agent: ReplayLearner) -> bytes:
    return agent.parameters.detach().numpy().tobytes()  # type: ignore[attr-defined]


@every_learner
def test_another_agents_texts(kind: type[ReplayLearner]) -> None:
    writer = RandomAgent("textenvs/Reverse-v0", env_kwargs=REVERSE)
    arguments = {"split": "train", "num_episodes": 40, "deterministic": False, "seed": 3, "env_kwargs": REVERSE}
    texts = play_episodes(writer, "textenvs/Reverse-v0", **arguments)  # type: ignore[arg-type]
    agent = kind("textenvs/Reverse-v0", env_kwargs=REVERSE, batch_size=4)
    assert agent.replay.add(texts, source="random") == 40
    assert agent.replay.sources == ["random"] * 40
    scores = agent.replay.scores
    assert 0 < scores.mean() < 1
    agent.replay.rescore("match")
    np.testing.assert_array_equal(agent.replay.scores, scores)
    agent.learn_offline(2)


def test_an_environment_that_hides_its_task() -> None:
    envs = AsyncVectorEnv([lambda: TextEnv("Reverse", **REVERSE)] * 2)
    try:
        agent = DQN(envs)
        assert agent.replay.task is None
        texts = oracle_episodes(TextEnv("Reverse", **REVERSE).task, 3, seed=0)
        with pytest.raises(ValueError, match=r"does not show its task .* use replay.add_episodes\(…, task=\)"):
            agent.add_demonstrations(texts)
        agent.replay.add_episodes(texts, task=TextEnv("Reverse", **REVERSE).task)
        with pytest.raises(ValueError, match=r"does not know what its texts were written for: pass task="):
            agent.replay.rescore("match")
        assert len(agent.replay) == 3
    finally:
        envs.close()


def test_a_buffer_that_knows_its_task_refuses_the_files_of_others(tmp_path: Path) -> None:
    sizes = {"length": 3, "num_symbols": 4}
    reverse, copy = (DQN(f"textenvs/{name}-v0", env_kwargs=sizes) for name in ("Reverse", "Copy"))
    assert reverse.replay.task is not None
    reverse.add_demonstrations(oracle_episodes(reverse.replay.task, 5, seed=0))
    reverse.replay.save(tmp_path / "replay")
    with pytest.raises(CheckpointError, match="written for Reverse, not for Copy"):
        copy.replay.load(tmp_path / "replay")
    assert len(copy.replay) == 0
    with pytest.raises(CheckpointError, match="holds a checkpoint of EpisodeReplay, not of DQN; give another folder"):
        copy.save(tmp_path / "replay")
    again = DQN("textenvs/Reverse-v0", env_kwargs=sizes)
    again.replay.load(tmp_path / "replay")
    assert len(again.replay) == 5


# -- a file of its own -------------------------------------------------------------------------------------------------


def test_a_buffer_can_be_saved_and_taken_up_elsewhere(tmp_path: Path) -> None:
    env, replay = make()
    replay.add_episodes(oracle_episodes(env.task, 12, seed=3), task=env.task)
    replay.save(tmp_path / "replay", task="Reverse")
    _, other = make()
    other.load(tmp_path / "replay", task="Reverse")
    for name, values in replay.get_state().items():
        np.testing.assert_array_equal(values, other.get_state()[name])


def test_files_of_other_buffers_are_refused(tmp_path: Path) -> None:
    env, replay = make()
    replay.add_episodes(oracle_episodes(env.task, 12, seed=3), task=env.task)
    replay.save(tmp_path / "replay", task="Reverse")

    def refused(other: EpisodeReplay, match: str, task: str | None = None) -> None:
        with pytest.raises(CheckpointError, match=match):
            other.load(tmp_path / "replay", task)
        assert len(other) == 0

    refused(make(length=4)[1], "have prompt_length=3; this buffer's have 4")
    refused(make(num_symbols=5)[1], "have pad_id=4; this buffer's have 5")
    refused(make()[1], "written for Reverse, not for Copy", task="Copy")
    refused(EpisodeReplay(20, env.text_spec), "does not fit: A state of this replay buffer has")
    refused(EpisodeReplay(10, env.text_spec, keep_logprobs=True), "does not fit: .* capacity of 10")
    DQN(TextVectorEnv("Reverse", 8, length=3, num_symbols=4)).save(tmp_path / "agent")
    with pytest.raises(CheckpointError, match="checkpoint of DQN, not of a replay buffer"):
        make()[1].load(tmp_path / "agent")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        replay.save(tmp_path / "notes")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"
