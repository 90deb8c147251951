"""Faults that show when an environment is played: rows, ends, rewards, seeds, copies."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import InvalidAction, ResetNeeded

NUM_EPISODES = 8
NUM_STEPS = 200
"""Steps of a play that is compared with another one, at most."""

Make = Callable[[], gym.Env[Any, Any]]
Trace = list[tuple[Any, ...]]
"""Of each reset or step: observation, reward, terminated, truncated, and what the info says of the end."""


class Player:
    """Plays an environment with random actions, legal but for one in eight; the same seed plays the same actions.

    Args:
        env: the environment.
        seed: of its first reset.
        rng_seed: of the actions.
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int, rng_seed: int = 0) -> None:
        self.env = env
        self.rng = np.random.default_rng(rng_seed)
        self.trace: Trace = []
        self.over = True
        self.seed: int | None = seed

    def play(self, num_steps: int) -> Trace:
        """Go on for so many resets and steps; all that was seen so far."""
        for _ in range(num_steps):
            if self.over:
                obs, info = self.env.reset(seed=self.seed)
                self.seed, self.over = None, False
                self._note(obs, 0.0, False, False, info)
            else:
                obs, reward, terminated, truncated, info = self.env.step(self.action())
                self.over = bool(terminated or truncated)
                self._note(obs, float(reward), terminated, truncated, info)
        return self.trace

    def action(self) -> int:
        """A random action."""
        base: Any = self.env.unwrapped
        legal = np.asarray(base.action_masks(), dtype=np.bool_)
        return choose(legal[None], self.rng)[0].item()

    def _note(self, obs: Any, reward: float, terminated: bool, truncated: bool, info: dict[str, Any]) -> None:
        mask = info.get("action_mask")
        seen = {name: info.get(name) for name in ("score", "gold_score", "length", "finish_reason")}
        self.trace.append(
            (np.array(obs).tolist(), reward, terminated, truncated, seen, None if mask is None else mask.tolist())
        )


