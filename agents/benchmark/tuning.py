"""Random search, alike for every agent: as many trials, the same environments, budgets, seeds and objective.

The first trial of every agent is its default config; the others are drawn by Optuna from its search space. Each draw
depends on the search's seed, the agent and the trial's number alone, so a search that was ended goes on with the same
trials, and one with more trials begins with the same ones. The objective is the normalised area under the learning
curve in episodes, as the report of the benchmark has it, mean over environments. What is played and kept are runs of
the benchmark (:mod:`agents.benchmark.run`).
"""

from __future__ import annotations

import csv
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.benchmark.results import code_digest, failure_file, git_commit, is_finished, run_folder, write_json
from agents.benchmark.rows import Run, read_run
from agents.benchmark.search_spaces import SPACES, Dimension, LogUniform, TuningPreset
from agents.benchmark.statistics import area_under_curve
from agents.benchmark.suites import AgentSetting, BenchmarkError, RunSetting
from agents.benchmark.summary import budget

PlayRuns = Callable[[Sequence[RunSetting]], Any]
"""Plays runs; each that succeeds lands in its folder."""
SHOWN_TRIALS = 5


@dataclass(frozen=True)
class Candidate:
    """A trial of an agent: ``drawn`` is what differs from its defaults, ``setting`` what plays."""

    agent: str
    number: int
    drawn: dict[str, Any]
    setting: AgentSetting


@dataclass(frozen=True)
class Trial:
    """What came of a candidate. ``score``: with the first seed; ``final_score``: over all seeds, None where it was not
    among the finalists. A trial with a run that failed has −∞, and ``failure`` is its last line."""

    candidate: Candidate
    score: float
    final_score: float | None
    seconds: float
    failure: str


@dataclass(frozen=True)
class Search:
    """A finished search."""

    preset: TuningPreset
    seed: int
    trials: dict[str, list[Trial]]
    """Agent → all of its trials, by number."""

    def chosen(self, agent: str) -> Trial:
        """The finalist with the best mean over all seeds; the defaults where nothing is better."""
        finalists = [trial for trial in self.trials[agent] if trial.final_score is not None]
        return max(finalists, key=lambda trial: (trial.final_score, -trial.candidate.number))

    def default(self, agent: str) -> Trial:
        return self.trials[agent][0]


# -- drawing -----------------------------------------------------------------------------------------------------------


def import_optuna() -> Any:
    """The package optuna.

    Raises:
        BenchmarkError: it is not installed; the message names the extra.
    """
    try:
        import optuna
    except ImportError as error:
        raise BenchmarkError(f"tuning needs Optuna: pip install 'textenvs[tune]' ({error}).") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def distributions(space: Mapping[str, Dimension]) -> dict[str, Any]:
    """A search space in Optuna's terms."""
    optuna = import_optuna()
    return {
        name: optuna.distributions.FloatDistribution(each.low, each.high, log=True)
        if isinstance(each, LogUniform)
        else optuna.distributions.CategoricalDistribution(each)
        for name, each in space.items()
    }


