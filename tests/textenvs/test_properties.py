"""Any task, any sizes, any actions, in any order of reset and step: what must hold does hold.

A plain model of what the environment promises runs beside it; hypothesis chooses the task, its sizes, the seeds and the
order of calls, and a generator seeded by it the single actions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from textenvs import TextEnv, TextVectorEnv, Vocab
from textenvs.rng import PROMPT_STREAM, episode_keys, stream_base
from textenvs.tasks import TASKS, make_task


def whole(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


COPYING = st.fixed_dictionaries(
    {"length": whole(2, 6), "num_symbols": whole(2, 9)}, optional={"min_length": whole(1, 2)}
)
HIDDEN = st.fixed_dictionaries({"length": whole(1, 8), "num_symbols": whole(2, 9), "task_seed": whole(0, 9)})
DISTINCT = st.fixed_dictionaries({"length": whole(2, 4), "num_symbols": whole(4, 8)})
BRACKETS = st.fixed_dictionaries({"length": whole(1, 4), "num_kinds": whole(2, 5)})
GRAPH = st.fixed_dictionaries(
    {"num_nodes": whole(6, 12), "max_steps": whole(4, 9), "edge_probability": st.just(0.3), "task_seed": whole(0, 9)}
)
NOTHING = st.just({})
SIZES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "Copy": COPYING,
    "Reverse": COPYING,
    "Sort": COPYING,
    "HiddenTarget": HIDDEN,
    "PrefixLock": HIDDEN,
    "Keywords": st.fixed_dictionaries(
        {"length": whole(3, 8), "num_symbols": whole(3, 9), "num_keywords": whole(1, 3), "task_seed": whole(0, 9)}
    ),
    "BitModes": st.fixed_dictionaries({"length": whole(2, 8), "num_modes": whole(1, 2), "task_seed": whole(0, 9)}),
    "Dyck": BRACKETS,
    "DyckMasked": BRACKETS,
    "Palindrome": DISTINCT,
    "PalindromeMasked": DISTINCT,
    "Anagram": DISTINCT,
    "AnagramMasked": DISTINCT,
    "ModSum": st.fixed_dictionaries({"length": whole(1, 4), "num_symbols": whole(2, 9)}),
    "Addition": st.fixed_dictionaries({"digits": whole(1, 5)}),
    "Countdown": st.fixed_dictionaries(
        {"num_numbers": whole(2, 4), "max_number": whole(2, 20), "max_target": whole(40, 120)}
    ),
    "RandomWalk": GRAPH,
    "RandomWalkMasked": GRAPH,
    "NoisyReverse": st.fixed_dictionaries({"length": whole(2, 5), "noise": st.sampled_from([0.0, 0.1, 0.4])}),
    "RewardSwap": st.fixed_dictionaries({"swap_at": whole(0, 4), "length": whole(1, 5), "num_symbols": whole(2, 9)}),
    "Deceptive": st.fixed_dictionaries({"length": whole(1, 6), "num_symbols": whole(2, 6), "lure": st.just(0.5)}),
    "Prompts": st.fixed_dictionaries(
        {
            "prompts": st.lists(
                st.fixed_dictionaries(
                    {"prompt": st.text("ab c", min_size=1, max_size=4), "completion": st.text("ab", max_size=6)}
                ),
                min_size=1,
                max_size=8,
            ),
            "tokenizer": st.sampled_from(["characters", "bytes"]),
            "max_new_tokens": whole(1, 4),
        }
    ),
    **{name: NOTHING for name in TASKS if name.startswith("Probe")},
}
LARGE: dict[str, st.SearchStrategy[dict[str, Any]]] = {  # each played less often
    "LongCopy": st.fixed_dictionaries(
        {"length": whole(128, 131), "num_symbols": whole(2, 70)}, optional={"min_length": whole(126, 128)}
    ),
    "BigVocab": st.fixed_dictionaries(
        {
            "length": whole(1, 6),
            "num_symbols": whole(4_096, 9_999),
            "num_keywords": st.just(1),
            "task_seed": whole(0, 9),
        }
    ),
    "TinyReviews": st.fixed_dictionaries({"max_new_tokens": whole(6, 12)}),
    "ReasoningGym": st.fixed_dictionaries(
        {"dataset": st.sampled_from(["chain_sum", "letter_counting"]), "size": whole(1, 9), "test_size": whole(1, 9)}
    ),
}

episodes_played = 0


@dataclass
class Model:
    """What each of N sub-environments has promised so far."""

    task: Any
    seeds: np.ndarray
    episode: np.ndarray = field(init=False)
    rows: np.ndarray = field(init=False)
    written: np.ndarray = field(init=False)
    over: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        count, width = len(self.seeds), self.task.prompt_length + self.task.max_new_tokens
        self.episode = np.full(count, -1)
        self.rows = np.full((count, width), self.task.pad_id)
        self.written = np.zeros(count, dtype=np.int64)
        self.over = np.zeros(count, dtype=bool)

    def begin(self, which: np.ndarray, prompts: np.ndarray | None = None) -> None:
        """The next prompt of each depends on its seed and the episode's number alone, unless it was asked for."""
        self.episode[which] += 1
        if prompts is None:
            keys = episode_keys(stream_base(self.seeds.astype(np.uint64), PROMPT_STREAM), self.episode)
            prompts, _ = self.task.draw_episodes(keys, self.episode)
        self.rows[which] = self.task.pad_id
        self.rows[which, : self.task.prompt_length] = prompts[which]
        self.written[which], self.over[which] = 0, False

    def write(self, actions: np.ndarray, masks: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns who ended, and whose action was illegal."""
        rows = np.flatnonzero(which)
        illegal = np.zeros(len(which), dtype=bool)
        illegal[rows] = ~masks[rows, actions[rows]]
        self.rows[rows, self.task.prompt_length + self.written[rows]] = actions[rows]
        self.written[rows] += 1
        ended = which & (
            illegal | np.isin(actions, self.task.vocab.eos_ids) | (self.written == self.task.max_new_tokens)
        )
        return ended, illegal


def check_step(envs: TextVectorEnv, model: Model, rng: np.random.Generator) -> None:
    """One step of all sub-environments, partly legal and partly anything."""
    global episodes_played
    task, count = model.task, len(model.seeds)
    masks = envs.action_masks()
    assert masks.any(axis=1).all()
    legal = np.where(masks, rng.random(masks.shape), -1.0).argmax(axis=1)
    actions = np.where(rng.random(count) < 0.8, legal, rng.integers(task.pad_id, size=count))
    waiting = model.over.copy()  # only in NEXT_STEP mode: these are reset by this step
    obs, rewards, terminations, truncations, infos = envs.step(actions)
    model.begin(waiting)
    ended, illegal = model.write(actions, masks, ~waiting)
    assert np.array_equal(terminations, ended)
    assert not truncations.any()
    assert (rewards[~ended] == 0).all()
    final, final_rows = infos, obs
    if envs.autoreset_mode == AutoresetMode.SAME_STEP:
        final, final_rows = infos.get("final_info", {}), infos.get("final_obs")
    assert ("length" in final) == ended.any()
    if ended.any():
        check_ends(envs, model, final, final_rows, rewards, ended, illegal)
    if envs.autoreset_mode == AutoresetMode.SAME_STEP:
        model.begin(ended)
    else:
        model.over = ended
    assert np.array_equal(obs, model.rows)
    assert obs in envs.observation_space
    if task.has_masks:
        assert np.array_equal(infos["action_mask"].astype(bool), envs.action_masks())
        assert infos["_action_mask"].all()
    episodes_played += int(ended.sum())


def check_ends(
    envs: TextVectorEnv,
    model: Model,
    final: dict[str, Any],
    final_rows: np.ndarray,
    rewards: np.ndarray,
    ended: np.ndarray,
    illegal: np.ndarray,
) -> None:
    """One score for each text that ended by the rules, and none for the others."""
    scored = ended & ~illegal
    assert np.array_equal(final_rows[ended], model.rows[ended])
    assert np.array_equal(final["_length"], ended)
    assert np.array_equal(final["length"][ended], model.written[ended])
    assert np.array_equal(final.get("_score", np.zeros_like(ended)), scored)
    if scored.any():
        assert np.array_equal(final["score"][scored], rewards[scored])
        assert (envs.judge.low <= rewards[scored]).all()
        assert (rewards[scored] <= envs.judge.high).all()
    assert (rewards[ended & illegal] == envs.judge.low).all()
    last = model.rows[np.arange(len(ended)), model.task.prompt_length + model.written - 1]
    stops = np.isin(last, model.task.vocab.eos_ids)
    expected = np.where(illegal, "invalid", np.where(stops, "stop", "length"))
    assert final["finish_reason"][ended].tolist() == expected[ended].tolist()


def make_or_reject(name: str, sizes: dict[str, Any], split: str) -> Any:
    """The task; sizes that cannot be (too few prompts for a test split, …) are not tried, any other error is one."""
    try:
        return make_task(name, split=split, **sizes)
    except ValueError as error:
        refusals = ("too few for a test split", "no test split", "must be between", "must be at least", "on none of",
                    "is left in the", "is also a training problem")  # fmt: skip
        if not any(refusal in str(error) for refusal in refusals):
            raise
    reject()


def check_chosen_prompts(envs: TextVectorEnv, model: Model, call: str, rng: np.random.Generator) -> None:
    """``reset`` with prompts of one's own choice, as rows, as texts or by their numbers."""
    task, count = model.task, len(model.seeds)
    prompts, index = task.draw(rng.integers(2**62, size=count).astype(np.uint64))
    options: dict[str, Any] = {"prompt": list(prompts)}
    if call == "index" and (index >= 0).all():
        options = {"index": index}
    elif call == "text" and type(task.vocab) is Vocab:
        options = {"prompt": task.vocab.decode_rows(prompts)}
    if not task.has_prompts:
        with pytest.raises(ValueError, match="has no prompts, so reset takes neither"):
            envs.reset(options=options)
        return
    obs, _ = envs.reset(options=options)
    model.begin(np.ones(count, dtype=bool), prompts)
    assert np.array_equal(obs, model.rows)


CALLS = ["steps"] * 4 + ["reset", "seed", "seeds", "some", "bad", "state", "prompt", "index", "text"]


def any_of(sizes: dict[str, st.SearchStrategy[dict[str, Any]]]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.sampled_from(sorted(sizes)).flatmap(lambda name: st.tuples(st.just(name), sizes[name]))


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(
    setting=any_of(SIZES),
    split=st.sampled_from(["train", "train", "test"]),
    mode=st.sampled_from(list(AutoresetMode)),
    seed=st.integers(0, 2**63),
    calls=st.lists(st.sampled_from(CALLS), min_size=4),
)
def play(setting: tuple[str, dict[str, Any]], split: str, mode: AutoresetMode, seed: int, calls: list[str]) -> None:
    play_any(setting, split, mode, seed, calls)


def play_any(setting: tuple[str, dict[str, Any]], split: str, mode: AutoresetMode, seed: int, calls: list[str]) -> None:
    task = make_or_reject(*setting, split)
    count = 1 + seed % 7
    envs = TextVectorEnv(task, count, autoreset_mode=mode)
    rng = np.random.default_rng(seed)
    with pytest.raises(ResetNeeded):
        envs.step(np.zeros(count, dtype=np.int64))
    everyone = np.ones(count, dtype=bool)
    obs, _ = envs.reset(seed=seed)
    model = Model(task, np.array([(seed + i) % 2**64 for i in range(count)], dtype=np.uint64))
    model.begin(everyone)
    assert np.array_equal(obs, model.rows)
    for call in calls:
        if call == "steps":
            for _ in range(rng.integers(1, 25)):
                check_step(envs, model, rng)
                if mode == AutoresetMode.DISABLED and model.over.any():
                    with pytest.raises(ResetNeeded):
                        envs.step(np.zeros(count, dtype=np.int64))
                    obs, _ = envs.reset(options={"reset_mask": model.over.copy()})
                    model.begin(model.over.copy())
                    assert np.array_equal(obs, model.rows)
            continue
        if call == "bad":
            if not model.over.all():
                wrong = np.full(count, task.pad_id if seed % 2 else -1)
                with pytest.raises(
                    InvalidAction if mode != AutoresetMode.DISABLED or not model.over.any() else ResetNeeded
                ):
                    envs.step(wrong)
            continue
        if call == "state":
            envs.set_state(envs.get_state())
            continue
        if call in ("prompt", "index", "text"):
            check_chosen_prompts(envs, model, call, rng)
            continue
        which, seeds = everyone, None
        options: dict[str, Any] = {}
        if call == "seed":
            seeds = seed // 2
            model.seeds = np.array([seeds + i for i in range(count)], dtype=np.uint64)
        elif call == "seeds":
            seeds = [None if rng.random() < 0.5 else int(rng.integers(2**40)) for _ in range(count)]
            given_seeds = np.array([each is not None for each in seeds])
            model.seeds = np.array([s if e is None else e for s, e in zip(model.seeds, seeds, strict=True)], np.uint64)
            model.episode[given_seeds] = -1
        elif call == "some" and mode == AutoresetMode.DISABLED:
            which = (rng.random(count) < 0.3) | (np.arange(count) == 0)
            options = {"reset_mask": which}
        if call == "seed":
            model.episode[:] = -1
        obs, _ = envs.reset(seed=seeds, options=options)
        model.begin(which)
        assert np.array_equal(obs, model.rows)


def test_ten_thousand_episodes():
    global episodes_played
    episodes_played = 0
    play()
    assert episodes_played >= 10_000


@pytest.mark.parametrize("name", sorted(LARGE))
def test_the_large_ones(name):
    if name == "ReasoningGym":
        pytest.importorskip("reasoning_gym", reason="reasoning-gym is an extra")

    @settings(max_examples=10, suppress_health_check=list(HealthCheck))
    @given(
        sizes=LARGE[name],
        split=st.sampled_from(["train", "test"]),
        mode=st.sampled_from(list(AutoresetMode)),
        seed=st.integers(0, 2**63),
        calls=st.lists(st.sampled_from(CALLS), min_size=4, max_size=12),
    )
    def play_it(sizes: dict[str, Any], **others: Any) -> None:
        play_any((name, sizes), **others)

    before = episodes_played
    play_it()
    # At default sizes too, which may be larger still, for two texts.
    envs = TextVectorEnv(name, 3)
    envs.reset(seed=4)
    model = Model(envs.task, np.array([4, 5, 6], dtype=np.uint64))
    model.begin(np.ones(3, dtype=bool))
    rng = np.random.default_rng(0)
    for _ in range(2 * envs.text_spec.max_new_tokens):
        check_step(envs, model, rng)
    assert episodes_played >= before + 6


def test_every_task_is_among_them():
    assert {*SIZES, *LARGE} == set(TASKS)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    setting=any_of(SIZES),
    seed=st.integers(0, 2**63),
    calls=st.lists(st.sampled_from(["step"] * 8 + ["reset", "seed", "bad"]), max_size=40),
)
def test_a_single_environment_in_any_order(setting, seed, calls):
    """The same episodes as sub-environment 0 of a vector environment, and the errors that the contract names."""
    env = TextEnv(make_or_reject(*setting, "train"))
    envs = TextVectorEnv(env.task, 2, autoreset_mode="Disabled")
    rng = np.random.default_rng(seed)
    over = True
    for call in ["early", "seed", *calls]:
        if call in ("early", "step") and over:
            with pytest.raises(ResetNeeded):
                env.step(0)
            if call == "step":
                call = "reset"
        if call == "bad" and not over:
            for wrong in (-1, env.task.pad_id, 0.5, [0, 0], "0", None):
                with pytest.raises(InvalidAction):
                    env.step(wrong)
        elif call == "step":
            action = int(rng.integers(env.task.pad_id))
            obs, reward, over, truncated, _ = env.step(action)
            theirs = envs.step(np.array([action, action]))
            assert (reward, over, truncated) == (theirs[1][0], theirs[2][0], False)
            assert np.array_equal(obs, theirs[0][0])
            if theirs[2][1] and not over:  # after another prompt the same action may have ended the text
                envs.reset(options={"reset_mask": np.array([False, True])})
        elif call in ("reset", "seed"):
            given_seed = seed if call == "seed" else None
            obs, _ = env.reset(seed=given_seed)
            assert np.array_equal(obs, envs.reset(seed=given_seed)[0][0])
            over = False
