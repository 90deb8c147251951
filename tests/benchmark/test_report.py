"""What the report says about synthetic runs whose truth is known, in figures, in words and on the page."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from agents.benchmark.analyse import Ratio
from agents.benchmark.page import unbroken
from agents.benchmark.report import Report, html, print_report, read_report, write_report
from agents.benchmark.results import place_run
from agents.benchmark.rows import rows_text
from agents.benchmark.suites import BenchmarkError
from agents.benchmark.summary import summarise
from agents.benchmark.tables import failures_table, winners_table
from agents.benchmark.words import conclusions, enumerate_words, factor, median_text, number, ratio_text

ENVIRONMENTS = ["Reverse", "Copy"]
THRESHOLDS = (0.5, 0.9)


@pytest.fixture
def compare(synthetic_run):
    """Summary of runs of agents with the given speeds (episodes to 1 − 1/e), one list for each environment."""

    def make(speeds, budget=8_000, num_seeds=3, seconds=None, utilisation=None):
        runs = [
            synthetic_run(
                environment,
                agent,
                seed,
                speed * (1 + 0.1 * seed),
                budget,
                batch=16,
                seconds_per_episode=(seconds or {}).get(agent, 0.01),
                utilisation=(utilisation or {}).get(agent, 4.0),
            )
            for agent, both in speeds.items()
            for environment, speed in zip(ENVIRONMENTS, both, strict=True)
            for seed in range(num_seeds)
        ]
        return summarise(runs, ENVIRONMENTS, list(speeds), THRESHOLDS), runs

    return make


def test_figures_are_those_of_the_curves(compare):
    """1 − exp(−n / s) passes 0.5 at 0.69 s and 0.9 at 2.30 s; evaluations come every 5 %."""
    summary, _ = compare({"slow": (1_000, 1_000), "fast": (100, 200)}, utilisation={"fast": 32.0})
    cell = summary.cells["Reverse", "slow"]
    assert cell.medians["episodes", 0.5].value == pytest.approx(693 * 1.1, rel=0.06)
    assert cell.medians["episodes", 0.9].value == pytest.approx(2_303 * 1.1, rel=0.06)
    assert cell.medians["timesteps", 0.9].value == 4 * cell.medians["episodes", 0.9].value
    assert cell.medians["seconds", 0.9].value == pytest.approx(0.01 * cell.medians["episodes", 0.9].value)
    assert cell.reached(0.9) == 3
    assert summary.cells["Copy", "fast"].data_utilisation == 32.0
    ratio = summary.comparisons["slow", "fast", "episodes", 0.9].ratio
    assert ratio.value == pytest.approx((10 * 5) ** 0.5, rel=0.1)
    assert ratio.num_pairs == 6
    assert summary.leader("episodes", 0.9) == "fast"
    assert 0.9 <= summary.scores["slow"].value <= 0.95
    assert summary.missing == ()


@pytest.mark.parametrize(("first", "second"), [("PPO", "DQN"), ("DQN", "PPO"), ("A", "B")])
def test_words_name_whoever_wins(compare, first, second):
    summary, _ = compare(
        {first: (1_000, 2_000), second: (100, 200)},
        seconds={first: 0.001, second: 0.1},
        utilisation={first: 1.0, second: 8.0},
    )
    text = "\n".join(conclusions(summary))
    figure = r"\d+(\.\d)?"
    assert re.search(rf"To reach 0.9, {first} needed {figure} times the episodes of {second} \(95 % interval", text)
    assert re.search(rf"To reach 0.9, {second} needed {figure} times the seconds of {first} \(95 % interval", text)
    assert f"So {second} needs less data, {first} less time." in text
    assert f"1.0 times with {first} and 8.0 times with {second}" in text
    assert f"fewest episodes ({second}) is the one that used each token most" in text
    assert f"reached by {first} in 6 of 6 runs and {second} in 6 of 6 runs." in text


def test_words_admit_that_it_depends(compare):
    """Whoever is ahead on the mean, the environments disagree, and that is what is said."""
    for speeds in ((1_000, 500), (1_000, 100)):
        summary, _ = compare({"A": speeds, "B": (500, 1_000)}, utilisation={"A": 2.0}, seconds={"A": 1.0})
        text = "\n".join(conclusions(summary))
        assert "Who needs fewer episodes to reach 0.9 depends on the environment: B on Reverse (" in text
        assert re.search(r"\), A on Copy \([\d,]+ against 2,\d+\)\. Overall, ", text)
        assert "To reach 0.9, A needed" in text, "of seconds A needs more everywhere"
        assert "fewest episodes" not in text
        assert "needs less data" not in text


def test_words_admit_a_draw(synthetic_run):
    """Who is ahead changes from seed to seed."""
    speeds = {"A": (500, 560, 450, 520), "B": (510, 450, 560, 500)}
    runs = [
        synthetic_run("Copy", agent, seed, speed, batch=16)
        for agent, each in speeds.items()
        for seed, speed in enumerate(each)
    ]
    text = "\n".join(conclusions(summarise(runs, ["Copy"], ["A", "B"], THRESHOLDS)))
    assert "There is no clear difference between" in text
    assert "but the interval includes 1" in text
    assert "To reach 0.9," not in text


def test_words_treat_identical_agents_as_equal(compare):
    summary, _ = compare({"A": (500, 500), "B": (500, 500)})
    ratio = summary.comparisons["A", "B", "episodes", 0.9].ratio
    assert (ratio.value, ratio.low, ratio.high) == (1.0, 1.0, 1.0)
    text = "\n".join(conclusions(summary))
    assert "no clear difference" in text
    assert "needed fewer" not in text
    assert "not how well" not in text, "both used their data alike"


def test_words_when_one_never_arrives(compare):
    summary, _ = compare({"never": (90_000, 90_000), "fast": (100, 200)}, budget=2_000)
    text = "\n".join(conclusions(summary))
    assert "never in 0 of 6 runs (in most of its runs on 0 of 2 environments)" in text
    assert "counts as needing more than its budget" in text
    assert re.search(r"never needed at least \d.* times the episodes of fast \(95 % interval of this bound", text)


def test_words_when_nobody_arrives(compare):
    summary, _ = compare({"A": (90_000, 90_000), "B": (80_000, 80_000)}, budget=2_000)
    text = "\n".join(conclusions(summary))
    assert "A in 0 of 6 runs" in text
    assert "times the episodes" not in text
    assert "no clear difference" not in text, "there is nothing to compare"
    assert ratio_text(summary.comparisons["A", "B", "episodes", 0.9].ratio) == ("unknown", "")


def test_a_bound_that_points_the_other_way_is_no_win(compare):
    """b is ahead on what was observed, but fails on one environment: it might need any number of episodes
    there.
    """
    summary, _ = compare({"steady": (1_000, 500), "gambler": (20, 90_000)}, budget=4_000)
    ratio = summary.comparisons["steady", "gambler", "episodes", 0.9].ratio
    assert ratio.low > 1
    assert ratio.only_b_censored == 3
    assert not summary.comparisons["steady", "gambler", "episodes", 0.9].clear
    text = "\n".join(conclusions(summary))
    assert "depends on the environment: gambler on Reverse (" in text
    assert re.search(r"steady on Copy \(1,\d+ against > 4,000\)\. Overall, steady needed at most ", text)


def test_a_failure_in_a_minority_of_runs_still_blocks_the_verdict(synthetic_run):
    """Ahead in every median, but one run in four never arrived: the mean ratio is a bound from the wrong side."""
    speeds = {"steady": (1_000,) * 4, "gambler": (20, 20, 20, 90_000)}
    runs = [
        synthetic_run("Copy", agent, seed, speed, 4_000, batch=16)
        for agent, each in speeds.items()
        for seed, speed in enumerate(each)
    ]
    summary = summarise(runs, ["Copy"], list(speeds), THRESHOLDS)
    comparison = summary.comparisons["steady", "gambler", "episodes", 0.9]
    text = "\n".join(conclusions(summary))
    assert comparison.ratio.value > 5
    assert comparison.ratio.only_b_censored == 1
    assert not comparison.clear
    assert "no clear difference between steady and gambler" in text
    assert "gambler alone did not get there in 1 pair, so the truth may lie beyond 1" in text or (
        "the interval includes 1" in text
    )


def test_who_is_there_from_the_start_counts_from_the_first_evaluation(compare):
    summary, _ = compare({"learner": (1_000, 1_000), "genius": (1e-9, 1e-9)})
    assert summary.cells["Copy", "genius"].medians["episodes", 0.9].value == 16
    lucky = summary.cells["Copy", "genius"].runs[0]
    lucky = replace(lucky, rows=(replace(lucky.rows[0], normalised_greedy=1.0), *lucky.rows[1:]))
    learner = summary.cells["Copy", "learner"].runs[0]
    summary = summarise([lucky, learner], ["Copy"], ["learner", "genius"], THRESHOLDS)
    assert summary.cells["Copy", "genius"].medians["episodes", 0.9].value == 0
    expected = summary.cells["Copy", "learner"].medians["episodes", 0.9].value / 16
    assert summary.comparisons["learner", "genius", "episodes", 0.9].ratio.value == pytest.approx(expected)


def test_words_about_one_seed_claim_nothing(compare):
    summary, _ = compare({"A": (1_000, 1_000), "B": (100, 100)}, num_seeds=1)
    text = "\n".join(conclusions(summary))
    assert "with a single pair of runs on an environment there is no interval, so it may be chance" in text
    assert "needs less data" not in text
    assert "With 1 run of an agent" in text


def test_missing_runs_are_said(compare):
    _, runs = compare({"A": (500, 500), "B": (100, 100)})
    runs = [run for run in runs if (run.environment, run.agent, run.seed) != ("Copy", "A", 1)]
    summary = summarise(runs, ENVIRONMENTS, ["A", "B"], THRESHOLDS)
    assert summary.missing == ("A on Copy, seed 1",)
    assert summary.comparisons["A", "B", "episodes", 0.9].ratio.num_pairs == 5, "only paired runs are compared"
    assert "1 run failed or were not played" in "\n".join(conclusions(summary))


def test_a_single_agent_has_nothing_to_be_compared_with(compare):
    summary, _ = compare({"PPO": (500, 500)})
    text = "\n".join(conclusions(summary))
    assert "PPO in 6 of 6 runs" in text
    assert "difference" not in text


def test_small_words():
    assert [number(1234.0), number(9.94, "seconds"), number(9.96, "seconds"), number(40, "seconds")] == [
        "1,234",
        "9.9",
        "10",
        "40",
    ]
    assert [factor(value) for value in (0.254, 1.0, 3.14, 9.97, 250.0)] == ["0.25", "1.0", "3.1", "10", "250"]
    assert [enumerate_words(parts) for parts in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert ratio_text(Ratio(2.0, 1.5, 3.0, 4, 0, 0, 0)) == ("2.0", "1.5–3.0")
    assert ratio_text(Ratio(2.0, 1.5, 3.0, 4, 1, 0, 0)) == ("≥ 2.0", "1.5–3.0")
    assert ratio_text(Ratio(2.0, 1.5, 3.0, 4, 0, 1, 0)) == ("≤ 2.0", "1.5–3.0")
    assert ratio_text(Ratio(2.0, 1.5, 3.0, 4, 1, 1, 0))[0] == "≈ 2.0"
    assert ratio_text(Ratio(2.0, 1.5, 3.0, 4, 1, 0, 1))[0] == "≈ 2.0"


def test_an_interval_that_ends_beyond_the_budget_says_where_it_begins(compare):
    summary, _ = compare({"PPO": (1_100, 100), "DQN": (100, 100)}, budget=3_000)  # two seeds of three get there
    cell = summary.cells["Reverse", "PPO"]
    assert cell.reached(0.9) == 2
    median, interval = median_text(cell, "episodes", 0.9)
    first = min(cell.times["episodes", 0.9].values)
    assert (median, interval) == (number(cell.medians["episodes", 0.9].value), f"≥ {number(first)}")


def store(folder, runs, settings):
    """A results folder on disk."""
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    for run in runs:
        place_run(
            folder / "runs" / f"{run.environment}__{run.agent}__{run.seed}",
            {"rows.csv": rows_text(run.rows), "settings.json": json.dumps(run.settings)},
        )
    return folder


@pytest.fixture
def results(tmp_path, compare, synthetic_settings):
    _, runs = compare({"PPO": (1_000, 1_000), "DQN": (100, 90_000)}, budget=3_000)
    return store(tmp_path, runs, synthetic_settings(runs))


def printed(report, width):
    console = Console(width=width, file=io.StringIO())
    print_report(report, console)
    return console.file.getvalue()


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.sources, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag == "img":
            assert dict(attrs)["alt"]


def test_the_page_is_self_contained(results):
    report = read_report([results])
    page = write_report(results, report)
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.tags.count("img") == 3 * len(ENVIRONMENTS) + 6
    assert all(source.startswith("data:image/svg+xml;base64,") for source in parsed.sources)
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "link", "iframe"} & set(parsed.tags)
    assert "<b>&gt; 2,992</b>" in text, "censored medians are marked"
    assert str(results) not in text
    for paragraph in conclusions(report.summary)[:1]:
        assert unbroken(paragraph, ENVIRONMENTS) in text
    others = ("profile-area", "profile-budget", "improvement", "ratios-episodes", "ratios-seconds", "data-use")
    for name in (*(f"learning-curves-{axis}" for axis in ("episodes", "reward-calls", "seconds")), *others):
        assert (results / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_rows_of_an_environment_and_its_name_stay_together(synthetic_run, synthetic_settings):
    speeds = {("Copy 2 of 6", "a"): 300.0, ("Copy 2 of 6", "b"): 900.0, ("Sort", "a"): 900.0, ("Sort", "b"): 300.0}
    runs = [synthetic_run(environment, agent, 0, speed) for (environment, agent), speed in speeds.items()]
    summary = summarise(runs, ["Copy 2 of 6", "Sort"], ["a", "b"], THRESHOLDS)
    text = html(Report(synthetic_settings(runs), tuple(runs), summary))
    table = text[text.index("<h2>How much until it is learnt</h2>") :]
    table = table[: table.index("</table>")]
    bodies = table.split("<tbody>")[1:]
    assert [body.count("<tr") for body in bodies] == [2, 2, 2]
    assert "Copy 2 of 6" in bodies[0]
    words = text[text.index('<section class="words">') : text.index("</section>")]
    assert "Copy 2 of 6" not in words
    assert "Copy&nbsp;2&nbsp;of&nbsp;6" in words


def test_the_same_rows_give_the_same_page(results):
    assert html(read_report([results])) == html(read_report([results]))


def test_the_table_fits_a_terminal(results):
    text = printed(read_report([results]), width=80)
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert re.search(r"DQN +> 2,992 +> 2,992 +> 30 +0/3 ", text)


def test_markup_in_names_is_shown_as_it_is(synthetic_run, synthetic_settings):
    run = synthetic_run("<b>[red]Copy[/red]</b>", "A&B")
    settings = synthetic_settings([run])
    summary = summarise([run], [run.environment], [run.agent], THRESHOLDS)
    report = Report(settings, (run,), summary)
    assert "<b>[red]" not in html(report)
    assert "[red]Copy[/red]" in printed(report, width=200)


def test_results_without_runs_are_refused(tmp_path, synthetic_settings, synthetic_run):
    (tmp_path / "settings.json").write_text(json.dumps(synthetic_settings([synthetic_run()])))
    with pytest.raises(BenchmarkError, match="no finished run"):
        read_report([tmp_path])


def test_a_damaged_run_is_named(results):
    path = next((results / "runs").iterdir()) / "rows.csv"
    path.write_text(path.read_text()[:-10])
    report = read_report([results])
    assert len(report.runs) == 11, "the others are used"
    assert [what for what, _ in report.warnings] == ["Runs whose files are damaged; the others are used:"]
    assert re.search(r"rows\.csv, line \d+: .*Delete the folder", report.warnings[0][1][0])
    assert report.warnings[0][1][0] in printed(report, width=1_000)
    assert "the others are used" in html(report)


def test_the_headline_is_the_best_replay_agent_with_corrected_p_values(compare):
    speeds = {"PPO": (1_000, 2_000), "DQN": (500, 900), "SoftQ": (250, 500), "floor": (90_000, 90_000)}
    _, runs = compare(speeds, budget=12_000, num_seeds=4, seconds={"PPO": 0.001, "DQN": 0.01, "SoftQ": 0.01})
    kinds = {"PPO": "on-policy", "DQN": "replay", "SoftQ": "replay"}
    summary = summarise(runs, ENVIRONMENTS, list(speeds), THRESHOLDS, kinds)
    assert summary.best_replay == "SoftQ"
    assert len(summary.headlines) == 4
    assert all(h.adjusted >= h.p_value for h in summary.headlines)
    assert min(h.p_value for h in summary.headlines) == pytest.approx(2 / 2**8), "eight pairs, all one way"
    words = conclusions(summary)
    assert re.match(r"To reach 0.9, PPO needed (3\.9|4\.\d) times the episodes of SoftQ \(95 % interval", words[0])
    assert "To reach 0.9, PPO needed 0.4" in words[0], "of seconds it needs less"
    assert "p = 0.031" in words[0], "four times 2 / 256"
    assert "which flatters it a little" in words[0]
    assert "SoftQ needed the fewest episodes to 0.9 on the geometric mean" in words[2]
    assert "PPO needed the fewest seconds" in words[3]
    winners = winners_table(summary)
    ahead = [(row.figures["ahead in episodes"][0], row.figures["ahead in seconds"][0]) for (row,) in winners.blocks]
    assert ahead == [("replay", "on-policy")] * 2
    failures = failures_table(summary)
    assert [row.names for block in failures.blocks for row in block] == [("Reverse", "floor"), ("Copy", "floor")]


def test_areas_and_improvement_are_those_of_the_curves(compare):
    """1 − exp(−n / s) over a budget N has the mean 1 − s / N (1 − exp(−N / s)); runs that stop go without a little."""
    summary, _ = compare({"slow": (1_000, 1_000), "fast": (100, 100)}, budget=4_000)
    cell = summary.cells["Reverse", "slow"]
    expected = [1 - s / 4_000 * (1 - math.exp(-4_000 / s)) for s in (1_000, 1_100, 1_200)]
    assert list(cell.areas) == pytest.approx(expected, abs=0.03)
    assert summary.improvements["fast", "slow"].value == 1.0
    assert summary.improvements["slow", "fast"].value == 0.0
    assert summary.areas["fast"].value > summary.areas["slow"].value


def test_markdown_and_csv_have_the_same_figures(results):
    report = read_report([results])
    write_report(results, report)
    text = (results / "report.md").read_text()
    median = median_text(report.summary.cells["Reverse", "PPO"], "episodes", 0.9)
    assert f"| Reverse | PPO | {median_text(report.summary.cells['Reverse', 'PPO'], 'episodes', 0.5)[0]} (" in text
    assert f"{median[0]} ({median[1]})" in text
    for name in re.findall(r"\(plots/(.*?)\)", text):
        assert (results / "plots" / name).is_file()
    with (results / "report.csv").open() as file:
        lines = list(csv.DictReader(file))
    found = {(line["environment"], line["agent"], line["other"], line["quantity"]): line for line in lines}
    assert len(found) == len(lines), "every figure once"
    assert float(found["Reverse", "PPO", "", "episodes to 0.9"]["value"]) == pytest.approx(
        report.summary.cells["Reverse", "PPO"].medians["episodes", 0.9].value
    )
    assert found["Copy", "DQN", "", "episodes to 0.9"]["value"] == "inf"
    assert float(found["", "PPO", "DQN", "ratio of episodes to 0.9"]["low"]) > 1


def test_sets_that_were_made_alike_are_joined(tmp_path, compare, synthetic_settings):
    _, runs = compare({"PPO": (1_000, 1_000), "DQN": (100, 200)}, budget=3_000)
    settings = synthetic_settings(runs)
    first = store(tmp_path / "first", [run for run in runs if run.seed < 2], settings)
    second = store(tmp_path / "second", [run for run in runs if run.seed > 0], settings)
    report = read_report([first, second])
    assert report.summary.agents == ("PPO", "DQN")
    assert len(report.runs) == len(runs)
    ((what, which),) = report.warnings
    assert what.startswith("Runs that are there twice")
    assert len(which) == 4
    assert report.summary.comparisons["PPO", "DQN", "episodes", 0.9].ratio.num_pairs == 6


def test_sets_of_other_versions_are_kept_apart(tmp_path, compare, synthetic_settings):
    _, runs = compare({"PPO": (1_000, 1_000), "DQN": (100, 200)}, budget=3_000)
    settings = synthetic_settings(runs)
    old = store(tmp_path / "old", runs, settings)
    other = {**settings, "versions": {"python": "3.11", "torch": "3"}}
    changed = json.loads(json.dumps(other))
    changed["suite"]["environments"]["Copy"]["kwargs"]["length"] = 5
    new = store(tmp_path / "new", runs, changed)
    report = read_report([old, new])
    assert report.summary.agents == ("PPO [old]", "DQN [old]", "PPO [new]", "DQN [new]")
    assert report.summary.environments == ("Reverse", "Copy", "Copy [new]"), "another length is another environment"
    ((what, which),) = report.warnings
    assert what.startswith("Kept apart")
    assert 'new from old: versions › torch: "2" there, "3" now' in which
    page = write_report(tmp_path / "both", report)
    assert "versions › torch" in page.read_text()
    assert report.summary.comparisons["PPO [old]", "PPO [new]", "episodes", 0.9].ratio.value == 1.0


def test_failed_runs_are_shown_with_the_end_of_their_trace(results):
    (results / "failed").mkdir()
    (results / "failed" / "Copy__PPO__7.txt").write_text("Traceback\n  …\nRewardError: no opinion\n")
    assert "Copy, PPO, 7: RewardError: no opinion" in html(read_report([results]))


def test_nothing_is_an_error():
    with pytest.raises(BenchmarkError, match="nothing to report"):
        read_report([])
