"""check_text_env passes every built-in id, and finds the faults planted in broken tasks and environments."""

from __future__ import annotations

import copy
import importlib.util
import re
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import textenvs
from textenvs import TextEnv, TextEnvError, TextVectorEnv, check_text_env
from textenvs.tasks import Task, make_task
from textenvs.tasks.copying import Copy, Reverse
from textenvs.tasks.prompts import SymbolPrompts

NEEDS = {"textenvs/ReasoningGym-v0": "reasoning_gym"}
IDS = [name for name in textenvs.list_envs() if name not in NEEDS or importlib.util.find_spec(NEEDS[name])]

Rows = np.ndarray


@pytest.mark.parametrize("env_id", IDS)
def test_every_built_in_id_passes(env_id: str) -> None:
    check_text_env(env_id)


@pytest.mark.parametrize(
    ("env_id", "sizes"),
    [
        ("textenvs/Sort-v0", {"length": 3, "num_symbols": 4, "min_length": 2, "split": "test"}),
        ("textenvs/Reverse-v0", {"length": 40}),  # prompts beyond 64 bits
        ("textenvs:textenvs/Prompts-v0", {"tokenizer": "bytes", "reward": "length"}),
        ("textenvs/PrefixLock-v0", {"task_seed": 3, "num_symbols": 2}),
    ],
)
def test_other_sizes_pass(env_id: str, sizes: dict[str, Any]) -> None:
    check_text_env(env_id, **sizes)


def test_everything_that_can_be_given(masked_task: type[Task]) -> None:
    check_text_env(masked_task())
    check_text_env(masked_task(), invalid_reward=-1.0)
    check_text_env(Copy, length=3)
    check_text_env(lambda **sizes: make_task("Copy", **sizes), length=3)
    check_text_env(TextEnv, task="Copy")
    check_text_env(TextEnv("Copy"))
    check_text_env(gym.wrappers.TimeLimit(TextEnv("Copy"), 10))
    with pytest.raises(TextEnvError, match="the test split cannot be made: ValueError: NoRepeats has no prompts"):
        check_text_env(masked_task)  # an object has one split only; its class should have both
    with pytest.raises(TypeError, match="an environment id, a task or environment, or what makes one; got 3"):
        check_text_env(3)
    with pytest.raises(TypeError, match=r"is made already: \['length'\] cannot be changed"):
        check_text_env(TextEnv("Copy"), length=3)
    with pytest.raises(TextEnvError, match="it cannot be made: ValueError: Copy: length must be at least 1"):
        check_text_env("textenvs/Copy-v0", length=0)


def test_global_randomness_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    check_text_env(Copy)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


# -- tasks -------------------------------------------------------------------------------------------------------------


class OverlappingSplits(Copy):
    """Both splits are the training split."""

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.prompt_set = SymbolPrompts(num_symbols=8, length=4, min_length=4, split="train", pad_id=8)


class OnePromptInBoth(Copy):
    """The first test prompt is the first training prompt."""

    def prompts_at(self, index: Rows) -> Rows:
        rows = super().prompts_at(index)
        rows[index == 0] = 0
        return rows

    def draw(self, keys: Rows) -> tuple[Rows, Rows]:
        index = (keys % np.uint64(self.prompt_set.count)).astype(np.int64)
        return self.prompts_at(index), index


class SplitIgnored(Copy):
    """It takes split= and says "train" all the same."""

    def __init__(self, *, split: str = "train") -> None:
        super().__init__()


class LowOracle(Reverse):
    def columns(self, prompt_ids: Rows, index: Rows) -> dict[str, Any]:
        return {"target_ids": prompt_ids[:, ::-1].copy()}

    def oracle(self, prompt_ids: Rows) -> Rows:
        return prompt_ids.copy()


class HighOracle(Reverse):
    optimum = 0.5


class NoOracle(Reverse):
    def columns(self, prompt_ids: Rows, index: Rows) -> dict[str, Any]:
        return {"target_ids": prompt_ids[:, ::-1].copy()}

    def oracle(self, prompt_ids: Rows) -> Rows:
        raise NotImplementedError("later")


class OracleOutsideTheTexts(Copy):
    def oracle(self, prompt_ids: Rows) -> Rows:
        rows = super().oracle(prompt_ids)
        rows[:, 1] = self.pad_id
        return rows

    def columns(self, prompt_ids: Rows, index: Rows) -> dict[str, Any]:
        return {"target_ids": prompt_ids}


