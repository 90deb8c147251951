"""The scalar environment: its rules by hand, bad input, state, rendering."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded

from textenvs import TextEnv, TextVectorEnv


def test_an_episode_by_hand():
    """Reverse with up to three of three symbols: EOS is 3, padding is 4."""
    env = TextEnv("Reverse", length=3, num_symbols=3, min_length=1)
    assert env.action_space == gym.spaces.Discrete(4)
    assert env.observation_space == gym.spaces.MultiDiscrete([5] * 7)
    obs, info = env.reset(seed=0, options={"prompt": "02"})
    assert obs.dtype == np.int64
    assert (obs.tolist(), info) == ([4, 0, 2, 4, 4, 4, 4], {})
    obs, reward, terminated, truncated, info = env.step(2)
    assert (obs.tolist(), reward, terminated, truncated, info) == ([4, 0, 2, 2, 4, 4, 4], 0.0, False, False, {})
    obs, reward, terminated, truncated, info = env.step(1)
    assert (obs.tolist(), reward, terminated, truncated, info) == ([4, 0, 2, 2, 1, 4, 4], 0.0, False, False, {})
    obs, reward, terminated, truncated, info = env.step(3)
    score = float(np.float32(2 / 3))
    assert (obs.tolist(), reward, terminated, truncated) == ([4, 0, 2, 2, 1, 3, 4], score, True, False)
    assert isinstance(info.pop("key"), np.uint64)
    assert info == {
        "score": score,
        "reward_components": {"match": score},
        "length": 3,
        "finish_reason": "stop",
        "prompt_index": -1,
    }
    assert [type(value) for value in (reward, terminated, truncated)] == [float, bool, bool]


def test_the_budget_ends_a_text_without_eos():
    env = TextEnv("Copy", length=2, num_symbols=3, min_length=1)
    env.reset(seed=0, options={"prompt": "0"})
    env.step(0), env.step(0)
    _, reward, terminated, truncated, info = env.step(0)
    assert (terminated, truncated, info["finish_reason"], info["length"]) == (True, False, "length", 3)
    assert reward == float(np.float32(1 / 3))


def test_eos_as_the_last_token_of_the_budget_is_a_stop():
    env = TextEnv("Copy", length=2, num_symbols=3, min_length=1)
    env.reset(seed=0, options={"prompt": "01"})
    env.step(0), env.step(1)
    _, reward, _, _, info = env.step(3)
    assert (reward, info["finish_reason"]) == (1.0, "stop")


def test_text_spec():
    spec = TextEnv("Sort", length=5, num_symbols=4, min_length=2).text_spec
    assert (spec.prompt_length, spec.max_new_tokens, spec.row_length) == (5, 6, 11)
    assert (spec.pad_id, spec.num_tokens, spec.eos_ids, len(spec.vocab)) == (5, 5, (4,), 5)
    assert (spec.has_masks, spec.group_size) == (False, 1)
    spec = TextEnv("Keywords").text_spec
    assert (spec.prompt_length, spec.max_new_tokens, spec.pad_id, spec.eos_ids) == (0, 12, 64, ())


def test_a_task_without_prompts_begins_with_padding_alone():
    env = TextEnv("HiddenTarget", length=3, num_symbols=4)
    assert env.reset(seed=0)[0].tolist() == [4, 4, 4]
    assert env.step(2)[0].tolist() == [2, 4, 4]


# ------------------------------------------------------------------------------------------------- masks


def test_masks(masked_task):
    env = TextEnv(masked_task())  # symbols 0, 1, 2 and EOS
    obs, info = env.reset(seed=0)
    assert info["action_mask"].dtype == np.int8
    assert info["action_mask"].tolist() == [1, 1, 1, 0]  # EOS is not for the beginning
    assert env.action_masks().dtype == np.bool_
    assert env.action_masks().tolist() == [True, True, True, False]
    info = env.step(1)[4]
    assert info["action_mask"].tolist() == [1, 0, 1, 1]
    assert env.action_masks().tolist() == [True, False, True, True]
    obs, reward, terminated, truncated, info = env.step(1)
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info["finish_reason"] == "invalid"
    assert info["length"] == 2
    assert "score" not in info
    assert "reward_components" not in info
    assert info["action_mask"].sum() > 0  # something is legal even now
    assert obs[1:].tolist() == [1, 1, 4, 4]  # the illegal token shows


def test_an_illegal_eos_is_invalid_and_not_a_stop(masked_task):
    env = TextEnv(masked_task(), invalid_reward=-1.0)
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step(3)
    assert (reward, terminated, info["finish_reason"]) == (-1.0, True, "invalid")


def test_an_illegal_last_token_is_invalid_and_not_the_length(masked_task):
    env = TextEnv(masked_task(length=3), invalid_reward=-1.0)
    for last, reason in ((1, "invalid"), (0, "length"), (3, "stop")):
        env.reset(seed=0)
        env.step(0), env.step(1)
        assert env.step(last)[4]["finish_reason"] == reason


def test_masks_given_out_are_copies(masked_task):
    env = TextEnv(masked_task())
    _, info = env.reset(seed=0)
    info["action_mask"][:] = 0
    env.action_masks()[:] = False
    assert env.action_masks().tolist() == [True, True, True, False]
    assert env.step(0)[2] is False


def test_without_constraints_every_action_is_legal():
    env = TextEnv("Copy")
    _, info = env.reset(seed=0)
    assert "action_mask" not in info
    assert env.action_masks().tolist() == [True] * 8


# ------------------------------------------------------------------------------------------------- seeds and options


def play(env: TextEnv, episodes: int, action_seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(action_seed)
    seen = []
    for _ in range(episodes):
        obs, _ = env.reset()
        over = False
        while not over:
            final, _, over, _, info = env.step(int(rng.integers(env.text_spec.num_tokens)))
        seen.append((obs.tolist(), final.tolist(), info))
    return seen


def test_same_seed_same_episodes(variant):
    one, two, other = TextEnv(**variant), TextEnv(**variant), TextEnv(**variant)
    for env, seed in ((one, 3), (two, 3), (other, 4)):
        env.reset(seed=seed)
    first = play(one, 20)
    assert repr(first) == repr(play(two, 20))
    assert repr(first) != repr(play(other, 20))  # another key at least
    assert repr(first) != repr(play(one, 20))  # it goes on, rather than repeating
    one.reset(seed=3)
    assert repr(first) == repr(play(one, 20))


def test_episodes_depend_on_seed_and_number_alone():
    """Not on what was written before, on unfinished episodes, on chosen prompts, or on the size of the batch."""

    def prompts(interfere: Any) -> list[Any]:
        env = TextEnv("Copy", length=6, min_length=2)
        seen = [env.reset(seed=9)[0].tolist()]
        for number in range(10):
            interfere(env, number)
            seen.append(env.reset()[0].tolist())
        return seen

    reference = prompts(lambda env, number: None)
    assert len({tuple(row) for row in reference}) > 8
    assert prompts(lambda env, number: [env.step(number % 3) for _ in range(number % 5)]) == reference
    assert prompts(lambda env, number: play_one(env)) == reference

    env = TextEnv("Copy", length=6, min_length=2)
    env.reset(seed=9, options={"prompt": "01"})
    env.reset(options={"index": 5})
    assert [env.reset()[0].tolist() for _ in range(8)] == reference[2:10]


def play_one(env: TextEnv) -> None:
    while not env.step(8)[2]:
        pass


def test_without_any_seed_environments_differ():
    first = [TextEnv("Copy", length=20).reset()[0].tolist() for _ in range(5)]
    assert len({tuple(row) for row in first}) == 5


def test_no_global_random_state_is_touched(variant):
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    env = TextEnv(**variant)
    env.reset()
    env.reset(seed=1)
    play(env, 5)
    after = np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_large_seeds():
    env = TextEnv("Copy", length=10)
    rows = {tuple(env.reset(seed=seed)[0].tolist()) for seed in (0, 2**31, 2**32, 2**63, 2**64 - 1)}
    assert len(rows) == 5
    env.reset(seed=np.int64(7))
    assert np.array_equal(env.reset(seed=7)[0], env.reset(seed=np.uint8(7))[0])


def test_prompts_by_number():
    env = TextEnv("Copy", length=2, num_symbols=4)  # 16 prompts, of which "22" is the test split
    assert [env.reset(options={"index": i})[0][:2].tolist() for i in (0, 9, 10, 14)] == [[0, 0], [2, 1], [2, 3], [3, 3]]
    test = TextEnv("Copy", length=2, num_symbols=4, split="test")
    assert test.reset(options={"index": np.int64(0)})[0][:2].tolist() == [2, 2]
    env.step(3)
    assert env.step(3)[4]["prompt_index"] == 14
    obs, _ = env.reset(seed=1)
    env.step(0)
    index = env.step(0)[4]["prompt_index"]
    assert env.reset(options={"index": index})[0].tolist() == obs.tolist()  # drawn prompts are numbered as well


def test_prompts_as_ids_with_padding():
    env = TextEnv("Copy", length=3, min_length=1)
    obs, _ = env.reset(seed=0, options={"prompt": np.array([9, 9, 5])})
    assert obs[:3].tolist() == [9, 9, 5]


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"promt": "0123"}, "Unknown reset option 'promt'. Did you mean 'prompt'. Known: index, prompt"),
    ({"reset_mask": np.array([True])}, "Unknown reset option 'reset_mask'"),
    ({"prompt": "0123", "index": 0}, "not both"),
    ({"prompt": "01234"}, "has 5 tokens; Copy allows at most 4"),
    ({"prompt": "01x3"}, "'x' .* is not a token"),
    ({"prompt": "012"}, "at least 4 are needed"),
    ({"prompt": ["0123"]}, "a text or a row of token ids"),
    ({"prompt": [0, 1, 2, 8]}, "must lie in 0 … 7"),
    ({"prompt": None}, "a text or a row of token ids"),
    ({"index": -1}, "index must lie in 0 … 3723, got"),
    ({"index": 3724}, "index must lie in 0 … 3723, got"),
    ({"index": 2**70}, "beyond 64 bits"),
    ({"index": 1.0}, "holds prompt numbers"),
    ({"index": True}, "holds prompt numbers"),
    ({"index": "3"}, "holds prompt numbers"),
    ({"index": [3]}, "holds prompt numbers"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options_leave_everything_as_it_was(options, message):
    env, reference = TextEnv("Copy"), TextEnv("Copy")
    for each in (env, reference):
        each.reset(seed=0)
        each.step(1)
    with pytest.raises(ValueError, match=message):
        env.reset(seed=77, options=options)
    for action in (2, 3, 4):
        assert repr(env.step(action)) == repr(reference.step(action))
    assert np.array_equal(env.reset()[0], reference.reset()[0])


@pytest.mark.parametrize("options", ["0123", 5, [1], ("prompt", "0123")])
def test_options_that_are_no_dictionary_leave_everything_as_it_was(options):
    for env in (TextEnv("Copy"), TextVectorEnv("Copy", num_envs=2)):
        env.reset(seed=0)
        before = env.get_state()
        with pytest.raises(TypeError, match=r"Reset options are a dictionary such as {'index': 3}; got"):
            env.reset(seed=77, options=options)
        after = env.get_state()
        assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("options", [{"prompt": "0"}, {"index": 0}])
def test_options_of_tasks_without_prompts(options):
    env = TextEnv("HiddenTarget")
    with pytest.raises(ValueError, match="HiddenTarget has no prompts, so reset takes neither 'prompt' nor 'index'"):
        env.reset(seed=0, options=options)
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    env.step(0)


def test_prompts_without_numbers():
    env = TextEnv("Copy", length=30)
    with pytest.raises(ValueError, match="too many prompts"):
        env.reset(seed=0, options={"index": 0})
    env.reset(seed=0, options={"prompt": "01234567" * 3 + "012345"})


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True, [0]])
def test_bad_seeds(seed):
    env, reference = TextEnv("Copy"), TextEnv("Copy")
    env.reset(seed=0), reference.reset(seed=0)
    with pytest.raises(ValueError, match="non-negative integer"):
        env.reset(seed=seed)
    assert np.array_equal(env.step(0)[0], reference.step(0)[0])
    assert np.array_equal(env.reset()[0], reference.reset()[0])


# ------------------------------------------------------------------------------------------------- actions

BAD_ACTIONS: list[tuple[Any, str]] = [
    (-1, r"Action -1 .* 0 … 7"),
    (8, r"Action 8 .*outside 0 … 7 \(padding is not an action\)"),
    (9, r"Action 9 .*outside 0 … 7\."),
    (np.int32(8), "Action 8"),
    (np.int64(-3), "Action -3"),
    (2**63, "outside 0 … 7"),
    (2**80, "integers; got dtype object"),
    (1.0, "integers; got dtype float64"),
    (math.nan, "integers"),
    ([1, [2]], r"An action is one token id; got \[1, \[2\]\]"),
    (True, "integers; got dtype bool"),
    (None, "integers; got dtype object"),
    ("1", "integers"),
    ([1, 2], r"one token id; got an array of shape \(2,\)"),
    (np.zeros((1, 1), dtype=int), r"shape \(1, 1\)"),
    ([], r"shape \(0,\)"),
]


@pytest.mark.parametrize(("action", "message"), BAD_ACTIONS)
def test_bad_actions_leave_everything_as_it_was(action, message):
    env, reference = TextEnv("Copy"), TextEnv("Copy")
    for each in (env, reference):
        each.reset(seed=0)
        each.step(1)
    before = env.get_state()
    with pytest.raises(InvalidAction, match=message):
        env.step(action)
    after = env.get_state()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    for good in (2, 3, 4):
        assert repr(env.step(good)) == repr(reference.step(good))


@pytest.mark.parametrize("action", [3, np.int64(3), np.uint8(3), np.array(3), np.array([3]), [3]])
def test_actions_of_every_integer_kind(action):
    env = TextEnv("Copy")
    env.reset(seed=0)
    assert env.step(action)[0][4] == 3


def test_step_before_reset_and_after_the_end():
    env = TextEnv("Copy", length=1)
    with pytest.raises(ResetNeeded, match=r"call reset\(\) before step\(\)"):
        env.step(0)
    env.reset(seed=0)
    obs = env.step(0)[0]
    for _ in range(2):
        with pytest.raises(ResetNeeded, match=r"call reset\(\) before step\(\)"):
            env.step(0)
    assert obs.shape == (2,)
    env.reset()
    assert env.step(0)[2] is True


def test_observations_are_copies():
    env = TextEnv("Copy", length=2)
    obs, _ = env.reset(seed=0)
    kept = obs.copy()
    obs[:] = 0
    after, *_ = env.step(3)
    assert after[:2].tolist() == kept[:2].tolist()
    after[:] = 0
    assert env.step(4)[0].tolist() == [*kept[:2].tolist(), 3, 4]


# ------------------------------------------------------------------------------------------------- state


def test_state_goes_on_bit_for_bit(variant):
    env = TextEnv(**variant)
    env.reset(seed=3)
    play(env, 3)
    env.reset()
    action = int(np.flatnonzero(env.action_masks())[-1])
    if env.step(action)[2]:
        env.reset()
    state = {name: array.copy() for name, array in env.get_state().items()}
    goes_on = TextEnv(**variant)
    goes_on.set_state(env.get_state())
    actions = np.random.default_rng(0).integers(env.text_spec.num_tokens, size=300).tolist()

    def tail(env: TextEnv) -> list[Any]:
        seen: list[Any] = []
        for token in actions:
            seen.append(env.step(token))
            if seen[-1][2]:
                seen.append(env.reset())
        return seen

    expected = repr(tail(env))
    assert repr(tail(goes_on)) == expected
    env.set_state(state)
    assert repr(tail(env)) == expected


def test_state_after_the_end_of_an_episode():
    env = TextEnv("Copy", length=1)
    env.reset(seed=0), env.step(0)
    other = TextEnv("Copy", length=1)
    other.set_state(env.get_state())
    with pytest.raises(ResetNeeded):
        other.step(0)
    assert np.array_equal(other.reset()[0], env.reset()[0])


def test_a_state_is_a_copy():
    env = TextEnv("Copy", length=2)
    env.reset(seed=0)
    state = env.get_state()
    before = {name: array.copy() for name, array in state.items()}
    env.step(0), env.step(0), env.reset()
    assert all(np.array_equal(before[name], state[name]) for name in before)
    env.set_state(state)
    env.step(0), env.step(0)
    assert all(np.array_equal(before[name], state[name]) for name in before)


def test_states_of_other_sizes_are_refused():
    env = TextEnv("Copy")
    env.reset(seed=0)
    state = env.get_state()
    for other in (
        TextEnv("Copy", length=5),
        TextEnv("Copy", num_symbols=9),
        TextEnv("HiddenTarget"),
        TextEnv("Copy", min_length=2),
    ):
        other.reset(seed=1)
        obs = other.get_state()["rows"]
        with pytest.raises(ValueError, match="saved from another environment"):
            other.set_state(state)
        assert np.array_equal(other.get_state()["rows"], obs)


def test_there_is_no_state_before_the_first_reset():
    with pytest.raises(ValueError, match="reset the environment first"):
        TextEnv("Copy").get_state()


# ------------------------------------------------------------------------------------------------- rendering, texts


def test_render_shows_prompt_text_and_score():
    env = TextEnv("Reverse", length=3, num_symbols=3, min_length=2, render_mode="ansi")
    env.reset(seed=0, options={"prompt": "02"})
    assert env.render() == "02 → "
    env.step(2)
    assert env.render() == "02 → 2"
    env.step(1), env.step(3)
    assert env.render() == "02 → 21  [score 0.667]"
    env.reset(options={"prompt": "000"})
    assert env.render() == "000 → "


def test_render_without_prompt_and_with_words():
    env = TextEnv("Keywords", length=2, num_keywords=1, render_mode="ansi")
    env.reset(seed=0)
    env.step(3), env.step(63)
    assert env.render() == "w3 w63  [score 0.000]"


def test_an_invalid_text_shows_no_score(masked_task):
    env = TextEnv(masked_task(), invalid_reward=-1.0, render_mode="ansi")
    env.reset(seed=0, options={"index": 2})
    env.step(1), env.step(1)
    assert env.render() == "2 → 11"


def test_render_modes():
    env = TextEnv("Copy")
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="without a render mode"):
        assert env.render() is None
    with pytest.raises(TypeError, match="render_mode must be None or 'ansi', got 'human'"):
        TextEnv("Copy", render_mode="human")


def test_info_text():
    env = TextEnv("Reverse", length=3, num_symbols=3, min_length=2, info_text=True)
    assert env.reset(seed=0, options={"prompt": "02"})[1] == {"prompt": "02"}
    assert env.step(2)[4] == {}
    info = env.step(3)[4]
    assert (info["prompt"], info["completion"]) == ("02", "2")


def test_texts_are_not_decoded_unless_asked_for(monkeypatch):
    env = TextEnv("Copy", length=2)
    vocab = env.text_spec.vocab
    for name in ("decode", "decode_rows"):
        monkeypatch.setattr(vocab, name, lambda *_: pytest.fail("decoded"))
    env.reset(seed=0)
    env.step(0), env.step(0)


# ------------------------------------------------------------------------------------------------- wrappers


def test_a_time_limit_truncates_and_the_text_is_not_scored():
    env = gym.make("textenvs/Copy-v0", length=4, max_episode_steps=2)
    env.reset(seed=0)
    assert env.step(1)[1:4] == (0.0, False, False)
    obs, reward, terminated, truncated, info = env.step(2)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert obs[4:].tolist() == [1, 2, 8, 8]
    assert "score" not in info
    assert "finish_reason" not in info
    obs, _ = env.reset()
    assert obs[4:].tolist() == [8] * 4
    env.reset(seed=0)
    assert np.array_equal(obs, env.reset()[0])  # an unfinished episode counts like any other


def test_wrappers_of_gymnasium():
    env = gym.wrappers.RecordEpisodeStatistics(gym.make("textenvs/Copy-v0", length=2))
    obs, _ = env.reset(seed=0)
    env.step(int(obs[0]))
    info = env.step(int(obs[1]))[4]
    assert (info["episode"]["r"], info["episode"]["l"]) == (1.0, 2)
    assert info["score"] == 1.0
    flat = gym.wrappers.FlattenObservation(gym.make("textenvs/Copy-v0", length=2))
    assert flat.reset(seed=0)[0].sum() == 4  # one-hot, padding being one of the values
