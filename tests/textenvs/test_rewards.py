"""Reward plug-ins: the forms of ``reward=``, the guard, and the default rewards of the tasks."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from hypothesis import given
from hypothesis import strategies as st

from textenvs import (
    Episodes,
    RewardError,
    RewardModel,
    TextEnv,
    TextVectorEnv,
    Vocab,
    list_rewards,
    make_reward,
    register_reward,
)
from textenvs.rewards import FunctionReward, Judge
from textenvs.rewards.registry import _REGISTRY


@pytest.fixture(autouse=True)
def registry_as_before() -> Iterator[None]:
    before = dict(_REGISTRY)
    yield
    _REGISTRY.clear()
    _REGISTRY.update(before)


def episodes(**columns: Any) -> Episodes:
    """Prompts "01" and "2"; completions "01" with EOS (3) and "221" without; padding is 4."""
    return Episodes(
        prompt_ids=np.array([[0, 1], [4, 2]]),
        completion_ids=np.array([[0, 1, 3], [2, 2, 1]]),
        lengths=np.array([3, 3]),
        finish_reason=np.array(["stop", "length"], dtype=object),
        key=np.array([1, 2], dtype=np.uint64),
        vocab=Vocab.symbols(3, eos=True),
        columns=columns,
    )


class Lengths:
    """The simplest reward model: its length in symbols, times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def score(self, episodes: Episodes) -> np.ndarray:
        return self.factor * np.array([len(text) for text in episodes.completions], dtype=np.float32)


def count_twos(completions: list[str], weight: float = 1.0) -> list[float]:
    return [weight * text.count("2") for text in completions]


def scores(spec: Any, **columns: Any) -> list[float]:
    return Judge(make_reward(spec))(episodes(**columns)).total.tolist()


# ------------------------------------------------------------------------------------------------- forms of reward=


def test_default_rewards_are_registered_plugins():
    assert {"match", "prefix", "keywords"} <= set(list_rewards())
    assert list_rewards() == sorted(list_rewards())
    for name in ("match", "prefix", "keywords"):
        model = make_reward(name)
        assert isinstance(model, RewardModel)
        assert (model.name, model.low, model.high, model.deterministic) == (name, 0.0, 1.0, True)


def test_an_object():
    model = Lengths(2.0)
    assert make_reward(model) is model
    assert scores(model) == [4.0, 6.0]
    assert Judge(model).name == "Lengths"


def test_a_class():
    assert scores(Lengths) == [2.0, 3.0]


def test_a_plain_function():
    assert scores(count_twos) == [0.0, 2.0]
    assert make_reward(count_twos).name == "count_twos"
    assert make_reward(lambda completions: [0.0] * len(completions)).name == "<lambda>"


def test_a_registered_function():
    assert register_reward("twos", low=0, high=3, version="7", deterministic=True)(count_twos) is count_twos
    assert "twos" in list_rewards()
    assert scores("twos") == [0.0, 2.0]
    assert scores({"name": "twos", "weight": 0.5}) == [0.0, 1.0]
    judge = Judge(make_reward("twos"))
    assert (judge.name, judge.low, judge.high, judge.version, judge.deterministic) == ("twos", 0.0, 3.0, "7", True)
    with pytest.raises(RewardError, match=r"'twos' returned 4\.0, outside its declared range \[0\.0, 3\.0\]"):
        scores({"name": "twos", "weight": 2.0})
    with pytest.raises(TypeError, match="takes no argument 'wieght'; it takes: completions, weight"):
        make_reward({"name": "twos", "wieght": 2.0})
    with pytest.raises(TypeError, match="takes no argument after a colon"):
        make_reward("twos:2")


def test_a_registered_class():
    @register_reward("lengths")
    class Registered(Lengths):
        pass

    assert scores("lengths") == [2.0, 3.0]
    assert scores({"name": "lengths", "factor": 3.0}) == [6.0, 9.0]
    assert make_reward("lengths").name == "lengths"
    with pytest.raises(TypeError, match=r"'lengths' cannot be built from \['fctor'\].*factor"):
        make_reward({"name": "lengths", "fctor": 3.0})


def test_the_part_after_the_colon_is_an_argument_of_a_registered_class(tmp_path, monkeypatch):
    (tmp_path / "suffix.py").write_text("raise AssertionError('a registered name before the colon wins')")
    monkeypatch.syspath_prepend(tmp_path)

    @register_reward("suffix")
    class Suffix:
        def __init__(self, suffix: str) -> None:
            self.suffix = suffix

        def score(self, episodes: Episodes) -> np.ndarray:
            return np.array([text.endswith(self.suffix) for text in episodes.completions], dtype=np.float32)

    assert scores("suffix:21") == [0.0, 1.0]