class RandomScoreOff(Copy):
    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.random_score = 0.25  # it is 1/8


class PromptsOnTheLeft(Copy):
    """Prompts of unequal length are padded on the right."""

    def __init__(self, *, split: str = "train") -> None:
        super().__init__(min_length=2, split=split)

    def draw(self, keys: Rows) -> tuple[Rows, Rows]:
        rows, index = super().draw(keys)
        return np.take_along_axis(rows, np.argsort(rows == self.pad_id, axis=1, kind="stable"), axis=1), index


class OwnRandomState(Copy):
    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.rng = np.random.default_rng(0)

    def draw(self, keys: Rows) -> tuple[Rows, Rows]:
        return super().draw(self.rng.integers(2**63, size=len(keys)).astype(np.uint64))


class GlobalRandomState(Copy):
    def draw(self, keys: Rows) -> tuple[Rows, Rows]:
        return super().draw(np.random.randint(2**62, size=len(keys)).astype(np.uint64))  # noqa: NPY002


class BatchDependentDraw(Copy):
    def draw(self, keys: Rows) -> tuple[Rows, Rows]:
        return super().draw(keys + np.uint64(len(keys)))


class BatchDependentColumn(Copy):
    def columns(self, prompt_ids: Rows, index: Rows) -> dict[str, Any]:
        return {**super().columns(prompt_ids, index), "rank": index.argsort().argsort()}


class ShortColumn(Copy):
    def columns(self, prompt_ids: Rows, index: Rows) -> dict[str, Any]:
        return {**super().columns(prompt_ids, index), "topic": ["x"], "completions": ["y"] * len(index)}


class WrongNumbers(Copy):
    def prompts_at(self, index: Rows) -> Rows:
        return super().prompts_at((index + 1) % self.prompt_set.count)


class PromptsRefused(Copy):
    def encode_prompt(self, prompt: Any) -> Rows:
        row = super().encode_prompt(prompt)
        return row[::-1].copy()


class ReadsItsOwnTextsWrongly(Copy):
    """Prompts given as ids are well, as texts they are turned round."""

    def encode_prompt(self, prompt: Any) -> Rows:
        return super().encode_prompt(prompt[::-1] if isinstance(prompt, str) else prompt)


class LooksUpByNumber(Copy):
    """Of a prompt that was given by itself, which has no number, it takes the last one's answer."""

    def columns(self, prompt_ids: Rows, index: Rows) -> dict[str, Any]:
        answers = self.oracle(self.prompts_at(np.arange(self.prompt_set.count)))
        return {"target_ids": answers[index]}


class KnowsNumberedPromptsOnly(Copy):
    def columns(self, prompt_ids: Rows, index: Rows) -> dict[str, Any]:
        return {"target_ids": self.oracle(self.prompts_at(index))}


class FloatPrompts(Copy):
    def draw(self, keys: Rows) -> tuple[Rows, Rows]:
        rows, index = super().draw(keys)
        return rows.astype(np.float64), index


class MasksNobodyAsksFor(Copy):
    def action_masks(self, rows: Rows, written: Rows) -> Rows:
        return np.ones((len(rows), 8), dtype=np.bool_)


class NotPicklable(Copy):
    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.helper = lambda x: x


class NamelessSplit(Copy):
    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.name, self.split = "", "all"


class _Masked(Copy):
    """Never a 7, which the target may ask for: of those prompts nothing is known here."""

    has_masks = True
    random_score = optimum = float("nan")  # type: ignore[assignment]

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.random_score = float("nan")

    def action_masks(self, rows: Rows, written: Rows) -> Rows:
        masks = np.ones((len(rows), 8), dtype=np.bool_)
        masks[:, 7] = False
        return masks


class NothingLegal(_Masked):
    """After the symbol 3."""

    def action_masks(self, rows: Rows, written: Rows) -> Rows:
        masks = super().action_masks(rows, written)
        masks[(rows[:, self.prompt_length :] == 3).any(axis=1)] = False
        return masks


class NothingLegalAtTheEnd(_Masked):
    def action_masks(self, rows: Rows, written: Rows) -> Rows:
        masks = super().action_masks(rows, written)
        masks[written == self.max_new_tokens] = False
        return masks


