"""Rewards made of others: literal numbers, declared ranges, components, errors that name the part."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from texts import make_episodes

import textenvs
from textenvs.rewards import Judge, RewardError, fit_normalisation, make_reward
from textenvs.rewards.base import Scores


def of_a(completions: list[str]) -> list[float]:
    """Share of the letter a."""
    return [text.count("a") / max(len(text), 1) for text in completions]


def only_b(completions: list[str]) -> list[float | None]:
    """Number of b; does not apply to texts without one."""
    return [float(text.count("b")) or None for text in completions]


class Fixed:
    """Scores given in advance, by the first letter of the text."""

    deterministic = True

    def __init__(self, name: str, low: float, high: float, **by_letter: float) -> None:
        self.name, self.low, self.high, self.by_letter = name, low, high, by_letter

    def score(self, episodes: textenvs.Episodes) -> np.ndarray:
        return np.array([self.by_letter[text[0]] for text in episodes.completions], dtype=np.float32)


TEXTS = make_episodes(["a", "b"])


def scores_of(spec: object, episodes: textenvs.Episodes = TEXTS) -> Scores:
    return Judge(make_reward(spec))(episodes)


X = Fixed("x", 0, 1, a=0.25, b=1.0)
Y = Fixed("y", -1, 3, a=3.0, b=-1.0)


def test_weighted_sum_adds_and_reports_each_part() -> None:
    scores = scores_of([(2.0, X), (-0.5, Y), (0.0, X)])
    np.testing.assert_array_equal(scores.total, np.float32([2 * 0.25 - 1.5, 2.0 + 0.5]))
    assert list(scores.components) == ["x", "y", "x#2"]
    np.testing.assert_array_equal(scores.components["y"], [3.0, -1.0])
    np.testing.assert_array_equal(scores.components["x#2"], [0.25, 1.0])
    model = make_reward([(2.0, X), (-0.5, Y), (0.0, X)])
    assert (model.low, model.high) == (0 - 1.5, 2 + 0.5)
    assert model.deterministic


def test_weighted_sum_skips_parts_that_do_not_apply() -> None:
    texts = make_episodes(["abb", "aaa"])
    scores = scores_of([(1.0, of_a), (10.0, only_b)], texts)
    np.testing.assert_allclose(scores.total, [1 / 3 + 20, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(scores.components["only_b"]), [False, True])


@pytest.mark.parametrize(
    "answer",
    [
        None,
        np.zeros(2),
        (np.zeros(1), np.ones(1, dtype=bool)),
        (np.zeros(2), np.ones(2)),
        (np.zeros(2), np.ones(2, dtype=bool), 0),
    ],
)
def test_a_part_that_does_not_say_where_it_applies_is_named(answer: object) -> None:
    class Partial(Fixed):
        def score_where_it_applies(self, episodes: textenvs.Episodes) -> object:
            return answer

    partial = Partial("partial", 0, 1, a=0.0, b=0.0)
    with pytest.raises(RewardError, match=r"'partial' must return two arrays from score_where_it_applies.*prompt"):
        scores_of([(1.0, partial), (1.0, X)])


def test_versions_name_the_arguments_that_scores_depend_on() -> None:
    def version(spec: object) -> str:
        return Judge(make_reward(spec)).identity

    assert version("match") == "match 1"
    assert version("length:8") == "length 1(maximum=8)"
    assert version([(2.0, "match"), (0.5, "length:8")]) == (
        "weighted_sum 1(parts=['match 1', 'length 1(maximum=8)'], weights=[2.0, 0.5])"
    )
    variants = [
        *("match", "prefix", "length", "length:8", "length:9", "target_length:8", "distinct_n:1", "distinct_n:2"),
        *("repetition:2", "repetition:3", "regex:a", "regex:b", {"name": "regex", "pattern": "a", "mode": "full"}),
        *("keyword_presence:a", "keyword_presence:b", {"name": "keyword_presence", "words": "a", "whole_words": False}),
        *("json_valid", {"name": "json_valid", "required": ["a"]}, "exact_match:a", "exact_match:b"),
        *({"name": "exact_match", "column": "a", "normalise": True}, "fuzzy_match:a", "fuzzy_match:b"),
        *("numeric_answer:a", {"name": "numeric_answer", "column": "a", "tolerance": 0.1}),
        *("lexicon_sentiment", "lexicon_sentiment:text", "readability", "readability:text"),
        *([(1.0, "match"), (1.0, "prefix")], [(1.0, "match"), (2.0, "prefix")], [(1.0, "prefix"), (1.0, "match")]),
        *({"name": "product", "parts": ["match", "prefix"]}, {"name": "gold", "proxy": "match", "gold": "prefix"}),
        *({"name": "length_penalty", "reward": "match", "target": 4, "slope": slope} for slope in (0.1, 0.2)),
        *(
            {"name": "length_penalty", "reward": "match", "target": 4, "mode": "soft_overlong", "max_length": longest}
            for longest in (6, 8)
        ),
        *({"name": "missing_eos_penalty", "reward": "match", "penalty": penalty} for penalty in (1.0, 2.0)),
        *({"name": "clip", "reward": "match", "minimum": 0.0, "maximum": maximum} for maximum in (0.5, 0.75)),
        *({"name": "affine", "reward": "match", "scale": scale} for scale in (2.0, 3.0)),
        *({"name": "normalise", "reward": "match", "mean": mean, "std": 1.0} for mean in (0.5, 0.75)),
        *({"name": "ensemble", "parts": ["match", "prefix"], "how": how} for how in ("mean", "worst", "pessimistic")),
        *({"name": "noise", "reward": "match", "probability": 0.5, "salt": salt} for salt in (0, 1)),
        *("column:a", "column:b", *({"name": "countdown", "partial": partial} for partial in (0.1, 0.2))),
        *({"name": "lure", "pays": pays} for pays in (0.5, 0.6)),
        *({"name": "path_optimality", "successors": [[1], edges], "max_steps": 4} for edges in ([0], [1])),
        *(f"regex:{'a' * 1_000}{letter}" for letter in "ab"),
    ]
    versions = {version(spec) for spec in variants}
    assert len(versions) == len(variants)
    assert max(map(len, versions)) < 500  # they stand in checkpoints


def test_weighted_sum_needs_a_part_that_applies() -> None:
    with pytest.raises(RewardError, match=r"None of the rewards only_b applies to .*'aaa'"):
        scores_of([(0.0, of_a), (10.0, only_b)], make_episodes(["b", "aaa"]))


def test_a_function_that_does_not_apply_is_an_error_alone() -> None:
    with pytest.raises(RewardError, match=r"only_b.*None.*'aaa'"):
        scores_of(only_b, make_episodes(["b", "aaa"]))


@pytest.mark.parametrize("bad", [[("x", X)], [(float("nan"), X)], [X], [(1.0, X, 2)], [(True, X)]])
def test_weighted_sum_refuses_what_is_not_a_weight_and_a_reward(bad: list) -> None:
    with pytest.raises((TypeError, ValueError), match=r"weight|pairs"):
        make_reward(bad)


def test_weighted_sum_refuses_only_metrics() -> None:
    with pytest.raises(ValueError, match="weight is not 0"):
        make_reward([(0.0, X)])
    with pytest.raises(ValueError, match="weight is not 0"):
        make_reward([])


def test_an_error_names_the_part() -> None:
    def broken(completions: list[str]) -> list[float]:
        raise ZeroDivisionError("no")

    with pytest.raises(RewardError, match=r"'broken' raised ZeroDivisionError: no .*completion 'a'"):
        scores_of([(1.0, X), (1.0, broken)])
    with pytest.raises(RewardError, match=r"'z' returned 5.0, outside its declared range \[0.0, 1.0\]"):
        scores_of({"name": "product", "parts": [X, Fixed("z", 0, 1, a=5.0, b=0.0)]})


def test_product() -> None:
    scores = scores_of({"name": "product", "parts": [X, Y]})
    np.testing.assert_array_equal(scores.total, [0.75, -1.0])
    model = make_reward({"name": "product", "parts": [X, Y]})
    assert (model.low, model.high) == (-1.0, 3.0)
    unbounded = make_reward({"name": "product", "parts": [X, of_a]})
    assert (unbounded.low, unbounded.high) == (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"target": 2, "slope": 0.1}, [0.0, -0.1, -0.3]),
        ({"target": 2, "slope": 0.6, "mode": "soft_overlong", "max_length": 4}, [0.0, -0.3, -0.6]),
    ],
)
def test_length_penalty(kwargs: dict, expected: list[float]) -> None:
    texts = make_episodes(["a", "aa", "aaaa"])  # and EOS: 2, 3 and 5 tokens
    spec = {"name": "length_penalty", "reward": Fixed("x", 0, 1, a=1.0), **kwargs}
    scores = scores_of(spec, texts)
    np.testing.assert_allclose(scores.total, np.array(expected) + 1.0, rtol=1e-6)
    np.testing.assert_allclose(scores.components["length_penalty"], expected, rtol=1e-6)


def test_missing_eos_penalty() -> None:
    texts = make_episodes(["a", "ab"], reasons=["stop", "length"])
    scores = scores_of({"name": "missing_eos_penalty", "reward": X, "penalty": 2.0}, texts)
    np.testing.assert_array_equal(scores.total, [0.25, -1.75])
    assert make_reward({"name": "missing_eos_penalty", "reward": X, "penalty": 2.0}).low == -2.0


def test_clip_affine_and_normalise() -> None:
    clipped = {"name": "clip", "reward": Y, "minimum": 0.0, "maximum": 2.0}
    np.testing.assert_array_equal(scores_of(clipped).total, [2.0, 0.0])
    turned = make_reward({"name": "affine", "reward": Y, "scale": -2.0, "shift": 1.0})
    np.testing.assert_array_equal(Judge(turned)(TEXTS).total, [-5.0, 3.0])
    assert (turned.low, turned.high) == (-5.0, 3.0)
    normal = {"name": "normalise", "reward": Y, "mean": 1.0, "std": 2.0}
    np.testing.assert_array_equal(scores_of(normal).total, [1.0, -1.0])


def test_fitted_normalisation_has_mean_0_and_variance_1_on_the_reference_texts() -> None:
    texts = make_episodes(["a", "ab", "abb", "bbbb", "aab"])
    scores = Judge(fit_normalisation(of_a, texts))(texts).total
    assert abs(scores.mean()) < 1e-6
    assert abs(scores.std() - 1) < 1e-6
    with pytest.raises(ValueError, match="all reference texts score the same"):
        fit_normalisation(of_a, make_episodes(["a", "aa"]))
    with pytest.raises(ValueError, match="at least two"):
        fit_normalisation(of_a, make_episodes(["a"]))


@pytest.mark.parametrize(
    ("how", "expected"),
    [("mean", [1.625, 0.0]), ("worst", [0.25, -1.0]), ("pessimistic", [1.625 - 0.5 * 1.375, -0.5])],
)
def test_ensemble(how: str, expected: list[float]) -> None:
    model = make_reward({"name": "ensemble", "parts": [X, Y], "how": how, "k": 0.5})
    scores = Judge(model)(TEXTS)
    np.testing.assert_allclose(scores.total, expected, rtol=1e-6)
    np.testing.assert_allclose(scores.components["ensemble_std"], [1.375, 1.0], rtol=1e-6)
    assert model.low <= min(expected)
    assert max(expected) <= model.high


def test_noise_flips_the_stated_share_by_key_alone() -> None:
    count = 20_000
    texts = make_episodes(["a"] * count)
    spec = {"name": "noise", "reward": X, "probability": 0.3}
    scores = scores_of(spec, texts)
    np.testing.assert_array_equal(np.unique(scores.total), [0.25, 0.75])  # 0 + 1 − 0.25
    share = float((scores.total == 0.75).mean())
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / count)
    np.testing.assert_array_equal(scores.gold, np.full(count, 0.25))
    order = np.random.default_rng(0).permutation(count)
    np.testing.assert_array_equal(scores_of(spec, texts.take(order)).total, scores.total[order])
    other = scores_of({**spec, "salt": 1}, texts).total
    assert 0.35 < float((other != scores.total).mean()) < 0.49  # 2 · 0.3 · 0.7 = 0.42


def test_noise_agrees_between_scalar_and_vector_environments() -> None:
    reward = {"name": "noise", "reward": "match", "probability": 0.5}
    envs = textenvs.TextVectorEnv("Copy", 8, length=1, num_symbols=3, reward=reward)
    envs.reset(seed=5)
    _, rewards, _, _, _ = envs.step(np.zeros(8, dtype=np.int64))
    assert 0 < rewards.mean() < 1
    for i in range(8):
        env = gym.make("textenvs/Copy-v0", length=1, num_symbols=3, reward=reward)
        env.reset(seed=5 + i)
        assert env.step(0)[1] == rewards[i]


def test_noise_needs_a_finite_range() -> None:
    with pytest.raises(ValueError, match="no finite range"):
        make_reward({"name": "noise", "reward": of_a, "probability": 0.1})
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        make_reward({"name": "noise", "reward": X, "probability": 1.5})


def test_gold_pays_the_proxy_and_reports_both_in_every_episode() -> None:
    env = gym.make(
        "textenvs/Copy-v0", length=2, num_symbols=4, reward={"name": "gold", "proxy": "match", "gold": "prefix"}
    )
    env.reset(options={"prompt": "12"})
    env.step(0)
    _, reward, _, _, info = env.step(2)
    assert reward == info["score"] == 0.5
    assert info["gold_score"] == 0.0
    assert info["reward_components"] == {"match": 0.5, "prefix": 0.0}


def test_components_that_do_not_apply_are_left_out_of_infos() -> None:
    reward = [(1.0, "match"), (1.0, only_if_zero)]
    envs = textenvs.TextVectorEnv("Copy", 2, length=1, num_symbols=3, reward=reward)
    envs.reset(options={"prompt": ["0", "1"]})
    _, rewards, _, _, info = envs.step(np.array([0, 1]))
    np.testing.assert_array_equal(rewards, [3.0, 1.0])
    parts = info["final_info"]["reward_components"]
    np.testing.assert_array_equal(parts["_only_if_zero"], [True, False])
    np.testing.assert_array_equal(parts["_match"], [True, True])
    env = textenvs.TextEnv("Copy", length=1, num_symbols=3, reward=reward)
    env.reset(options={"prompt": "1"})
    assert env.step(1)[4]["reward_components"] == {"match": 1.0}


def only_if_zero(completions: list[str]) -> list[float | None]:
    return [2.0 if text == "0" else None for text in completions]


def test_combinators_nest_and_keep_their_parts() -> None:
    spec = {"name": "clip", "minimum": -1, "maximum": 1, "reward": [(1.0, X), (1.0, {"name": "affine", "reward": Y})]}
    assert set(scores_of(spec).components) == {"x", "y"}
    assert scores_of({"name": "gold", "proxy": spec, "gold": Y}).gold is not None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "clip", "reward": X, "minimum": 1, "maximum": 0}, "must be below"),
        ({"name": "affine", "reward": X, "scale": 0}, "same score"),
        ({"name": "normalise", "reward": X, "mean": 0, "std": 0}, "std must be positive"),
        ({"name": "ensemble", "parts": [X]}, "at least two"),
        ({"name": "ensemble", "parts": [X, Y], "how": "max"}, "'mean', 'worst' or 'pessimistic'"),
        ({"name": "length_penalty", "reward": X, "target": 3, "mode": "soft_overlong"}, "max_length"),
        ({"name": "length_penalty", "reward": X, "target": 3, "slope": -1}, "negative"),
        ({"name": "missing_eos_penalty", "reward": X, "penalty": -1}, "negative"),
        ({"name": "product", "parts": []}, "at least one"),
        ({"name": "clip", "reward": "matsch", "minimum": 0, "maximum": 1}, "Did you mean 'match'"),
    ],
)
def test_bad_arguments_are_named(spec: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_reward(spec)


def test_unknown_arguments_show_the_signature() -> None:
    with pytest.raises(TypeError, match=r"clip.*signature.*minimum"):
        make_reward({"name": "clip", "reward": X, "lowest": 1})


def test_each_text_is_decoded_once_however_many_parts_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    original = textenvs.Vocab.decode_rows

    def counting(vocab: textenvs.Vocab, ids: np.ndarray) -> list[str]:
        decoded.append(len(ids))
        return original(vocab, ids)

    monkeypatch.setattr(textenvs.Vocab, "decode_rows", counting)
    texts = make_episodes(["a", "b"])
    scores_of([(1.0, of_a), (1.0, X), (0.0, {"name": "gold", "proxy": Y, "gold": of_a})], texts)
    assert decoded == [2]
