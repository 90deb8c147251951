"""The vector environment by itself: seeds, groups, options, bad input, state, rendering."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode

from textenvs import TextEnv, TextVectorEnv


def prompts(obs: np.ndarray, envs: TextVectorEnv) -> list[tuple[int, ...]]:
    return [tuple(row) for row in obs[:, : envs.text_spec.prompt_length].tolist()]


# ------------------------------------------------------------------------------------------------- seeds


def test_seed_s_is_s_and_s_plus_one_and_so_on():
    envs = TextVectorEnv("Copy", num_envs=4, length=10)
    obs, _ = envs.reset(seed=100)
    assert np.array_equal(obs, np.stack([TextEnv("Copy", length=10).reset(seed=100 + i)[0] for i in range(4)]))
    assert np.array_equal(obs, envs.reset(seed=[100, 101, 102, 103])[0])
    assert np.array_equal(obs, envs.reset(seed=np.array([100, 101, 102, 103]))[0])
    assert np.array_equal(obs, envs.reset(seed=np.int64(100))[0])
    assert len({*prompts(obs, envs), *prompts(envs.reset(seed=104)[0], envs)}) == 8


def test_without_a_seed_it_goes_on():
    envs = TextVectorEnv("Copy", num_envs=2, length=10)
    first, second = envs.reset(seed=0)[0], envs.reset()[0]
    assert not (first == second).all(axis=1).any()
    envs.reset(seed=0)
    assert np.array_equal(envs.reset(seed=[None, 1])[0], np.stack([second[0], first[1]]))


def test_without_any_seed_environments_differ():
    rows = [row for envs in (make_long(), make_long(), make_long()) for row in prompts(envs.reset()[0], envs)]
    assert len(set(rows)) == 9


def make_long() -> TextVectorEnv:
    return TextVectorEnv("Copy", num_envs=3, length=20)


def test_a_partly_seeded_first_reset():
    one, two = make_long(), make_long()
    obs, other = one.reset(seed=[5, None, 7])[0], two.reset(seed=[5, None, 7])[0]
    assert np.array_equal(obs[[0, 2]], other[[0, 2]])
    assert not np.array_equal(obs[1], other[1])


def test_no_global_random_state_is_touched(variant):
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    envs = TextVectorEnv(num_envs=3, **variant)
    envs.reset()
    envs.reset(seed=1)
    for _ in range(20):
        envs.step(np.zeros(3, dtype=int))
    after = np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_keys_of_the_judge_are_all_different():
    keys = []
    for seed in (0, 4):
        envs = TextVectorEnv("Copy", num_envs=4, length=1)
        envs.reset(seed=seed)
        for _ in range(50):
            keys.extend(envs.step([0] * 4)[4]["final_info"]["key"].tolist())
    assert len(set(keys)) == 400


def test_the_judges_randomness_says_nothing_about_the_prompt():
    envs = TextVectorEnv("Copy", num_envs=50, length=10)
    obs, _ = envs.reset(seed=0)
    for _ in range(10):
        *_, infos = envs.step([0] * 50)
    from_key, _ = envs.task.draw(infos["final_info"]["key"])
    assert np.array_equal(infos["final_obs"][:, :10], obs[:, :10])
    assert not (from_key == obs[:, :10]).all(axis=1).any()


# ------------------------------------------------------------------------------------------------- groups


def test_groups_share_their_prompts_but_not_the_judges_randomness():
    envs = TextVectorEnv("Copy", num_envs=6, group_size=3, length=10)
    assert envs.text_spec.group_size == 3
    single = [TextEnv("Copy", length=10) for _ in range(2)]
    obs, _ = envs.reset(seed=50)
    for group, env in enumerate(single):
        expected = env.reset(seed=50 + group)[0]  # group g has the stream of the g-th seed
        assert (obs[3 * group : 3 * group + 3] == expected).all()
    for _ in range(5):
        for _ in range(10):
            obs, *_, infos = envs.step(np.arange(6))
        for group, env in enumerate(single):
            assert (obs[3 * group : 3 * group + 3] == env.reset()[0]).all()
        assert len(set(infos["final_info"]["key"].tolist())) == 6


def test_groups_whose_texts_end_at_different_times_still_get_the_same_prompts():
    envs = TextVectorEnv("Copy", num_envs=4, group_size=2, length=6, min_length=3, num_symbols=5)
    rng = np.random.default_rng(0)
    by_env: list[list[Any]] = [[] for _ in range(4)]
    obs, _ = envs.reset(seed=0)
    for i in range(4):
        by_env[i].append(tuple(obs[i, :6]))
    for _ in range(200):
        obs, _, terminations, _, _ = envs.step(rng.integers(6, size=4))
        for i in np.flatnonzero(terminations):
            by_env[i].append(tuple(obs[i, :6]))
    for one, two in ((0, 1), (2, 3)):
        assert all(a == b for a, b in zip(by_env[one], by_env[two], strict=False))
    assert by_env[0][:20] != by_env[2][:20]


def test_group_sizes():
    for num_envs, group_size in ((4, 3), (4, 8), (4, 0), (4, -2), (4, 1.5), (4, True)):
        with pytest.raises(ValueError, match="group_size"):
            TextVectorEnv("Copy", num_envs=num_envs, group_size=group_size)  # type: ignore[arg-type]
    for num_envs in (0, -1, 2.0, "3"):
        with pytest.raises(ValueError, match="num_envs"):
            TextVectorEnv("Copy", num_envs=num_envs)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- reset options


def test_one_prompt_for_each():
    envs = TextVectorEnv("Copy", num_envs=2, length=3, num_symbols=4, min_length=1)
    for given in (["12", [3]], ("12", "3"), np.array([[5, 1, 2], [5, 5, 3]])):
        obs, _ = envs.reset(seed=0, options={"prompt": given})
        assert obs[:, :3].tolist() == [[5, 1, 2], [5, 5, 3]]
    obs, _ = envs.reset(options={"index": [0, np.int64(3)]})
    assert obs[:, :3].tolist() == [[5, 5, 0], [5, 5, 3]]
    assert np.array_equal(obs, envs.reset(options={"index": np.array([0, 3])})[0])


def test_chosen_prompts_count_as_episodes():
    envs, reference = (TextVectorEnv("Copy", num_envs=2, length=8) for _ in range(2))
    envs.reset(seed=0, options={"prompt": ["01234567"] * 2})
    reference.reset(seed=0)
    assert np.array_equal(envs.reset()[0], reference.reset()[0])


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"promt": ["0123"] * 2}, "Unknown reset option 'promt'. Did you mean 'prompt'. Known: index, prompt, reset_mask"),
    ({"prompt": ["0123"] * 2, "index": [0, 1]}, "not both"),
    ({"prompt": ["0123"]}, "has 1 entries for 2 sub-environments"),
    ({"prompt": "0123"}, "needs one entry for each of the 2 sub-environments"),
    ({"prompt": 5}, "needs one entry for each"),
    ({"prompt": ["0123", "01234"]}, "has 5 tokens; Copy allows at most 4"),
    ({"prompt": ["0123", "x"]}, "'x' .* is not a token"),
    ({"index": 3}, "needs one entry for each"),
    ({"index": np.array(3)}, "needs one entry for each"),
    ({"prompt": {0: "0123", 1: "0123"}}, "needs one entry for each"),
    ({"index": [0, 1, 2]}, "has 3 entries for 2 sub-environments"),
    ({"index": [0, 3724]}, "index must lie in 0 … 3723"),
    ({"index": [0, -1]}, "index must lie in 0 … 3723"),
    ({"index": [0, 1.0]}, "holds prompt numbers"),
    ({"index": [0, None]}, "holds prompt numbers"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options_leave_everything_as_it_was(options, message):
    envs, reference = TextVectorEnv("Copy", num_envs=2), TextVectorEnv("Copy", num_envs=2)
    for each in (envs, reference):
        each.reset(seed=0)
        each.step([1, 2])
    with pytest.raises(ValueError, match=message):
        envs.reset(seed=77, options=options)
    for _ in range(8):
        assert repr(envs.step([3, 4])) == repr(reference.step([3, 4]))


@pytest.mark.parametrize(
    "seed", [-1, 1.5, True, "01", [0], [0, -1], [0, 1.5], [0, True], [0, 1, 2], np.array([0.0, 1.0])]
)
def test_bad_seeds_leave_everything_as_it_was(seed):
    envs, reference = TextVectorEnv("Copy", num_envs=2), TextVectorEnv("Copy", num_envs=2)
    envs.reset(seed=0), reference.reset(seed=0)
    with pytest.raises(ValueError, match=r"[Ss]eed"):
        envs.reset(seed=seed)
    assert np.array_equal(envs.step([3, 4])[0], reference.step([3, 4])[0])
    assert np.array_equal(envs.reset()[0], reference.reset()[0])


def test_the_users_options_are_left_alone():
    envs = TextVectorEnv("Copy", num_envs=2, autoreset_mode=AutoresetMode.DISABLED)
    options = {"reset_mask": np.array([True, True]), "prompt": ["0123", "4567"]}
    envs.reset(seed=0, options=options)
    assert list(options) == ["reset_mask", "prompt"]


# ------------------------------------------------------------------------------------------------- actions

BAD_ACTIONS: list[tuple[Any, str]] = [
    ([1], r"shape \(2,\).*got \(1,\)"),
    ([1, 2, 3], r"shape \(2,\).*got \(3,\)"),
    (1, r"got \(\)"),
    ([[1, 2]], r"got \(1, 2\)"),
    ([], r"got \(0,\)"),
    ([1.0, 2.0], "integers; got dtype float64"),
    ([True, False], "integers; got dtype bool"),
    (["1", "2"], "integers"),
    ([None, 1], "integers; got dtype object"),
    ([1, [2]], r"must have shape \(2,\), one token for each environment; got \[1, \[2\]\]"),
    ([0, -1], "Action -1 of sub-environment 1 lies outside 0 … 7"),
    ([8, 0], r"Action 8 of sub-environment 0 .*padding is not an action"),
    ([0, 9], r"Action 9 of sub-environment 1 lies outside 0 … 7\."),
    (np.array([0, 200], dtype=np.uint8), "Action 200 of sub-environment 1"),
    (np.array([0, 2**64 - 1], dtype=np.uint64), "sub-environment 1 lies outside"),
]


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(("actions", "message"), BAD_ACTIONS)
def test_bad_actions_leave_everything_as_it_was(actions, message, mode):
    envs, reference = (TextVectorEnv("Copy", num_envs=2, length=3, autoreset_mode=mode) for _ in range(2))
    for each in (envs, reference):
        each.reset(seed=0)
        each.step([1, 2])
    before = envs.get_state()
    with pytest.raises(InvalidAction, match=message):
        envs.step(actions)
    after = envs.get_state()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    for _ in range(2):
        assert repr(envs.step([3, 4])) == repr(reference.step([3, 4]))


def test_in_next_step_mode_a_bad_action_of_a_running_one_is_named_and_nothing_is_reset():
    envs = TextVectorEnv("Copy", num_envs=3, length=2, min_length=1, autoreset_mode="NextStep")
    envs.reset(seed=0)
    envs.step([0, 8, 0])  # the second stops
    before = envs.get_state()
    with pytest.raises(InvalidAction, match="Action 9 of sub-environment 2"):
        envs.step([0, 99, 9])  # that of the second is not looked at
    after = envs.get_state()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    envs.step([0, 99, 0])


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_step_before_reset(mode):
    envs = TextVectorEnv("Copy", num_envs=2, autoreset_mode=mode)
    with pytest.raises(ResetNeeded, match=r"Call reset\(\) before step\(\)"):
        envs.step([0, 0])
    envs.reset(seed=0)
    envs.step([0, 0])


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint64])
def test_actions_of_every_integer_type(dtype):
    envs = TextVectorEnv("Copy", num_envs=2, length=2)
    envs.reset(seed=0)
    assert envs.step(np.array([3, 7], dtype=dtype))[0][:, 2].tolist() == [3, 7]
    strided = np.array([3, 0, 7, 0], dtype=np.int64)[::2]
    assert envs.step(strided)[4]["final_obs"][:, 3].tolist() == [3, 7]


def test_what_is_returned_is_never_written_again(variant):
    """All arrays of a step, infos included, stay as they are while the environment goes on."""
    envs = TextVectorEnv(num_envs=3, **variant)
    rng = np.random.default_rng(0)

    def arrays(value: Any) -> list[np.ndarray]:
        if isinstance(value, dict):
            value = tuple(value.values())
        return list(itertools.chain.from_iterable(map(arrays, value))) if isinstance(value, tuple) else [value]

    kept = [(array, array.copy()) for array in arrays(envs.reset(seed=0))]
    for _ in range(30):
        given = arrays(envs.step(rng.integers(envs.text_spec.num_tokens, size=3)))
        addresses = [array.__array_interface__["data"][0] for array in given if array.size]
        assert len(set(addresses)) == len(addresses)  # nor do two of them share memory
        kept.extend((array, array.copy()) for array in given)
    assert all(np.array_equal(array, copy) for array, copy in kept)


# ------------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_state_goes_on_bit_for_bit(variant, mode, assert_same):
    def make() -> TextVectorEnv:
        return TextVectorEnv(num_envs=4, autoreset_mode=mode, **variant)

    def play(envs: TextVectorEnv, steps: int, seed: int) -> list[Any]:
        rng = np.random.default_rng(seed)
        seen: list[Any] = []
        for _ in range(steps):
            over = envs.get_state()["over"]
            if mode == AutoresetMode.DISABLED and over.any():
                seen.append(envs.reset(options={"reset_mask": over}))
            seen.append(envs.step(rng.integers(envs.text_spec.num_tokens, size=4)))
        return seen

    envs = make()
    envs.reset(seed=[3, 9, 4, 4])
    steps = 2 * envs.text_spec.max_new_tokens  # SAME_STEP: full episodes; others: episodes that are over
    play(envs, steps, 0)
    state = envs.get_state()
    copy = {name: array.copy() for name, array in state.items()}
    expected = play(envs, 30, 1)
    for other in (make(), envs):
        other.set_state(state)
        for one, two in zip(expected, play(other, 30, 1), strict=True):
            assert_same(one, two)
    assert all(np.array_equal(copy[name], state[name]) for name in copy)  # the state itself is left alone


def test_groups_go_on_too():
    envs = TextVectorEnv("Copy", num_envs=4, group_size=2, length=8)
    envs.reset(seed=0)
    other = TextVectorEnv("Copy", num_envs=4, group_size=2, length=8)
    other.set_state(envs.get_state())
    assert np.array_equal(envs.reset()[0], other.reset()[0])


def test_states_are_arrays_of_plain_types():
    envs = TextVectorEnv("Copy", num_envs=2)
    envs.reset(seed=0)
    for array in envs.get_state().values():
        assert isinstance(array, np.ndarray)
        assert array.dtype in (np.int64, np.uint64, np.bool_)


def test_states_of_other_sizes_are_refused():
    envs = TextVectorEnv("Copy", num_envs=4)
    envs.reset(seed=0)
    state = envs.get_state()
    sizes: list[dict[str, Any]] = [
        {"num_envs": 3},
        {"num_envs": 4, "length": 5},
        {"num_envs": 4, "num_symbols": 9},  # the same shapes, other padding
        {"num_envs": 4, "group_size": 2},
        {"num_envs": 4, "min_length": 2},
    ]
    for each in sizes:
        other = TextVectorEnv("Copy", **each)
        with pytest.raises(ValueError, match=r"saved from another environment.*\(4, 4, 4, 8, 1\)"):
            other.set_state(state)
        with pytest.raises(ResetNeeded):
            other.step([0] * each["num_envs"])


def test_there_is_no_state_before_the_first_reset():
    with pytest.raises(ValueError, match="reset the environment first"):
        TextVectorEnv("Copy").get_state()


# ------------------------------------------------------------------------------------------------- rendering, masks


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_render_shows_the_score_of_finished_texts(mode):
    envs = TextVectorEnv(
        "Copy", num_envs=2, length=2, num_symbols=3, min_length=1, render_mode="ansi", autoreset_mode=mode
    )
    envs.reset(seed=0, options={"prompt": ["01", "2"]})
    assert envs.render() == ("01 → ", "2 → ")
    envs.step([1, 2])
    envs.step([1, 3])
    assert envs.render() == ("01 → 11", "2 → 2  [score 1.000]")
    if mode == AutoresetMode.NEXT_STEP:
        envs.step([2, 0])
        assert envs.render() == ("01 → 112  [score 0.333]", "2 → ")
    else:
        envs.reset(options={"reset_mask": np.array([False, True])})
        assert envs.render() == ("01 → 11", "2 → ")


def test_render_in_same_step_mode_shows_the_next_episode_without_a_score():
    envs = TextVectorEnv("Copy", num_envs=1, length=1, num_symbols=3, render_mode="ansi")
    envs.reset(seed=0)
    obs, *_ = envs.step([0])
    assert envs.render() == (f"{obs[0, 0]} → ",)


def test_render_without_a_mode():
    envs = TextVectorEnv("Copy")
    envs.reset(seed=0)
    with pytest.warns(UserWarning, match="without a render mode"):
        assert envs.render() is None


def test_masks(masked_task):
    envs = TextVectorEnv(masked_task(), num_envs=3)
    _, infos = envs.reset(seed=0)
    assert infos["action_mask"].dtype == np.int8
    assert infos["action_mask"].tolist() == [[1, 1, 1, 0]] * 3
    _, _, terminations, _, infos = envs.step([0, 2, 3])
    assert terminations.tolist() == [False, False, True]
    assert infos["action_mask"].tolist() == [[0, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]  # the third begins again
    assert infos["_action_mask"].tolist() == [True] * 3
    assert infos["final_info"]["_action_mask"].tolist() == [False, False, True]
    assert envs.action_masks().dtype == np.bool_
    assert np.array_equal(envs.action_masks(), infos["action_mask"])
    envs.action_masks()[:] = False
    assert envs.action_masks().any()


def test_without_constraints_every_action_is_legal():
    envs = TextVectorEnv("Copy", num_envs=3)
    assert "action_mask" not in envs.reset(seed=0)[1]
    assert envs.action_masks().shape == (3, 8)
    assert envs.action_masks().all()


def test_info_text():
    envs = TextVectorEnv("Copy", num_envs=2, length=2, num_symbols=3, min_length=1, info_text=True)
    _, infos = envs.reset(seed=0, options={"prompt": ["01", "2"]})
    assert infos["prompt"].tolist() == ["01", "2"]
    *_, infos = envs.step([0, 2])
    assert infos == {}
    *_, infos = envs.step([1, 3])
    assert infos["prompt"].tolist() == [None, "2"]  # the next prompt (by chance the same)
    assert infos["final_info"]["prompt"].tolist() == [None, "2"]
    assert infos["final_info"]["completion"].tolist() == [None, "2"]