class IntegerMasks(_Masked):
    def action_masks(self, rows: Rows, written: Rows) -> Rows:
        return super().action_masks(rows, written).astype(np.int8)


class MasksOfTheBatch(_Masked):
    def action_masks(self, rows: Rows, written: Rows) -> Rows:
        masks = super().action_masks(rows, written)
        masks[:, 0] = len(rows) > 100
        return masks


class IllegalOracle(_Masked):
    optimum = 1.0


TASK_FAULTS: list[tuple[type[Task], str]] = [
    (OverlappingSplits, r"the splits overlap: \d+ prompts stand in both"),
    (OnePromptInBoth, "the splits overlap: 1 prompts stand in both, for instance '0000'"),
    (SplitIgnored, "made with split='test', the task says that it has split='train'"),
    (LowOracle, r"the oracle scores 0\.1\d* on average, below the stated optimum of 1"),
    (HighOracle, r"the oracle scores 1 on average, above the stated optimum of 0\.5"),
    (NoOracle, "it states an optimum of 1, but its oracle raised NotImplementedError: later"),
    (OracleOutsideTheTexts, "wrong padding: an oracle's text is padded on the right"),
    (RandomScoreOff, r"uniform legal actions score 0\.1\d* on average .*, but the stated random score is 0\.25"),
    (PromptsOnTheLeft, "wrong padding: prompts are padded on the left, with 9; draw"),
    (OwnRandomState, "draw.. gives other prompts for the same keys: a task has no state"),
    (GlobalRandomState, "playing draws from the global random state"),
    (BatchDependentDraw, "draw.. gives other prompts for the same keys in another batch"),
    (BatchDependentColumn, "column 'rank' depends on the other prompts of the batch"),
    (ShortColumn, "column 'topic' has 1 entries for 256 prompts"),
    (ShortColumn, "a column cannot be called 'completions'"),
    (WrongNumbers, "prompts_at.. does not give the prompts whose numbers draw.. says"),
    (WrongNumbers, "prompts_at.. takes any number"),
    (PromptsRefused, "encode_prompt.. does not give back the drawn prompt"),
    (ReadsItsOwnTextsWrongly, r"encode_prompt\('\d{4}'\) does not give back the drawn prompt with that text"),
    (LooksUpByNumber, r"column 'target_ids' of the prompt \[0, 0, 0, 0\] is .* where the prompt was given by itself"),
    (KnowsNumberedPromptsOnly, "columns.. raised ValueError for prompts that were given by themselves"),
    (FloatPrompts, r"draw.. must give prompts int64 \(256, 4\), got float64"),
    (MasksNobodyAsksFor, "it has action_masks.. but has_masks is False"),
    (NotPicklable, "a pickled copy cannot be made in the middle of an episode: .*ickle"),
    (NamelessSplit, "name must be a non-empty string, got ''"),
    (NamelessSplit, "split must be 'train' or 'test', got 'all'"),
    (NothingLegal, r"no action is legal after the .*text \[.*3.*\]"),
    (NothingLegalAtTheEnd, "no action is legal after the finished text"),
    (IntegerMasks, r"action_masks.. must give bool \(256, 8\)"),
    (MasksOfTheBatch, "action_masks.. gives other masks for the same states in another batch"),
    (IllegalOracle, r"the oracle's text has no score for \d+ of \d+ prompts: it breaks the rules"),
]