def choose(legal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random actions [N] for masks [N, V]: uniform legal ones, and one time in eight any."""
    liked = legal | (rng.random((len(legal), 1)) < 1 / 8)
    return np.where(liked, rng.random(legal.shape), -1.0).argmax(axis=1)


def episode_faults(make: Make) -> Iterator[str]:
    """Whole episodes against the rules, written down here once more: the row, its padding, the end, the reward."""
    env = make()
    base: Any = env.unwrapped
    task, spec = base.task, base.text_spec
    first, pad_id = spec.prompt_length, spec.pad_id
    rng = np.random.default_rng(1)
    given: list[tuple[str, Any, np.ndarray]] = []
    for episode in range(NUM_EPISODES):
        obs, info = env.reset(seed=3 if not episode else None)
        expected = np.full(first + spec.max_new_tokens, pad_id, dtype=np.int64)
        expected[:first] = np.asarray(obs)[:first]
        paid, over, written = 0.0, False, 0
        while True:
            fault = _row_fault(env, obs, expected, written, info, spec.has_masks)
            if fault:
                yield fault
                return
            given += [("an observation", obs, obs.copy())]
            if spec.has_masks:
                given += [("an action mask", info["action_mask"], info["action_mask"].copy())]
            if over:
                break
            legal = np.asarray(base.action_masks(), dtype=np.bool_)
            action = choose(legal[None], rng)[0].item()
            obs, reward, terminated, truncated, info = env.step(action)
            expected[first + written] = action
            written += 1
            paid += float(reward)
            reason = _reason(action, written, legal, spec)
            over = reason is not None
            if bool(terminated) != over or truncated:
                yield (
                    f"after {written} tokens, the last {action}, the step says terminated={terminated}, "
                    f"truncated={truncated}; the rules say terminated={over}, truncated=False"
                )
                return
            if not over and reward != 0:
                yield f"a step before the end paid {reward:g}: the score is paid once, by the last step"
                return
        text = task.vocab.decode(expected[first:].tolist())
        for name, value in (("finish_reason", reason), ("length", written)):
            if info.get(name) != value:
                yield f"the text {text!r:.100} ended with {name}={info.get(name)!r}; it should be {value!r}"
        if reason == "invalid":
            if "score" in info:
                yield "an illegal action ended the text, and it was scored all the same"
        elif "score" not in info:
            yield "the last info has no 'score'"
        elif not np.isclose(paid, info["score"]):
            yield f"the episode paid {paid:g}, its score is {info['score']:g}: the score is paid once, and nothing else"
        elif not np.isclose(info["score"], _judged_again(base, expected, written, reason, info)):
            again = _judged_again(base, expected, written, reason, info)
            yield f"the text {text!r:.100} has the score {info['score']:g}; its reward model gives it {again:g}"
        yield from _misuse_faults(env, pad_id)
    changed = [name for name, array, before in given if not np.array_equal(array, before)]
    if changed:
        yield f"{changed[0]} that was given before changes while the environment goes on: give copies"


def option_faults(make: Make) -> Iterator[str]:
    """What ``reset(options=…)`` must take, and what it must refuse."""
    env = make()
    base: Any = env.unwrapped
    task, width = base.task, base.text_spec.prompt_length
    try:
        env.reset(seed=9, options={"nonsense": 1})
    except (TypeError, ValueError):
        pass
    else:
        yield "reset(options={'nonsense': 1}) must raise: an option that is not known must not go unnoticed"
    if not task.has_prompts:
        return
    wanted, index = (array[0] for array in task.draw(np.array([12_345], dtype=np.uint64)))
    options: dict[str, Any] = {"prompt": wanted.copy()}
    if index >= 0:
        options["index"] = int(index)
    for name, value in options.items():
        obs, _ = env.reset(seed=9, options={name: value})
        if not np.array_equal(obs[:width], wanted):
            yield (
                f"reset(options={{{name!r}: {value if name == 'index' else value.tolist()}}}) must begin with the "
                f"prompt {wanted.tolist()}; it begins with {np.asarray(obs)[:width].tolist()}"
            )


def seed_faults(make: Make) -> Iterator[str]:
    """The same seed gives the same episodes, whatever else is random or played meanwhile."""

    def play(global_seed: int) -> tuple[Trace, bool]:
        random.seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002
        player = Player(make(), 5)
        before = _global_state()
        return player.play(NUM_STEPS), _global_state() != before

    trace, touched = play(1)
    same, other = play(1)[0], play(2)[0]
    if touched:
        yield "playing draws from the global random state (random or numpy.random), which belongs to others"
    if trace != same:
        yield f"two environments with the same seed play different episodes: {difference(trace, same)}"
        return
    if trace != other:
        yield f"episodes depend on the global random state: {difference(trace, other)}"
        return
    env = make()
    Player(env, 6).play(NUM_STEPS // 2)
    again = Player(env, 5).play(NUM_STEPS)
    if trace != again:
        yield f"reset(seed=…) does not begin anew after other episodes: {difference(trace, again)}"
    # Step by step beside another one.
    mine, others = Player(make(), 5), Player(make(), 6, rng_seed=1)
    for _ in range(NUM_STEPS):
        mine.play(1)
        others.play(1)
    if mine.trace != trace:
        yield f"two environments played in turn disturb each other: {difference(trace, mine.trace)}"
    base: Any = make().unwrapped
    if base.task.has_prompts:
        prompts = {np.asarray(base.reset(seed=seed)[0]).tobytes() for seed in range(32)}
        if len(prompts) == 1 and len(np.unique(base.task.draw(np.arange(256, dtype=np.uint64))[0], axis=0)) > 1:
            yield "all seeds begin with the same prompt"


def copy_faults(make: Make) -> Iterator[str]:
    """Copies of an environment in the middle of an episode go on as it does, and apart from it."""
    expected = Player(make(), 7).play(NUM_STEPS)
    duplicates: tuple[tuple[str, Callable[[Any], Any]], ...] = (
        ("deep copy", copy.deepcopy),
        ("pickled copy", lambda env: pickle.loads(pickle.dumps(env))),
    )
    for name, duplicate in duplicates:
        original = Player(make(), 7)
        original.play(NUM_STEPS // 3)
        try:
            twin = duplicate(original.env.unwrapped)
        except Exception as error:
            yield f"a {name} cannot be made in the middle of an episode: {type(error).__name__}: {error}"
            continue
        copied = Player(twin, 7)
        copied.__dict__ |= {
            "rng": copy.deepcopy(original.rng), "trace": list(original.trace), "over": original.over, "seed": None,
        }  # fmt: skip
        rest = NUM_STEPS - NUM_STEPS // 3
        gone_on = copied.play(rest)
        if gone_on != expected:
            yield f"a {name} goes on differently: {difference(expected, gone_on)}"
        elif original.play(rest) != expected:
            yield f"playing a {name} changes the original, they share state: {difference(expected, original.trace)}"


def vector_faults(make: Make, make_vector: Callable[[int], Any] | None, num_envs: int = 4) -> Iterator[str]:
    """Sub-environment i of a vector environment seeded with s plays the episodes of a scalar one seeded with s + i."""
    if make_vector is None:
        return
    envs = make_vector(num_envs)
    singles = [make() for _ in range(num_envs)]
    bases: list[Any] = [env.unwrapped for env in singles]
    obs, _ = envs.reset(seed=8)
    for i, env in enumerate(singles):
        row, _ = env.reset(seed=8 + i)
        if not np.array_equal(row, obs[i]):
            yield f"reset: the vector environment shows {obs[i].tolist()}, the scalar one {np.asarray(row).tolist()}"
            return
    rng = np.random.default_rng(2)
    shown = [(obs, obs.copy())]
    for _ in range(NUM_STEPS // 4):
        masks = envs.unwrapped.action_masks()
        expected = np.stack([np.asarray(base.action_masks()) for base in bases])
        if not np.array_equal(masks, expected):
            yield "the vector environment allows other actions than scalar ones in the same states"
            return
        actions = choose(masks, rng)
        obs, rewards, terminations, _, infos = envs.step(actions)
        shown.append((obs, obs.copy()))
        for i, env in enumerate(singles):
            row, reward, terminated, _, info = env.step(actions[i].item())
            theirs = infos["final_obs"][i] if terminations[i] else obs[i]
            same = np.array_equal(row, theirs) and reward == rewards[i] and terminated == terminations[i]
            if same and terminated:
                final = infos["final_info"]
                same = final["finish_reason"][i] == info["finish_reason"]
                same = same and _score(final, i) == info.get("score")
                row, _ = env.reset()
                same = same and np.array_equal(row, obs[i])
            if not same:
                yield (
                    f"the vector environment plays other episodes than scalar ones: after {np.asarray(row).tolist()} "
                    f"with reward {reward:g} it has {np.asarray(theirs).tolist()} with {rewards[i]:g}"
                )
                return
    if not all(np.array_equal(array, before) for array, before in shown):
        yield "observations that the vector environment gave before change while it goes on: give copies"


def _score(final: dict[str, Any], i: int) -> float | None:
    """Score of sub-environment i in a vector info; None if it has none."""
    return float(final["score"][i]) if "score" in final and final["_score"][i] else None


def _global_state() -> tuple[Any, ...]:
    state: Any = np.random.get_state()  # noqa: NPY002
    return random.getstate(), state[1].tolist(), state[2]


def difference(one: Trace, two: Trace) -> str:
    """Where two plays part, in words."""
    names = ("observation", "reward", "terminated", "truncated", "end", "mask")
    for i, (left, right) in enumerate(zip(one, two, strict=True)):
        for name, a, b in zip(names, left, right, strict=True):
            if a != b:
                return f"{name} {i} is {a!r:.100} and {b!r:.100}"
    return "nowhere"


def _row_fault(
    env: Any, obs: Any, expected: np.ndarray, written: int, info: dict[str, Any], has_masks: bool
) -> str | None:
    if not isinstance(obs, np.ndarray) or obs.dtype != np.int64 or obs not in env.observation_space:
        return f"an observation must be int64 and lie in the observation space; got {obs!r:.200}"
    if not np.array_equal(obs, expected):
        return (
            f"wrong padding or tokens: after {written} tokens the observation should be {expected.tolist()} (prompt, "
            f"what was written, padding); it is {obs.tolist()}"
        )
    if has_masks != ("action_mask" in info):
        return "info has 'action_mask' if and only if the task has masks, at reset and every step"
    if has_masks:
        mask = info["action_mask"]
        legal = env.unwrapped.action_masks()
        if mask.dtype != np.int8 or not np.array_equal(mask != 0, legal):
            return f"info['action_mask'] must be int8 and say what action_masks() says; it is {mask!r:.100}"
        if not legal.any():
            return f"no action is legal after {obs.tolist()}"
    return None


def _reason(action: int, written: int, legal: np.ndarray, spec: Any) -> str | None:
    """Why the text is over; None if it is not."""
    if not legal[action]:
        return "invalid"
    if action in spec.eos_ids:
        return "stop"
    return "length" if written == spec.max_new_tokens else None


def _judged_again(base: Any, row: np.ndarray, written: int, reason: str | None, info: dict[str, Any]) -> float:
    from textenvs.engine import episodes_from_rows

    episodes = episodes_from_rows(
        base.task,
        row[None],
        lengths=np.array([written]),
        finish_reason=np.array([reason], dtype=object),
        key=np.array([info["key"]], dtype=np.uint64),
        prompt_index=np.array([info["prompt_index"]]),
    )
    return float(base.judge(episodes).total[0])


def _misuse_faults(env: Any, pad_id: int) -> Iterator[str]:
    """After the end, and with what is no action."""
    try:
        env.step(0)
    except ResetNeeded:
        pass
    else:
        yield "step() after the end of an episode must raise gymnasium.error.ResetNeeded"
    env.reset()
    try:
        env.step(pad_id)
    except InvalidAction:
        pass
    else:
        yield f"step({pad_id}), padding, must raise gymnasium.error.InvalidAction: it is no action"