MODULE = """
import numpy as np

def ones(completions):
    return [1.0] * len(completions)

class Constant:
    def __init__(self, value=5.0):
        self.value = value

    def score(self, episodes):
        return np.full(len(episodes), self.value, dtype=np.float32)

seven = Constant(7.0)
spec = {"name": "user_rewards:Constant", "value": 3.0}
number = 4
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "user_rewards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("user_rewards", None)


@pytest.mark.usefixtures("module")
def test_module_and_attribute():
    assert scores("user_rewards:ones") == [1.0, 1.0]
    assert scores("user_rewards:Constant") == [5.0, 5.0]
    assert scores({"name": "user_rewards:Constant", "value": 2.0}) == [2.0, 2.0]
    assert scores("user_rewards:seven") == [7.0, 7.0]
    assert scores("user_rewards:spec") == [3.0, 3.0]
    env = TextEnv("Copy", length=1, reward="user_rewards:seven")
    env.reset(seed=0)
    assert env.step(0)[1] == 7.0


@pytest.mark.usefixtures("module")
def test_module_and_attribute_errors():
    with pytest.raises(ValueError, match=r"Unknown attribute of user_rewards 'one'\. Did you mean 'ones'\?"):
        make_reward("user_rewards:one")
    with pytest.raises(ValueError, match="neither a registered reward nor an importable module 'user_reward'"):
        make_reward("user_reward:ones")
    for nameless in (":ones", "..user_rewards:ones"):
        with pytest.raises(ValueError, match="neither a registered reward nor an importable module"):
            make_reward(nameless)
    with pytest.raises(TypeError, match="finished object"):
        make_reward({"name": "user_rewards:seven", "value": 2.0})
    with pytest.raises(TypeError, match="none of the accepted forms"):
        make_reward("user_rewards:number")


@pytest.mark.parametrize("spec", [7, None, [("match", 1.0)], {"reward": "match"}, {"name": 3}, Episodes])
def test_what_is_not_a_reward(spec):
    with pytest.raises(TypeError):
        make_reward(spec)


def test_unknown_names_show_the_nearest():
    for make in (
        make_reward,
        lambda spec: TextEnv("Copy", reward=spec),
        lambda spec: TextVectorEnv("Copy", reward=spec),
    ):
        with pytest.raises(ValueError, match=r"Unknown reward 'mach'\. Did you mean 'match'\? Known: .*prefix"):
            make("mach")
    with pytest.raises(ValueError, match=r"Unknown reward 'prefx'.*'prefix'"):
        make_reward({"name": "prefx"})


def test_registration_errors():
    with pytest.raises(ValueError, match=r"taken by textenvs\.rewards"):
        register_reward("match")(Lengths)
    for name in ("", "a:b"):
        with pytest.raises(ValueError, match="non-empty and without a colon"):
            register_reward(name)
    with pytest.raises(TypeError, match="must be a class or a function"):
        register_reward("object")(Lengths())  # type: ignore[type-var]
    assert not {"", "a:b", "object"} & set(list_rewards())


def test_the_same_definition_again_replaces_itself():
    """A notebook cell that is run twice."""

    def cell(value: float) -> None:
        @register_reward("again")
        def judge(completions: list[str]) -> list[float]:
            return [value] * len(completions)

    cell(1.0)
    cell(2.0)
    assert scores("again") == [2.0, 2.0]


# ------------------------------------------------------------------------------------------------- functions

COLUMNS = {
    "target_ids": np.array([[1, 0, 3], [2, 3, 4]]),
    "number": np.array([10, 20]),
    "answer": ["ten", "twenty"],
}
ARGUMENTS = {
    "prompts": ["01", "2"],
    "completions": ["01", "221"],
    "completion_ids": [[0, 1, 3], [2, 2, 1]],
    "trainer_state": None,
    "target": ["10", "2"],
    "target_ids": [[1, 0, 3], [2, 3]],
    "number": [10, 20],
    "answer": ["ten", "twenty"],
}


@pytest.mark.parametrize("count", range(len(ARGUMENTS) + 1))
def test_functions_get_every_subset_of_trls_signature(count):
    """All 256 of them, as positional-or-keyword, as keyword-only, and with a default."""
    for names in combinations(ARGUMENTS, count):
        for signature in (", ".join(names), "*, " + ", ".join(names), ", ".join(f"{name}='-'" for name in names)):
            seen: list[dict[str, Any]] = []
            namespace: dict[str, Any] = {"seen": seen}
            exec(
                f"def judge({signature if names else ''}):\n    seen.append(dict(locals()))\n    return [1, 2]",
                namespace,
            )
            assert scores(namespace["judge"], **COLUMNS) == [1.0, 2.0]
            assert seen == [{name: ARGUMENTS[name] for name in names}]


def test_functions_with_keyword_arguments_get_everything():
    seen = []

    def judge(prompts: list[str], **rest: Any) -> list[float]:
        seen.append({"prompts": prompts, **rest})
        return [0.0, 0.0]

    scores(judge, **COLUMNS)
    assert seen == [ARGUMENTS]


def test_functions_get_ids_without_padding():
    def judge(completion_ids: list[list[int]]) -> list[float]:
        assert completion_ids in ([[8]], [[1, 8]])  # EOS is part of it
        return [float(len(completion_ids[0]))]

    env = TextEnv("Copy", min_length=1, reward=judge)
    env.reset(seed=0)
    assert env.step(8)[1] == 1.0
    env.reset()
    env.step(1)
    assert env.step(8)[1] == 2.0


def test_functions_get_lists_of_plain_values():
    def judge(completion_ids: Any, number: Any, target_ids: Any) -> list[float]:
        for argument in (completion_ids, number, target_ids):
            assert type(argument) is list
            assert all(type(i) is int for entry in argument for i in (entry if isinstance(entry, list) else [entry]))
        return [0.0, 0.0]

    scores(judge, **COLUMNS)


def test_a_function_gets_the_columns_of_the_task():
    seen = {}

    def judge(prompts: list[str], completions: list[str], target: list[str]) -> list[float]:
        seen.update(prompt=prompts, completion=completions, target=target)
        return [float(one == two) for one, two in zip(completions, target, strict=True)]

    env = TextEnv("Reverse", length=3, reward=judge)
    env.reset(seed=0, options={"prompt": "123"})
    assert [env.step(action)[1] for action in (3, 2, 1)] == [0.0, 0.0, 1.0]
    assert seen == {"prompt": ["123"], "completion": ["321"], "target": ["321"]}


def test_a_column_that_the_task_does_not_have():
    def judge(completions: list[str], solution: list[str]) -> list[float]:
        return [0.0]

    env = TextEnv("Copy", length=1, reward=judge)
    env.reset(seed=0)
    with pytest.raises(RewardError, match=r"'judge' needs 'solution'.*Columns: target, target_ids"):
        env.step(0)
    for reward, column in (("match", "target_ids"), ("prefix", "target_ids")):
        env = TextEnv("Keywords", length=4, reward=reward)
        env.reset(seed=0)
        with pytest.raises(RewardError, match=f"'{reward}' .*column '{column}'.*keywords, keywords_ids"):
            [env.step(0) for _ in range(4)]


def test_none_alone_is_an_error_and_inside_a_sum_it_is_not():
    def odd_only(completions: list[str]) -> list[float | None]:
        return [1.0 if len(text) % 2 else None for text in completions]

    with pytest.raises(RewardError, match=r"'odd_only' returned None .* for prompt '01', completion '01'"):
        scores(odd_only)
    assert scores([(1.0, odd_only), (2.0, Lengths)]) == [4.0, 7.0]
    with pytest.raises(RewardError, match="applies to prompt '01', completion '01'"):
        scores([(1.0, odd_only), (0.0, Lengths)])


@pytest.mark.parametrize("answer", [[0.5], [0.5, 0.5, 0.5], 0.5, None, "ab", {0: 1.0, 1: 2.0}])
def test_functions_that_do_not_return_a_list_of_scores(answer):
    def judge(completions: list[str]) -> Any:
        return answer

    with pytest.raises(RewardError, match=r"'judge' must return a list with 2 scores, got .*first text: prompt '01'"):
        scores(judge)


def test_functions_may_return_arrays_tuples_booleans_and_integers():
    for answer in (np.array([1.0, 0.0]), (1, 0), [True, False], [np.float32(1), np.int64(0)]):
        assert scores(lambda completions, answer=answer: answer) == [1.0, 0.0]


def test_a_function_with_fixed_arguments():
    reward = FunctionReward(count_twos, arguments={"weight": 2.0}, name="double")
    assert scores(reward) == [0.0, 4.0]
    assert reward.arguments == {"weight": 2.0}  # not changed by scoring


# ------------------------------------------------------------------------------------------------- the guard


class Answers:
    """A reward model whose answer is prepared."""

    name = "oracle"
    low, high = -1.0, 1.0

    def __init__(self, answer: Callable[[int], Any]) -> None:
        self.answer = answer

    def score(self, episodes: Episodes) -> Any:
        return self.answer(len(episodes))


def last(value: float) -> Callable[[int], list[float]]:
    return lambda n: [0.0] * (n - 1) + [value]


def fail(n: int) -> Any:
    raise KeyError("tokenizer")


BAD_ANSWERS: dict[str, tuple[Callable[[int], Any], str]] = {
    "raises": (fail, "'oracle' raised KeyError: 'tokenizer'"),
    "scalar": (lambda n: 0.5, r"'oracle' must return one score for each text.*got shape \(\)"),
    "column": (lambda n: np.zeros((n, 1)), r"'oracle' must return one score .*got shape \(\d, 1\)"),
    "too many": (lambda n: np.zeros(n + 1), "'oracle' must return one score"),
    "nothing": (lambda n: None, "'oracle' must return one score"),
    "text": (lambda n: ["good"] * n, "'oracle' did not return numbers"),
    "ragged": (lambda n: [[1.0], [1.0, 2.0]], "'oracle' did not return numbers"),
    "nan": (last(math.nan), "'oracle' returned nan"),
    "none": (lambda n: [None] * n, "'oracle' returned nan"),
    "inf": (last(math.inf), "'oracle' returned inf"),
    "-inf": (last(-math.inf), "'oracle' returned -inf"),
    "beyond float32": (last(1e300), "'oracle' returned inf"),
    "beyond float64": (last(10**400), "'oracle' did not return numbers"),
    "too high": (last(1.01), r"'oracle' returned 1\.0\d*, outside its declared range \[-1\.0, 1\.0\]"),
    "too low": (last(-1.5), r"'oracle' returned -1\.5, outside its declared range \[-1\.0, 1\.0\]"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_a_scalar_environment_stops_and_goes_on_after_reset(case):
    answer, message = BAD_ANSWERS[case]
    env = TextEnv("Copy", length=2, reward=Answers(answer))
    env.reset(seed=0, options={"prompt": "12"})
    env.step(3)
    with pytest.raises(RewardError, match=message) as error:
        env.step(4)
    assert "prompt '12', completion '34'" in str(error.value)
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.set_reward("match")
    reference = TextEnv("Copy", length=2)
    reference.reset(seed=0)
    obs, _ = env.reset()
    assert np.array_equal(obs, reference.reset()[0])  # the second episode of the seed
    env.step(int(obs[0]))
    assert env.step(int(obs[1]))[1:3] == (1.0, True)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_a_vector_environment_stops_and_goes_on_after_reset(case, mode):
    answer, message = BAD_ANSWERS[case]
    sizes: dict[str, Any] = {"num_envs": 3, "length": 2, "num_symbols": 4, "min_length": 1, "autoreset_mode": mode}
    envs = TextVectorEnv("Copy", reward=Answers(answer), **sizes)
    envs.reset(seed=0, options={"prompt": ["12", "1", "3"]})
    envs.step([3, 2, 1])
    with pytest.raises(RewardError, match=message) as error:
        envs.step([0, 4, 4])  # the last two stop with EOS
    if case in ("nan", "inf", "-inf", "beyond float32", "too high", "too low"):
        assert "prompt '3', completion '1'" in str(error.value)  # the text that the bad score belongs to
    for _ in range(2):
        with pytest.raises(ResetNeeded, match=r"Call reset\(\) before step\(\).*reward model failed"):
            envs.step([0, 0, 0])
    with pytest.raises(ValueError, match="reset the environment first"):
        envs.get_state()
    envs.set_reward("match")
    reference = TextVectorEnv("Copy", **sizes)
    reference.reset(seed=0)
    assert np.array_equal(envs.reset()[0], reference.reset()[0])  # the second episode of each seed
    assert np.array_equal(envs.step([0, 1, 2])[0], reference.step([0, 1, 2])[0])


def test_after_a_failure_every_sub_environment_must_be_reset():
    envs = TextVectorEnv(
        "Copy", num_envs=2, length=2, min_length=1, reward=Answers(fail), autoreset_mode=AutoresetMode.DISABLED
    )
    envs.reset(seed=0)
    with pytest.raises(RewardError):
        envs.step([8, 0])
    with pytest.raises(ValueError, match="one after a failed reward model"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.reset()
    envs.step([0, 0])


def test_scores_at_the_bounds_and_rounded_to_float32_pass():
    class Tenth:
        low, high = 0.1, 0.3

        def score(self, episodes: Episodes) -> list[float]:
            return [0.1, 0.3]  # in float32 a little above and a little above

    assert scores(Tenth()) == [float(np.float32(0.1)), float(np.float32(0.3))]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_without_a_declared_range_scores_must_still_be_finite(value):
    with pytest.raises(RewardError, match=f"returned {value} for prompt '2', completion '221'"):
        scores(lambda completions: [0.0, value])


def test_the_worst_score_is_the_one_that_is_shown():
    class Range:
        low, high = 0.0, 1.0

        def score(self, episodes: Episodes) -> np.ndarray:
            return np.array([-1e-8, 2.0], dtype=np.float32)  # the first is within rounding

    with pytest.raises(RewardError, match=r"returned 2\.0, .*completion '221'"):
        scores(Range())


def test_a_declared_range_without_numbers():
    class Nothing(Lengths):
        low, high = 1.0, 0.0

    class Unclear(Lengths):
        low = math.nan

    for model in (Nothing(), Unclear()):
        with pytest.raises(ValueError, match="holds no number"):
            TextEnv("Copy", reward=model)


@pytest.mark.parametrize(("attribute", "value"), [("low", "0"), ("high", None), ("low", True)])
def test_declared_bounds_that_are_no_numbers(attribute, value):
    model = Lengths()
    setattr(model, attribute, value)
    with pytest.raises(TypeError, match=f"declares {attribute}={value!r}, which is no number"):
        Judge(model)


def test_attributes_have_defaults():
    judge = Judge(Lengths())
    assert (judge.low, judge.high, judge.version, judge.deterministic) == (-math.inf, math.inf, "1", False)


def test_reward_errors_pass_unchanged():
    def judge(completions: list[str]) -> list[float]:
        raise RewardError("told by the plug-in")

    with pytest.raises(RewardError, match=r"^told by the plug-in$"):
        scores(judge)


def test_the_judge_counts():
    judge = Judge(Lengths())
    for _ in range(3):
        judge(episodes())
    assert (judge.calls, judge.episodes) == (3, 6)
    assert judge.seconds > 0


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_all_texts_that_end_in_a_step_are_scored_in_one_call(mode):
    class Counting(Lengths):
        calls: list[int]

        def score(self, episodes: Episodes) -> np.ndarray:
            self.calls.append(len(episodes))
            return super().score(episodes)

    model = Counting()
    model.calls = []
    envs = TextVectorEnv("Copy", num_envs=7, length=3, num_symbols=2, min_length=1, reward=model, autoreset_mode=mode)
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    ended = []
    for _ in range(40):
        _, _, terminations, _, _ = envs.step(rng.integers(3, size=7))
        ended.append(int(terminations.sum()))
        if mode == AutoresetMode.DISABLED and terminations.any():
            envs.reset(options={"reset_mask": terminations})
    assert model.calls == [count for count in ended if count]
    assert max(ended) > 1


def test_invalid_texts_are_not_scored(masked_task):
    seen = []

    def judge(completions: list[str]) -> list[float]:
        seen.append(list(completions))
        return [0.25] * len(completions)

    envs = TextVectorEnv(masked_task(), num_envs=3, reward=judge, invalid_reward=-2.0)
    envs.reset(seed=0)
    envs.step([0, 1, 2])
    _, rewards, terminations, _, infos = envs.step([0, 2, 3])  # repeats; goes on; stops
    assert rewards.tolist() == [-2.0, 0.0, 0.25]
    assert terminations.tolist() == [True, False, True]
    assert infos["final_info"]["finish_reason"].tolist() == ["invalid", None, "stop"]
    assert infos["final_info"]["_score"].tolist() == [False, False, True]
    assert infos["final_info"]["reward_components"]["_judge"].tolist() == [False, False, True]
    _, rewards, _, _, infos = envs.step([3, 2, 3])  # EOS first is illegal, and so is repeating
    assert rewards.tolist() == [-2.0, -2.0, -2.0]
    assert "score" not in infos["final_info"]
    assert seen == [["2"]]


def test_the_penalty_of_invalid_texts(masked_task):
    env = TextEnv(masked_task())
    env.reset(seed=0)
    assert env.step(3)[1] == 0.0  # low of the default reward
    with pytest.raises(ValueError, match=r"NoRepeats has illegal actions and reward 'Lengths' no finite lower bound"):
        TextEnv(masked_task(), reward=Lengths())
    with pytest.raises(ValueError, match="NoRepeats has illegal actions"):
        env.set_reward(Lengths())
    env.reset()
    assert env.step(3)[1] == 0.0  # the old judge is still there
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="invalid_reward must be a finite number"):
            TextEnv(masked_task(), invalid_reward=value)


def test_another_reward_from_the_next_finished_text_on():
    for env in (TextEnv("Copy", length=2), TextVectorEnv("Copy", length=2)):
        env.reset(seed=0, options={"prompt": "12" if isinstance(env, TextEnv) else ["12"]})
        env.step(1 if isinstance(env, TextEnv) else [1])
        env.set_reward(Lengths(10.0))
        _, reward, _, _, info = env.step(2 if isinstance(env, TextEnv) else [2])
        assert reward == 20.0
        assert "Lengths" in info.get("final_info", info)["reward_components"]


# ------------------------------------------------------------------------------------------------- default rewards


def judged(
    name: str, completions: list[list[int]], column: str, entries: list[list[int]], size: int = 4
) -> list[float]:
    """Scores of rows of ids, right-padded with ``size`` here."""

    def padded(rows: list[list[int]]) -> np.ndarray:
        width = max(map(len, rows))
        return np.array([row + [size] * (width - len(row)) for row in rows], dtype=np.int64).reshape(len(rows), width)

    batch = Episodes(
        prompt_ids=np.zeros((len(completions), 0), dtype=np.int64),
        completion_ids=padded(completions),
        lengths=np.array([len(row) for row in completions]),
        finish_reason=np.full(len(completions), "length", dtype=object),
        key=np.zeros(len(completions), dtype=np.uint64),
        vocab=Vocab.symbols(size),
        columns={column: padded(entries)},
    )
    answer = make_reward(name).score(batch)
    assert answer.dtype == np.float32
    return answer.tolist()


def f32(*values: float) -> list[float]:
    return [float(np.float32(value)) for value in values]


def test_match_by_hand():
    completions = [[0, 1, 2], [0, 1], [0, 1, 2, 3], [3, 3, 3], [1], [2, 1, 0]]
    targets = [[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2], [1, 1], [0, 1, 2]]
    assert judged("match", completions, "target_ids", targets) == f32(1, 2 / 3, 3 / 4, 0, 1 / 2, 1 / 3)


def test_prefix_by_hand():
    completions = [[0, 1, 2], [0, 1], [0, 1, 2, 3], [3, 1, 2], [1], [0, 0, 2]]
    targets = [[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2], [1, 1], [0, 1, 2]]
    assert judged("prefix", completions, "target_ids", targets) == f32(1, 2 / 3, 1, 0, 1 / 2, 1 / 3)


def test_keywords_by_hand():
    completions = [[0, 1, 2], [3, 3, 3], [1, 1, 0], [2], [0, 3]]
    keywords = [[2, 0], [1, 2], [0, 3], [2, 1], [3]]
    assert judged("keywords", completions, "keywords_ids", keywords) == f32(1, 0, 1 / 2, 1 / 2, 1)


def match(text: list[int], target: list[int]) -> float:
    return sum(one == two for one, two in zip(text, target, strict=False)) / max(len(text), len(target))


def prefix(text: list[int], target: list[int]) -> float:
    right = 0
    while right < min(len(text), len(target)) and text[right] == target[right]:
        right += 1
    return right / len(target)


def keywords(text: list[int], wanted: list[int]) -> float:
    return sum(token in text for token in wanted) / len(wanted)


row = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@given(st.lists(st.tuples(row, row), min_size=1, max_size=6))
def test_match_and_prefix_against_loops(pairs):
    texts, targets = [text for text, _ in pairs], [target for _, target in pairs]
    for name, reference in (("match", match), ("prefix", prefix)):
        expected = f32(*(reference(text, target) for text, target in pairs))
        assert judged(name, texts, "target_ids", targets, size=3) == pytest.approx(expected, abs=1e-7)


@given(
    st.lists(st.tuples(row, st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)), min_size=1, max_size=6)
)
def test_keywords_against_a_loop(pairs):
    texts, wanted = [text for text, _ in pairs], [words for _, words in pairs]
    expected = f32(*(keywords(text, words) for text, words in pairs))
    assert judged("keywords", texts, "keywords_ids", wanted, size=3) == pytest.approx(expected, abs=1e-7)