@pytest.mark.parametrize(("task", "fault"), TASK_FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_faults_of_tasks(task: type[Task], fault: str) -> None:
    with pytest.raises(TextEnvError, match=fault):
        check_text_env(task)


def test_the_sound_part_of_the_masked_tasks_is_sound() -> None:
    check_text_env(_Masked)


# -- environments ------------------------------------------------------------------------------------------------------


class Broken(TextEnv):
    """A sound one; each below breaks one thing."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__("Copy", length=3, **arguments)


class PaysTwice(Broken):
    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, 2 * reward, terminated, truncated, info


class PaysEarly(Broken):
    """The score of the last step, and a bonus for every token."""

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward + 0.1, terminated, truncated, info


class SaysAnotherScore(Broken):
    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        if terminated:
            info["score"] = reward = 7.0
        return obs, reward, terminated, truncated, info


class Truncates(Broken):
    def step(self, action: Any) -> Any:
        obs, reward, terminated, _, info = super().step(action)
        return obs, reward, False, terminated, info


class PadsWithZero(Broken):
    def step(self, action: Any) -> Any:
        obs, *others = super().step(action)
        return np.where(obs == 8, 0, obs), *others


class ShowsItsOwnArray(Broken):
    def step(self, action: Any) -> Any:
        _, *others = super().step(action)
        return self._engine.rows[0], *others


class ShowsItsOwnMask(TextEnv):
    def __init__(self, **arguments: Any) -> None:
        super().__init__("DyckMasked", length=2, **arguments)

    def _add_mask(self, info: dict[str, Any]) -> None:
        info["action_mask"] = self._engine.masks.view(np.int8)[0]


class TakesAnyOption(Broken):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        known = {name: value for name, value in (options or {}).items() if name in ("prompt", "index")}
        return super().reset(seed=seed, options=known)


class IgnoresOptions(Broken):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)


class GoesOnAfterTheEnd(Broken):
    def step(self, action: Any) -> Any:
        if self._over:
            return self._engine.rows[0].copy(), 0.0, True, False, {}
        return super().step(action)


class TakesPadding(Broken):
    def step(self, action: Any) -> Any:
        return super().step(int(action) % 8)


class IgnoresSeeds(Broken):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=None if self._engine.seeds is not None else np.random.SeedSequence().entropy % 2**60)


class FromTheGlobalState(Broken):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed, options={"index": int(np.random.randint(400))})  # noqa: NPY002


class ReadsTheGlobalState(Broken):
    """Without drawing from it."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed, options={"index": int(np.random.get_state()[1][0]) % 400})  # noqa: NPY002


class SharesItsGenerator(Broken):
    """All environments of the class draw from one generator."""

    generator = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            type(self).generator = np.random.default_rng(seed)
        return super().reset(seed=seed, options={"index": int(self.generator.integers(400))})


class CopiesShareTheGenerator(Broken):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.generator = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.generator = np.random.default_rng(seed)
        return super().reset(seed=seed, options={"index": int(self.generator.integers(400))})

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self.generator)] = self.generator
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        return twin


class ForgetsOnCopying(Broken):
    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["_engine"] = copy.deepcopy(self._engine)
        state["_engine"].written[:] = 0
        return state


class WrongSpaces(Broken):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.action_space = gym.spaces.Discrete(9)
        self.observation_space = gym.spaces.MultiDiscrete([8] * 6)


ENV_FAULTS: list[tuple[type[TextEnv], str]] = [
    (PaysTwice, r"the episode paid \S+, its score is \S+: the score is paid once"),
    (PaysEarly, r"a step before the end paid 0\.1: the score is paid once, by the last step"),
    (SaysAnotherScore, "has the score 7; its reward model gives it"),
    (Truncates, "says terminated=False, truncated=True; the rules say terminated=True"),
    (PadsWithZero, "wrong padding or tokens: after 1 tokens the observation should be"),
    (ShowsItsOwnArray, "an observation that was given before changes while the environment goes on: give copies"),
    (ShowsItsOwnMask, "an action mask that was given before changes while the environment goes on: give copies"),
    (TakesAnyOption, r"reset\(options={'nonsense': 1}\) must raise"),
    (IgnoresOptions, r"reset\(options={'nonsense': 1}\) must raise"),
    (IgnoresOptions, r"reset\(options={'prompt': \[.*\]}\) must begin with the prompt"),
    (IgnoresOptions, r"reset\(options={'index': \d+}\) must begin with the prompt"),
    (GoesOnAfterTheEnd, "step.. after the end of an episode must raise gymnasium.error.ResetNeeded"),
    (TakesPadding, "padding, must raise gymnasium.error.InvalidAction"),
    (IgnoresSeeds, "two environments with the same seed play different episodes: observation 0 is"),
    (FromTheGlobalState, "playing draws from the global random state"),
    (FromTheGlobalState, "episodes depend on the global random state: observation 0 is"),
    (ReadsTheGlobalState, "episodes depend on the global random state: observation 0 is"),
    (SharesItsGenerator, "two environments played in turn disturb each other"),
    (CopiesShareTheGenerator, "playing a deep copy changes the original, they share state"),
    (ForgetsOnCopying, "a pickled copy goes on differently"),
    (WrongSpaces, r"the action space must be Discrete\(8\), one action a token; it is Discrete\(9\)"),
    (WrongSpaces, r"the observation space must be MultiDiscrete\(\[9\] \* 6\)"),
]


