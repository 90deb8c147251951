"""Trees of texts and exact problems against lists made by hand, closed forms, brute force and the environment."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textenvs import TextEnv, TextVectorEnv
from textenvs.exact import ExactProblem, uniform_policy
from textenvs.regularised import best_of_n_bound, kl_divergence
from textenvs.tasks import Task, make_task
from textenvs.text_tree import TextTree, count_texts


def random_policy(seed: int, num_tokens: int, sharpness: float = 1.0) -> Any:
    """A policy whose log-probabilities depend on the whole row, without any structure, and heed the mask."""

    def next_logprobs(rows: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        answers = np.empty((len(rows), num_tokens))
        for i, row in enumerate(rows.tolist()):
            answers[i] = np.random.default_rng([seed, *row]).normal(size=num_tokens) * sharpness
        if masks is not None:
            answers[~masks] = -np.inf
        return answers - np.log(np.exp(answers).sum(1, keepdims=True))

    return next_logprobs


def play_all(make: Any, policy: Any, prompt: Any = None) -> dict[tuple[int, ...], tuple[float, float]]:
    """Every text that the environment itself lets one write: its probability and its score. Brute force, one step a
    time through the public interface."""
    found: dict[tuple[int, ...], tuple[float, float]] = {}
    env = make()
    options = None if prompt is None else {"index": prompt}

    def walk(actions: tuple[int, ...], probability: float) -> None:
        obs, _ = env.reset(seed=0, options=options)
        score = None
        for action in actions:
            obs, _, over, _, info = env.step(action)
            score = info.get("score") if over else None
        if score is not None:
            found[actions] = (probability, score)
            return
        legal = env.unwrapped.action_masks()
        masks = legal[None] if env.unwrapped.text_spec.has_masks else None
        chances = np.exp(policy(obs[None], masks)[0])
        for action in np.flatnonzero(legal).tolist():
            walk((*actions, action), probability * chances[action])

    walk((), 1.0)
    return found


# -- trees -------------------------------------------------------------------------------------------------------------


def test_texts_of_a_tiny_tree_by_hand() -> None:
    tree = TextTree(make_task("HiddenTarget", length=2, num_symbols=2))
    assert tree.texts() == ["00", "01", "10", "11"]
    assert tree.rows().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert tree.lengths.tolist() == [2, 2, 2, 2]


def test_texts_that_end_early_come_first() -> None:
    task = make_task("Copy", length=2, num_symbols=2, min_length=1)  # EOS is 2, padding 3, T = 3
    tree = TextTree(task, np.array([3, 1]))
    assert len(tree) == count_texts(3, 1, 3) == 1 + 2 + 4 * 3
    assert tree.lengths.tolist() == [1] + [2] * 2 + [3] * 12
    assert tree.rows(slice(0, 5)).tolist() == [
        [3, 1, 2, 3, 3],
        [3, 1, 0, 2, 3],
        [3, 1, 1, 2, 3],
        [3, 1, 0, 0, 0],
        [3, 1, 0, 0, 1],
    ]
    assert tree.texts(np.array([0, 2, 14])) == ["", "1", "11"]


def test_masks_leave_out_what_is_illegal(masked_task: type[Task]) -> None:
    """Never a symbol twice in a row, EOS not first; EOS itself may follow anything."""
    task = masked_task(num_symbols=2, length=3)
    tree = TextTree(task, np.array([0]))
    assert tree.rows()[:, 1:].tolist() == [[0, 2, 3], [1, 2, 3], [0, 1, 0], [0, 1, 2], [1, 0, 1], [1, 0, 2]]


@pytest.mark.parametrize(
    ("num_tokens", "num_eos", "budget", "count"),
    [(8, 0, 6, 262_144), (2, 0, 20, 1_048_576), (3, 1, 1, 3), (3, 1, 2, 7), (5, 2, 3, 2 + 6 + 9 * 5)],
)
def test_number_of_texts(num_tokens: int, num_eos: int, budget: int, count: int) -> None:
    assert count_texts(num_tokens, num_eos, budget) == count


@given(st.integers(0, 99), st.integers(1, 7))
@settings(max_examples=20)
def test_blocks_change_nothing(seed: int, block_size: int) -> None:
    task = make_task("HiddenTarget", length=3, num_symbols=3)
    whole, pieces = TextTree(task), TextTree(task, block_size=block_size)
    policy = random_policy(seed, 3)
    assert np.array_equal(whole.rows(), pieces.rows())
    assert np.allclose(whole.logprobs(policy), pieces.logprobs(policy), atol=1e-12)


def test_a_policy_is_asked_once_for_each_level_and_sees_prefixes_of_one_length() -> None:
    seen = []

    def policy(rows: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
        seen.append(rows)
        return uniform_policy(3)(rows, masks)

    TextTree(make_task("HiddenTarget", length=3, num_symbols=3)).logprobs(policy)
    assert [len(rows) for rows in seen] == [1, 3, 9]
    assert [np.unique((rows != 3).sum(1)).tolist() for rows in seen] == [[0], [1], [2]]
    assert all(rows.dtype == np.int64 for rows in seen)


@given(st.integers(0, 99), st.booleans())
@settings(max_examples=20)
def test_a_distribution_over_texts_and_its_policy_are_one(seed: int, with_zeros: bool) -> None:
    task = make_task("Copy", length=2, num_symbols=3, min_length=1)
    tree = TextTree(task, np.array([0, 1]))
    rng = np.random.default_rng(seed)
    weights = rng.gamma(0.5, size=len(tree)) * (rng.random(len(tree)) < 0.4 if with_zeros else 1)
    weights[0] += 1e-3
    with np.errstate(divide="ignore"):
        logprobs = np.log(weights / weights.sum())
    assert np.allclose(np.exp(tree.logprobs(tree.policy(logprobs))), np.exp(logprobs), atol=1e-12)


def test_a_table_answers_for_its_prompt_only() -> None:
    tree = TextTree(make_task("Reverse", length=2, num_symbols=4), np.array([0, 1]))
    policy = tree.policy(np.full(16, -np.log(16)))
    with pytest.raises(ValueError, match="a table for one prompt"):
        policy(np.array([[1, 1, 4, 4]]), None)


# -- problems ----------------------------------------------------------------------------------------------------------

PROBLEMS: dict[str, dict[str, Any]] = {
    "no prompt": {"task": "PrefixLock", "length": 3, "num_symbols": 3},
    "EOS": {"task": "Sort", "length": 2, "num_symbols": 3, "min_length": 1},
    "masks": {"task": "DyckMasked", "length": 2, "num_kinds": 3},
    "walks": {"task": "RandomWalkMasked", "num_nodes": 6, "edge_probability": 0.4, "max_steps": 3},
    "anagrams": {"task": "AnagramMasked", "length": 3, "num_symbols": 5},
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_figure_equals_that_of_playing_every_text(name: str) -> None:
    arguments = PROBLEMS[name]

    def make() -> TextEnv:
        return TextEnv(**arguments)

    env = make()
    prompts = [1, 0] if env.task.has_prompts else None
    num_tokens = env.text_spec.num_tokens
    reference, policy = random_policy(1, num_tokens), random_policy(2, num_tokens)
    problem = ExactProblem(env, reference, prompts=prompts)
    point = problem.evaluate(policy)

    rewards, kls, lengths, values = [], [], [], []
    for prompt in prompts or [None]:
        own, other = play_all(make, policy, prompt), play_all(make, reference, prompt)
        assert own.keys() == other.keys()
        rewards.append(sum(p * score for p, score in own.values()))
        kls.append(sum(p * np.log(p / other[text][0]) for text, (p, _) in own.items()))
        lengths.append(sum(p * len(text) for text, (p, _) in own.items()))
        values.append(0.2 * np.log(sum(p * np.exp(score / 0.2) for p, score in other.values())))
    assert problem.num_texts == sum(len(play_all(make, policy, prompt)) for prompt in prompts or [None])
    assert point.reward == pytest.approx(np.mean(rewards), abs=1e-6)  # scores are float32
    assert point.kl == pytest.approx(np.mean(kls), abs=1e-10)
    assert point.length == pytest.approx(np.mean(lengths), abs=1e-10)
    grade = problem.grade(policy, 0.2)
    assert grade.optimal == pytest.approx(np.mean(values), abs=1e-6)
    assert grade.regret == pytest.approx(grade.optimal - (np.mean(rewards) - 0.2 * np.mean(kls)), abs=1e-6)


def test_independent_positions_in_closed_form() -> None:
    """A hidden target of T symbols, a uniform reference: positions are independent, each right with probability
    exp(1/Tβ) / (exp(1/Tβ) + S − 1)."""
    problem = ExactProblem(TextEnv("HiddenTarget", length=4, num_symbols=5), uniform_policy(5))
    beta = 0.1
    weight = np.exp(1 / 4 / beta)
    right = weight / (weight + 4)
    kl = 4 * (right * np.log(right * 5) + (1 - right) * np.log((1 - right) / 4 * 5))
    point = problem.tilted(beta)
    assert problem.optimum == 1.0
    assert problem.reference.reward == pytest.approx(0.2, abs=1e-12)
    assert point.reward == pytest.approx(right, abs=1e-12)
    assert point.kl == pytest.approx(kl, abs=1e-12)
    assert problem.value(beta) == pytest.approx(4 * beta * np.log((weight + 4) / 5), abs=1e-12)
    assert problem.best.kl == pytest.approx(4 * np.log(5), abs=1e-12)
    assert (problem.best.reward, problem.best.length) == (1.0, 4.0)


def test_the_tilted_policy_has_no_regret_and_the_reference_closes_nothing() -> None:
    problem = ExactProblem(TextEnv("Reverse", length=2, num_symbols=4), random_policy(0, 4), prompts=[0, 5])
    tables = [tree.policy(logprobs) for tree, logprobs in zip(problem.trees, problem.tilted_logprobs(0.1), strict=True)]

    def tilted(rows: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
        number = next(i for i, tree in enumerate(problem.trees) if (tree.prompt_ids == rows[0, :2]).all())
        return tables[number](rows, masks)

    grade = problem.grade(tilted, 0.1)
    assert grade.regret == pytest.approx(0, abs=1e-12)
    assert grade.closed == pytest.approx(1, abs=1e-12)
    assert problem.grade(random_policy(0, 4), 0.1).closed == pytest.approx(0, abs=1e-12)


def test_the_frontier_rises_and_nothing_lies_above_it() -> None:
    problem = ExactProblem(TextEnv("PrefixLock", length=3, num_symbols=3), random_policy(0, 3))
    frontier = problem.frontier()
    assert len(frontier) == 43
    kls, rewards = (np.array([getattr(point, name) for point in frontier]) for name in ("kl", "reward"))
    assert (np.diff(kls) >= -1e-12).all()
    assert (np.diff(rewards) >= -1e-12).all()
    slopes = np.diff(rewards)[np.diff(kls) > 1e-6] / np.diff(kls)[np.diff(kls) > 1e-6]
    assert (np.diff(slopes) <= 1e-9).all()  # concave
    for seed in range(30):
        point = problem.evaluate(random_policy(seed, 3, sharpness=4.0))
        assert point.reward <= problem.reward_at(point.kl)


def test_the_highest_reward_at_a_kl_is_that_of_the_tilted_policy() -> None:
    problem = ExactProblem(TextEnv("PrefixLock", length=3, num_symbols=3), random_policy(0, 3))
    for beta in (0.05, 0.3, 2.0):
        point = problem.tilted(beta)
        assert problem.reward_at(point.kl) == pytest.approx(point.reward, abs=1e-8)
    assert problem.reward_at(problem.best.kl + 1) == problem.best.reward == 1.0
    assert problem.reward_at(0.0) == pytest.approx(problem.reference.reward, abs=1e-6)
    with pytest.raises(ValueError, match="A KL is not negative; got -1"):
        problem.reward_at(-1)


def test_best_of_n_lies_on_or_below_the_frontier_and_its_kl_within_the_bound() -> None:
    problem = ExactProblem(TextEnv("HiddenTarget", length=4, num_symbols=4), random_policy(3, 4))
    for n in (1, 2, 4, 16, 256):
        point = problem.best_of_n(n)
        assert point.kl <= best_of_n_bound(n) + 1e-12
        assert point.reward <= problem.reward_at(point.kl) + 1e-12
    assert problem.best_of_n(1).reward == pytest.approx(problem.reference.reward, abs=1e-12)


def test_equal_scores_leave_nothing_to_win() -> None:
    problem = ExactProblem(TextEnv("ProbeConstant"), random_policy(0, 2))
    assert problem.value(0.1) == pytest.approx(problem.reference.reward, abs=1e-12)
    assert problem.reward_at(0.5) == problem.reference.reward
    assert np.isnan(problem.grade(random_policy(1, 2), 0.1).closed)
    assert len(problem.frontier()) == 2


def test_gold_scores_are_weighed_too() -> None:
    reward = {"name": "gold", "proxy": "prefix", "gold": "match"}
    arguments: dict[str, Any] = {"task": "HiddenTarget", "length": 3, "num_symbols": 3}
    proxy = ExactProblem(TextEnv(**arguments, reward=reward), uniform_policy(3))
    gold = ExactProblem(TextEnv(**arguments, reward="match"), uniform_policy(3))
    policy = random_policy(4, 3)
    assert proxy.evaluate(policy).gold == pytest.approx(gold.evaluate(policy).reward, abs=1e-12)
    assert gold.evaluate(policy).gold is None
    assert proxy.evaluate(policy).reward < gold.evaluate(policy).reward


@pytest.mark.parametrize("case", range(20))
def test_exact_and_sampled_figures_agree(case: int) -> None:
    """Within three standard errors of 4,000 texts that the policy itself samples in the vector environment. (The
    seeds are fixed, so this passes always or never; of 40 honest comparisons 0.1 would fail.)"""
    name = list(PROBLEMS)[case % len(PROBLEMS)]
    arguments = PROBLEMS[name]
    num = 4_000
    envs = TextVectorEnv(num_envs=num, **arguments)
    num_tokens = envs.text_spec.num_tokens
    reference, policy = random_policy(case, num_tokens), random_policy(100 + case, num_tokens)
    prompts = [case % 3] if envs.task.has_prompts else None
    point = ExactProblem(envs, reference, prompts=prompts).evaluate(policy)

    rng = np.random.default_rng(case)
    obs, info = envs.reset(seed=case, options={"index": prompts * num} if prompts else None)
    scores, kls, lengths, over = (np.zeros(num), np.zeros(num), np.zeros(num), np.zeros(num, dtype=bool))
    cache: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}
    while not over.all():
        masks = info.get("action_mask")
        actions = np.zeros(num, dtype=np.int64)
        for i in np.flatnonzero(~over):
            key = tuple(obs[i].tolist())
            if key not in cache:
                legal = None if masks is None else masks[i : i + 1].astype(bool)
                cache[key] = (policy(obs[i : i + 1], legal)[0], reference(obs[i : i + 1], legal)[0])
            own, other = cache[key]
            actions[i] = rng.choice(num_tokens, p=np.exp(own) / np.exp(own).sum())
            kls[i] += own[actions[i]] - other[actions[i]]
        lengths += ~over
        obs, rewards, ended, _, info = envs.step(actions)
        scores += np.where(over, 0.0, rewards)  # the episodes that follow by themselves do not count
        over |= ended
    for sampled, exact in ((scores, point.reward), (kls, point.kl), (lengths, point.length)):
        error = sampled.std(ddof=1) / np.sqrt(num)
        assert abs(sampled.mean() - exact) <= 3 * error + 1e-9


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"task": "HiddenTarget", "length": 7, "num_symbols": 8}, "2,097,152"),
        ({"task": "BigVocab"}, r"about 10\^231"),
        ({"task": "LongCopy"}, r"about 10\^115"),
        ({"task": "DyckMasked", "length": 8}, "more than 1,"),
    ],
)
def test_too_many_texts_are_counted(arguments: dict[str, Any], count: str) -> None:
    env = TextEnv(**arguments)
    prompts = [0] if env.task.has_prompts else None
    match = rf"has {count}.* texts .* listed up to 1,048,576\. Make the texts shorter .* limit="
    with pytest.raises(ValueError, match=match):
        ExactProblem(env, uniform_policy(env.text_spec.num_tokens), prompts=prompts)


def test_the_limit_is_an_argument() -> None:
    env = TextEnv("HiddenTarget", length=3, num_symbols=3)
    assert ExactProblem(env, uniform_policy(3), limit=27).num_texts == 27
    with pytest.raises(ValueError, match=r"has 27 texts .* listed up to 26"):
        ExactProblem(env, uniform_policy(3), limit=26)
    masked = TextEnv("AnagramMasked", length=3, num_symbols=4)
    assert ExactProblem(masked, uniform_policy(4), prompts=[0], limit=6).num_texts == 6
    with pytest.raises(ValueError, match="has more than 5 texts"):
        ExactProblem(masked, uniform_policy(4), prompts=[0], limit=5)


def test_noise_has_no_exact_value() -> None:
    env = TextEnv("NoisyReverse", length=2, num_symbols=4)
    with pytest.raises(ValueError, match=r"'noise.*' does not say that it is deterministic.*without its noise"):
        ExactProblem(env, uniform_policy(4), prompts=[0])


def test_a_function_must_say_that_it_is_deterministic() -> None:
    env = TextEnv("HiddenTarget", length=2, num_symbols=2, reward=lambda completions: [0.0] * len(completions))
    with pytest.raises(ValueError, match="declare deterministic=True"):
        ExactProblem(env, uniform_policy(2))


def test_a_task_that_changes_has_no_exact_value() -> None:
    with pytest.raises(ValueError, match="RewardSwap changes from episode to episode"):
        ExactProblem(TextEnv("RewardSwap"), uniform_policy(8))


def test_another_vocabulary_is_refused() -> None:
    env = TextEnv("HiddenTarget", length=2, num_symbols=3)
    with pytest.raises(ValueError, match=r"\[1, 3\].*3 tokens of this environment; got \[1, 4\].*another vocabulary"):
        ExactProblem(env, uniform_policy(4))


def test_logits_are_no_log_probabilities() -> None:
    problem = ExactProblem(TextEnv("HiddenTarget", length=2, num_symbols=3), uniform_policy(3))
    with pytest.raises(ValueError, match=r"add up to 3, not to 1: .*log_softmax"):
        problem.evaluate(lambda rows, masks: np.zeros((len(rows), 3)))
    with pytest.raises(ValueError, match="add up to inf"):
        problem.evaluate(lambda rows, masks: np.full((len(rows), 3), 1e9))
    with pytest.raises(ValueError, match="NaN"):
        problem.evaluate(lambda rows, masks: np.full((len(rows), 3), np.nan))


def test_probability_of_illegal_actions_is_refused() -> None:
    env = TextEnv("AnagramMasked", length=3, num_symbols=4)
    blind = uniform_policy(4)
    with pytest.raises(ValueError, match=r"legal tokens after a prefix add up to 0\.75, .*its second argument shows"):
        ExactProblem(env, lambda rows, masks: blind(rows), prompts=[0])


def test_rounding_is_removed() -> None:
    problem = ExactProblem(TextEnv("HiddenTarget", length=4, num_symbols=3), uniform_policy(3))
    rough = problem.logprobs(lambda rows, masks: np.float32(uniform_policy(3)(rows, masks)) + np.float32(1e-5))
    assert kl_divergence(rough[0], problem.ref_logprobs[0]) < 1e-12


def test_prompts_are_asked_for_and_checked() -> None:
    env = TextEnv("Reverse", length=2, num_symbols=4)
    with pytest.raises(ValueError, match=r"Reverse has prompts: give .*prompts=range\(16\)"):
        ExactProblem(env, uniform_policy(4))
    with pytest.raises(ValueError, match="Reverse has prompts"):
        ExactProblem(env, uniform_policy(4), prompts=[])
    with pytest.raises(ValueError, match=r"index must lie in 0 … 14, got \[99\]"):
        ExactProblem(env, uniform_policy(4), prompts=[99])
    with pytest.raises(ValueError, match="HiddenTarget has no prompts: leave prompts= out"):
        ExactProblem(TextEnv("HiddenTarget", length=2, num_symbols=2), uniform_policy(2), prompts=[0])
    by_text = ExactProblem(env, uniform_policy(4), prompts=["01"])
    assert by_text.evaluate(random_policy(0, 4)) == ExactProblem(env, uniform_policy(4), prompts=[[0, 1]]).evaluate(
        random_policy(0, 4)
    )


def test_other_environments_are_refused() -> None:
    with pytest.raises(TypeError, match="CartPoleEnv has none"):
        ExactProblem(gym.make("CartPole-v1"), uniform_policy(2))


def test_wrappers_are_looked_through_and_the_environments_counters_left_alone() -> None:
    env = gym.make("textenvs/HiddenTarget-v0", length=2, num_symbols=2)
    problem = ExactProblem(env, uniform_policy(2))
    assert problem.num_texts == 4
    base: Any = env.unwrapped
    assert base.judge.episodes == 0


def test_a_quarter_of_a_million_texts_take_seconds() -> None:
    start = time.perf_counter()
    problem = ExactProblem(TextEnv("HiddenTarget", length=6, num_symbols=8), uniform_policy(8))
    problem.grade(random_policy_of_arrays, 0.1)
    assert problem.num_texts == 262_144
    assert time.perf_counter() - start < 20  # 0.3 s on one core


def random_policy_of_arrays(rows: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
    logits = np.sin(rows.sum(1, keepdims=True) + np.arange(8.0))
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))
