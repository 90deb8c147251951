"""Over-optimisation: gold, proxies and fits, against literal numbers and against sampling."""

from __future__ import annotations

import numpy as np
import pytest

from agents.over_optimisation import (
    BEST_OF_N,
    CERTAINTY,
    RL,
    Scene,
    SceneSettings,
    ScoreTable,
    extrapolated_r_squared,
    falls,
    fit_all,
    held_out_r_squared,
    landscape,
    ppo_point,
    r_squared,
    standardise,
    train_proxy,
)
from textenvs import Episodes, Vocab


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(SceneSettings(length=3, num_tokens=4, texts=512, steps=40))


def test_a_landscape_is_the_sum_of_its_tables() -> None:
    rows = np.array([[0, 1, 2], [2, 2, 0]])
    rng = np.random.default_rng(7)
    ones, twos = rng.normal(size=(3, 3)), rng.normal(size=(3, 3, 3))
    first = ones[0, 0] + ones[1, 1] + ones[2, 2]
    second = twos[0, 0, 1] + twos[1, 1, 2] + twos[2, 2, 0]  # a ring: the last token meets the first
    assert landscape(rows, 3, (0.5, 2.0), seed=7)[0] == pytest.approx(0.5 * first + 2.0 * second)
    assert np.array_equal(landscape(rows, 3, (1.0,), 0), landscape(rows, 3, (1.0, 0.0), 0))


def test_scores_are_standardised_under_the_reference() -> None:
    logprobs = np.log([0.5, 0.25, 0.25])
    scores = standardise(np.array([0.0, 2.0, 4.0]), logprobs)  # mean 1.5, variance 2.75
    assert scores == pytest.approx((np.array([0.0, 2.0, 4.0]) - 1.5) / 2.75**0.5)
    with pytest.raises(ValueError, match="score the same"):
        standardise(np.ones(3), logprobs)


def test_a_table_looks_scores_up_in_the_order_of_the_digits() -> None:
    table = ScoreTable(np.arange(27.0), 3, "table")
    episodes = Episodes.from_texts(["", ""], ["021", "210"], vocab=Vocab(["0", "1", "2"]))
    assert table.score(episodes).tolist() == [0 * 9 + 2 * 3 + 1, 2 * 9 + 1 * 3 + 0]
    assert (table.low, table.high) == (0.0, 26.0)


def test_the_environment_pays_the_proxy_and_reports_gold(scene: Scene) -> None:
    proxy = np.linspace(-1.0, 1.0, 64)
    problem = scene.problem(proxy)
    assert problem.scores[0] == pytest.approx(proxy)
    assert problem.golds is not None
    assert problem.golds[0] == pytest.approx(scene.gold)
    assert problem.ref_logprobs[0] == pytest.approx(scene.ref_logprobs, abs=1e-5)
    assert (np.exp(scene.ref_logprobs) @ scene.gold, problem.reference.gold) == (
        pytest.approx(0.0, abs=1e-9),
        pytest.approx(0.0, abs=1e-6),
    )


def test_annotators_are_as_noisy_as_they_are_said_to_be_and_their_noise_knows_nothing_of_the_texts(
    scene: Scene,
) -> None:
    index, rankings = scene.comparisons(20_000, seed=3)
    gold = scene.gold[index]
    preferred_first = np.array([ranking.ranks[0] == 1 for ranking in rankings])
    chance = 1 / (1 + np.exp(-CERTAINTY * (gold[:, 0] - gold[:, 1])))
    surprise = preferred_first - chance
    assert abs(surprise.mean()) < 4 * 0.5 / 20_000**0.5
    # Noise drawn from the stream that had drawn the texts would be a function of them, which a proxy could learn.
    for column in (0, 1):
        for text in range(len(scene.rows)):
            seen = index[:, column] == text
            if seen.sum() >= 50:
                assert abs(surprise[seen].mean()) < 5 * 0.5 / seen.sum() ** 0.5
    assert rankings[0].answers[0] == scene.texts[index[0, 0]]


def test_a_proxy_learns_gold_and_more_comparisons_teach_it_better(scene: Scene) -> None:
    few, many = (train_proxy(scene, 8, count, seed=0) for count in (64, 2_048))
    assert many.correlation > max(few.correlation, 0.75)
    assert many.accuracy < many.best_accuracy + 4 * 0.5 / 2_000**0.5
    assert np.exp(scene.ref_logprobs) @ many.scores == pytest.approx(0.0, abs=1e-6)


def test_ppo_lies_under_the_frontier_of_the_proxy(scene: Scene) -> None:
    problem = scene.problem(scene.gold)
    kl, proxy, gold = ppo_point(scene, problem, scene.gold, kl_coef=0.5, seed=0, timesteps=6_000)
    assert proxy == pytest.approx(gold, abs=1e-5)
    assert 0.1 < proxy <= problem.reward_at(kl) + 1e-6


def test_laws_recover_their_coefficients() -> None:
    d = np.array([0.5, 1.0, 2.0, 3.0])
    assert BEST_OF_N.fit(d, d * (0.9 - 0.2 * d)) == pytest.approx((0.9, 0.2))
    assert RL.fit(d, d * (0.9 - 0.2 * np.log(d))) == pytest.approx((0.9, 0.2))
    assert RL.predict(np.array([1.0, np.e]), 0.9, 0.2) == pytest.approx([0.9, 0.7 * np.e])
    with pytest.raises(ValueError, match="three distances"):
        RL.fit(d[:2], d[:2])


def curve(alpha: float, beta: float, ds: list[float]) -> list[tuple[float, float, float]]:
    return [(0.0, 0.0, 0.0)] + [(d * d, d, d * (alpha - beta * d)) for d in ds]


def test_fits_are_tested_on_what_they_have_not_seen() -> None:
    assert r_squared(np.array([1.0, 3.0]), np.array([1.0, 2.0])) == 0.5
    assert np.isnan(r_squared(np.ones(2), np.ones(2)))
    ds = [0.25, 0.5, 1.0, 2.0, 4.0]
    same = [curve(1.0, 0.2, ds)] * 3
    assert held_out_r_squared(BEST_OF_N, same) == pytest.approx([1.0] * 3)
    other = [*same[:2], curve(1.0, 0.8, ds)]
    scores = held_out_r_squared(BEST_OF_N, other)
    assert scores[2] < 0
    assert fit_all(BEST_OF_N, same) == pytest.approx((1.0, 0.2))
    assert extrapolated_r_squared(BEST_OF_N, same, 1.5) == pytest.approx(1.0)
    assert np.isnan(extrapolated_r_squared(BEST_OF_N, same, 0.7))


def test_a_fall_is_measured_from_where_other_seeds_have_their_peak() -> None:
    up_and_down = [[(float(i), float(i), gold) for i, gold in enumerate((0.0, 1.0, 0.4))] for _ in range(2)]
    rising = [(float(i), float(i), gold) for i, gold in enumerate((0.0, 0.5, 2.0))]
    assert falls(up_and_down) == pytest.approx([0.6, 0.6])
    assert falls([rising]) == [0.0]
    # Mean of the others of the first: (0, 0.75, 1.2), peak at the end. Of the last: (0, 1, 0.4), peak in the middle.
    assert falls([*up_and_down, rising]) == pytest.approx([0.0, 0.0, -1.5])