def draw(agent: str, number: int, seed: int) -> dict[str, Any]:
    """The config of a trial, as it differs from the defaults: nothing for the first."""
    if number == 0:
        return {}
    optuna = import_optuna()
    entropy = [seed, number, zlib.crc32(agent.encode())]
    sampler = optuna.samplers.RandomSampler(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
    study = optuna.create_study(sampler=sampler)
    drawn = study.ask(distributions(SPACES[agent])).params
    return {name: float(f"{x:.3g}") if isinstance(x, float) else x for name, x in drawn.items()}


def candidates(preset: TuningPreset, seed: int) -> dict[str, list[Candidate]]:
    """Agent → its trials."""
    return {
        base.name: [
            Candidate(
                base.name,
                number,
                drawn := draw(base.name, number, seed),
                AgentSetting(f"{base.name} trial {number:02d}", base.agent, base.config | drawn, base.kind),
            )
            for number in range(preset.trials)
        ]
        for base in preset.agents
    }


# -- playing -----------------------------------------------------------------------------------------------------------


def run_settings(preset: TuningPreset, which: Sequence[Candidate], seeds: Sequence[int]) -> list[RunSetting]:
    """Runs of these candidates: trial by trial for all agents, so that a search cut short has treated them alike."""
    return [
        RunSetting(
            environment, each.setting, seed, preset.stop_at, preset.growth, preset.evaluation_episodes
        )
        for seed in seeds
        for each in sorted(which, key=lambda candidate: candidate.number)
        for environment in preset.environments
    ]  # fmt: skip


def area(run: Run) -> float:
    """Normalised area under a run's learning curve, from no episodes to its budget."""
    return area_under_curve(run.column("episodes"), run.column("normalised_greedy"), budget(run))


def score(out: Path, settings: Sequence[RunSetting]) -> float:
    """Mean area of these runs; −∞ where one did not finish."""
    if not all(is_finished(out, setting) for setting in settings):
        return -math.inf
    return float(np.mean([area(read_run(run_folder(out, setting))) for setting in settings]))


def search(preset: TuningPreset, seed: int, out: Path, play: PlayRuns) -> Search | None:
    """Play what is not finished yet: all trials with the first seed, then the finalists with the others.

    Args:
        preset: what is searched.
        seed: of the draws and of the runs.
        out: a results folder that holds the preset's suite.
        play: plays runs and returns; those that failed, or for which the time was over, have no folder then. A run
            without a file in ``out/failed`` was not tried to its end.

    Returns:
        None where the time was over before everything was played; the next call goes on.
    """
    all_candidates = candidates(preset, seed)
    first, *others = preset.seeds(seed)
    if not _play_missing(out, run_settings(preset, _flat(all_candidates.values()), [first]), play):
        return None
    finalists = {}
    for agent, those in all_candidates.items():
        scores = {each.number: score(out, run_settings(preset, [each], [first])) for each in those}
        ranked = sorted(those, key=lambda each: (-scores[each.number], each.number))
        best = ranked[: preset.finalists]
        finalists[agent] = best if those[0] in best else [*best, those[0]]
    if not _play_missing(out, run_settings(preset, _flat(finalists.values()), others), play):
        return None
    trials = {
        agent: [_trial(preset, seed, out, each, each in finalists[agent]) for each in those]
        for agent, those in all_candidates.items()
    }
    return Search(preset, seed, trials)


def _flat(lists: Any) -> list[Candidate]:
    return [each for those in lists for each in those]


def _play_missing(out: Path, settings: Sequence[RunSetting], play: PlayRuns) -> bool:
    """Whether all of them were played to their end, or failed."""
    missing = [setting for setting in settings if not is_finished(out, setting)]
    if missing:
        play(missing)
    return all(is_finished(out, setting) or failure_file(out, setting).is_file() for setting in missing)


def _trial(preset: TuningPreset, seed: int, out: Path, candidate: Candidate, final: bool) -> Trial:
    seeds = preset.seeds(seed)
    settings = run_settings(preset, [candidate], seeds if final else seeds[:1])
    finished = [read_run(run_folder(out, setting)) for setting in settings if is_finished(out, setting)]
    failed = [failure_file(out, setting) for setting in settings if not is_finished(out, setting)]
    return Trial(
        candidate,
        score(out, run_settings(preset, [candidate], seeds[:1])),
        score(out, settings) if final else None,
        sum(run.rows[-1].seconds for run in finished),
        failed[0].read_text(encoding="utf-8").strip().splitlines()[-1] if failed else "",
    )


# -- writing -----------------------------------------------------------------------------------------------------------


def write(result: Search, out: Path) -> list[Path]:
    """chosen.json, trials.csv, tables.md and study.log (for Optuna's own tools) in ``out``; returns their paths."""
    paths = [out / name for name in ("chosen.json", "trials.csv", "tables.md", "study.log")]
    write_json(paths[0], chosen_configs(result))
    with paths[1].open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("agent", "trial", "score", "final_score", "chosen", "seconds", "failure", "config"))
        for agent, trials in result.trials.items():
            for each in trials:
                final = "" if each.final_score is None else each.final_score
                config, number = json.dumps(each.candidate.drawn), each.candidate.number
                chosen = int(each is result.chosen(agent))
                writer.writerow((agent, number, each.score, final, chosen, each.seconds, each.failure, config))
    paths[2].write_text(tables(result), encoding="utf-8")
    _write_study(result, paths[3])
    return paths


