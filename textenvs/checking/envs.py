"""check_text_env: what the author of a task runs."""

from __future__ import annotations

import copy
import importlib
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium.utils.env_checker import check_env

from textenvs.checking.play import copy_faults, episode_faults, option_faults, seed_faults, vector_faults
from textenvs.checking.scores import oracle_faults, random_faults
from textenvs.checking.tasks import attribute_faults, column_faults, draw_faults, mask_faults, split_faults
from textenvs.env import TextEnv
from textenvs.rng import global_randomness_kept
from textenvs.tasks import ENV_ARGUMENTS, Task
from textenvs.vector import TextVectorEnv


class TextEnvError(RuntimeError):
    """A text environment breaks the contract. The message lists every fault that was found."""


@dataclass(frozen=True)
class _Subject:
    """What is checked, in the form of functions that make new ones."""

    name: str
    make: Callable[[], gym.Env[Any, Any]]
    make_vector: Callable[[int], Any] | None
    """N sub-environments natively batched; None where there is no such class."""
    make_split: Callable[[str], Task] | None
    """The task of a split; None where there is only the object given."""
    states_scores: bool
    """Whether the scores are those of the default reward, for which the task states optimum and random score."""


def check_text_env(env: Any, *, num_episodes: int = 1_024, **arguments: Any) -> None:
    """Check a task, or an environment of one's own, against the contract; returns nothing if it holds.

    Checked are: attributes and spaces; prompts, columns and masks as functions of arrays (shapes, padding, the same
    again, independent of the batch, at least one legal action in every state); that the train and test split share no
    prompt; whole episodes (rows, padding, ends, one score an episode and nothing else, arrays that stay as they were
    given); the options of ``reset``; that the same seed gives the same episodes, whatever the global random state and
    whatever other environments do; that a vector environment plays the episodes of scalar ones; copying and pickling in
    the middle of an episode; that the oracle reaches the stated optimum and uniform legal actions the stated random
    score, to within 0.02 and four standard errors (NaN: not stated); and what
    ``gymnasium.utils.env_checker.check_env`` checks, its warnings included.

    Args:
        env: an environment id; a task class, or any function that makes a task or a scalar environment; a task object
            or an environment (which has one split only, so that splits are not compared).
        num_episodes: texts that optimum and random score are estimated from.
        **arguments: of the environment or the task: sizes, ``reward``, ``invalid_reward``. With a ``reward`` of your
            own the stated scores are not compared.

    Raises:
        TextEnvError: with every fault that was found.
    """
    subject = _subject(env, arguments)
    with global_randomness_kept(), warnings.catch_warnings():
        faults = list(dict.fromkeys(_all_faults(subject, num_episodes)))
    if faults:
        lines = "".join(f"\n  {i}. {fault}" for i, fault in enumerate(faults, start=1))
        raise TextEnvError(f"{subject.name} breaks the contract in {len(faults)} point(s):{lines}")


def _all_faults(subject: _Subject, num_episodes: int) -> Iterator[str]:
    try:
        env: Any = subject.make().unwrapped
    except Exception as error:
        yield f"it cannot be made: {type(error).__name__}: {error}"
        return
    task = getattr(env, "task", None)
    if not isinstance(task, Task):
        yield "there is no attribute 'task' with a textenvs.Task, which says what is to be written"
        return
    attributes = list(attribute_faults(env, task))
    yield from attributes
    if attributes:
        return  # everything else would only repeat that
    checks: list[tuple[str, Callable[[], Iterator[str]]]] = [
        ("prompts", lambda: draw_faults(task)),
        ("columns", lambda: column_faults(task)),
        ("masks", lambda: mask_faults(task)),
        ("splits", lambda: split_faults(task, subject.make_split)),
        ("episodes", lambda: episode_faults(subject.make)),
        ("reset(options=…)", lambda: option_faults(subject.make)),
        ("seeds", lambda: seed_faults(subject.make)),
        ("copies", lambda: copy_faults(subject.make)),
        ("vector environment", lambda: vector_faults(subject.make, subject.make_vector)),
        ("Gymnasium's check_env", lambda: _gymnasium_faults(subject.make)),
    ]
    if subject.states_scores:
        make_vector = subject.make_vector or (lambda count: TextVectorEnv(task, count))
        checks += [
            ("oracle", lambda: oracle_faults(task, make_vector, num_episodes)),
            ("random score", lambda: random_faults(task, make_vector, num_episodes)),
        ]
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:
            yield f"{name}: it raised {type(error).__name__}: {error}"


def _gymnasium_faults(make: Callable[[], gym.Env[Any, Any]]) -> Iterator[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(make().unwrapped, skip_render_check=True)
    for warning in caught:
        plain = re.sub(r"\x1b\[\d+m", "", str(warning.message))
        yield f"Gymnasium's check_env warns: {plain}"


def _subject(env: Any, arguments: dict[str, Any]) -> _Subject:
    states_scores = "reward" not in arguments
    if isinstance(env, str):
        # Gymnasium's passive checker would stand between the environment and the tests of misuse.
        def make(**others: Any) -> gym.Env[Any, Any]:
            return gym.make(env, disable_env_checker=True, **{**arguments, **others})

        def make_split(split: str) -> Task:
            base: Any = make(split=split).unwrapped
            return base.task

        def make_vector(count: int) -> Any:
            return gym.make_vec(env, num_envs=count, vectorization_mode="vector_entry_point", **arguments)

        module, _, name = env.rpartition(":")
        if module:
            importlib.import_module(module)
        native = gym.spec(name).vector_entry_point is not None
        return _Subject(env, make, make_vector if native else None, make_split, states_scores)
    if isinstance(env, Task | gym.Env):
        if isinstance(env, gym.Env):
            if arguments:
                raise TypeError(f"{env} is made already: {sorted(arguments)} cannot be changed any more.")
            return _Subject(str(env), lambda: copy.deepcopy(env), None, None, True)
        return _of_task(env.name, lambda: env, None, arguments)
    if not callable(env):
        raise TypeError(
            f"check_text_env takes an environment id, a task or environment, or what makes one; got {env!r:.100}."
        )
    name = getattr(env, "__name__", repr(env))
    task_arguments = {key: value for key, value in arguments.items() if key not in ENV_ARGUMENTS}
    if isinstance(env, type) and issubclass(env, gym.Env):
        return _Subject(name, lambda: env(**arguments), None, None, states_scores)
    first = env(**task_arguments)
    if isinstance(first, Task):
        return _of_task(
            name, lambda: env(**task_arguments), lambda split: env(**{**task_arguments, "split": split}), arguments
        )
    return _Subject(name, lambda: env(**arguments), None, None, states_scores)


def _of_task(
    name: str, make_task: Callable[[], Task], make_split: Callable[[str], Task] | None, arguments: dict[str, Any]
) -> _Subject:
    of_env = {key: value for key, value in arguments.items() if key in ENV_ARGUMENTS}
    return _Subject(
        name,
        lambda: TextEnv(make_task(), **of_env),
        lambda count: TextVectorEnv(make_task(), count, **of_env),
        make_split,
        "reward" not in arguments,
    )