@pytest.mark.parametrize(("env", "fault"), ENV_FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_faults_of_environments(env: type[TextEnv], fault: str) -> None:
    with pytest.raises(TextEnvError, match=fault):
        check_text_env(env)


def test_the_sound_part_of_the_environments_is_sound() -> None:
    check_text_env(Broken)


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    """Registers an id for the length of a test."""
    before = set(gym.registry)

    def registered(**arguments: Any) -> str:
        gym.register(id="broken/Env-v0", **arguments)
        return "broken/Env-v0"

    yield registered
    for name in set(gym.registry) - before:
        del gym.registry[name]


def test_a_vector_environment_of_other_episodes(register: Callable[..., str]) -> None:
    class Vector(TextVectorEnv):
        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            return super().reset(seed=None if seed is None else seed + 1, options=options)

    env_id = register(entry_point=TextEnv, vector_entry_point=Vector, kwargs={"task": "Copy"})
    with pytest.raises(TextEnvError, match=r"reset: the vector environment shows .*, the scalar one"):
        check_text_env(env_id)


def test_a_vector_environment_of_other_scores(register: Callable[..., str]) -> None:
    class Vector(TextVectorEnv):
        def step(self, actions: np.ndarray) -> Any:
            obs, rewards, *others = super().step(actions)
            return obs, rewards + 1, *others

    env_id = register(entry_point=TextEnv, vector_entry_point=Vector, kwargs={"task": "Copy"})
    with pytest.raises(TextEnvError, match="the vector environment plays other episodes than scalar ones"):
        check_text_env(env_id)


@pytest.mark.parametrize(
    ("task", "method", "fault"),
    [
        ("Copy", "observations", "observations that the vector environment gave before change while it goes on"),
        ("DyckMasked", "masks", "the vector environment allows other actions than scalar ones in the same states"),
        ("Copy", "scores", "the vector environment plays other episodes than scalar ones"),
    ],
)
def test_a_vector_environment_with_a_fault_of_its_own(
    register: Callable[..., str], task: str, method: str, fault: str
) -> None:
    class Vector(TextVectorEnv):
        def step(self, actions: np.ndarray) -> Any:
            obs, *others, infos = super().step(actions)
            if method == "observations":
                obs = self._engine.rows
            if method == "scores" and "final_info" in infos:
                infos["final_info"]["score"] = infos["final_info"]["score"] + 1
            return obs, *others, infos

        def action_masks(self) -> np.ndarray:
            masks = super().action_masks()
            return masks[::-1] if method == "masks" else masks

    env_id = register(entry_point=TextEnv, vector_entry_point=Vector, kwargs={"task": task, "length": 3})
    with pytest.raises(TextEnvError, match=fault):
        check_text_env(env_id)


def test_a_warning_of_gymnasiums_checker_is_a_fault(register: Callable[..., str]) -> None:
    class Warns(Broken):
        def reset(self, *, seed: int | None = 3, options: Any = None) -> Any:
            return super().reset(seed=seed, options=options)

    with pytest.raises(TextEnvError, match=r"Gymnasium's check_env warns: .*default seed"):
        check_text_env(register(entry_point=Warns))


def test_environments_of_another_kind(register: Callable[..., str]) -> None:
    class Other(gym.Env[Any, Any]):
        pass

    with pytest.raises(TextEnvError, match=r"there is no attribute 'task' with a textenvs\.Task"):
        check_text_env(register(entry_point=Other))


def test_all_faults_are_listed_at_once() -> None:
    class Worst(LowOracle, OverlappingSplits):
        def __init__(self, **sizes: Any) -> None:
            super().__init__(**sizes)
            self.random_score = 0.5
            self.helper = lambda x: x

        def columns(self, prompt_ids: Rows, index: Rows) -> dict[str, Any]:
            return {"target_ids": prompt_ids[:, ::-1].copy(), "topic": ["x"]}

    with pytest.raises(TextEnvError) as caught:
        check_text_env(Worst)
    message = str(caught.value)
    assert re.search(r"^Worst breaks the contract in 5 point\(s\):\n", message)
    for fault in ("topic", "overlap", "pickled copy", "below the stated optimum", "stated random score is 0.5"):
        assert len(re.findall(rf"^  \d\. .*{fault}", message, flags=re.MULTILINE)) == 1, message