def chosen_configs(result: Search) -> dict[str, Any]:
    """What agents/benchmark/tuned.json holds: agent → its config, and what it comes from."""
    preset, code, commit = result.preset, code_digest(), git_commit()
    entries = {}
    for agent in result.trials:
        chosen, default = result.chosen(agent), result.default(agent)
        if not math.isfinite(chosen.final_score or 0.0):
            raise BenchmarkError(f"every finalist of {agent} failed, its defaults too: {default.failure}")
        entries[agent] = {
            "config": chosen.candidate.setting.config,
            "trial": chosen.candidate.number,
            "score": _rounded(chosen.final_score),
            "default_score": _rounded(default.final_score),
            "seed": result.seed,
            "trials": preset.trials,
            "run_seeds": list(preset.seeds(result.seed)),
            "episodes": {environment.name: environment.episodes for environment in preset.environments},
            "code": code,
            "commit": commit,
        }
    return entries


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else round(value, 4)


def tables(result: Search) -> str:
    """Default against chosen of every agent, then the best trials of each, as Markdown."""
    seeds = result.preset.seeds(result.seed)
    lines = [
        f"Area under the learning curve, mean over {len(result.preset.environments)} environments and "
        f"{len(seeds)} seeds; {result.preset.trials} trials for each agent.",
        "",
        "| agent | defaults | chosen | trial | seconds of all trials | what the choice changes |",
        "|---|---|---|---|---|---|",
    ]
    for agent, trials in result.trials.items():
        chosen, default, seconds = result.chosen(agent), result.default(agent), sum(each.seconds for each in trials)
        lines.append(
            f"| {agent} | {shown(default.final_score)} | {shown(chosen.final_score)} | {chosen.candidate.number} "
            f"| {seconds:,.0f} | {described(chosen.candidate.drawn)} |"
        )
    for agent, trials in result.trials.items():
        lines += ["", f"## {agent}", "", "| trial | first seed | all seeds | config |", "|---|---|---|---|"]
        best = sorted(trials, key=lambda each: -(each.score if each.final_score is None else each.final_score))
        finalists = [each for each in best if each.final_score is not None]
        others = [each for each in best if each.final_score is None]
        for each in (finalists + others)[: max(SHOWN_TRIALS, len(finalists))]:
            config = described(each.candidate.drawn)
            final = "" if each.final_score is None else shown(each.final_score)
            lines.append(f"| {each.candidate.number} | {shown(each.score)} | {final} | {config} |")
        failed = [f"trial {each.candidate.number} ({each.failure})" for each in trials if each.failure]
        if failed:
            lines += ["", f"Failed, which counts as the worst score: {'; '.join(failed)}."]
    return "\n".join(lines) + "\n"


def shown(value: float | None) -> str:
    """A score for a table."""
    return "failed" if value is None or math.isinf(value) else f"{value:.3f}"


def described(drawn: Mapping[str, Any]) -> str:
    """A config in short."""
    return ", ".join(f"`{name}={value}`" for name, value in drawn.items()) or "nothing: the defaults"


def _write_study(result: Search, path: Path) -> None:
    """All trials as studies of Optuna, one for each agent."""
    optuna = import_optuna()
    path.unlink(missing_ok=True)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    for agent, trials in result.trials.items():
        study = optuna.create_study(storage=storage, study_name=agent, direction="maximize")
        for each in trials:
            done = math.isfinite(each.score)
            state = optuna.trial.TrialState.COMPLETE if done else optuna.trial.TrialState.FAIL
            drawn = each.candidate.drawn
            space = {name: one for name, one in distributions(SPACES[agent]).items() if name in drawn}
            study.add_trial(
                optuna.trial.create_trial(
                    state=state, value=each.score if done else None, params=drawn, distributions=space
                )
            )
