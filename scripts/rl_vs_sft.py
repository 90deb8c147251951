"""Reinforcement learning against supervised learning, at equal budgets, on prompts of kinds never seen in training.

    python scripts/rl_vs_sft.py                                 # minutes on one core
    python scripts/rl_vs_sft.py --preset smoke                  # seconds
    python scripts/rl_vs_sft.py --base runs/rlhf-quick/seed-0/pretraining/model

The style is to be glad, which no single right answer defines: any number of reviews are glad. A small language model,
pretrained on reviews of all kinds and sentiments, learns it from N demonstrations (SFT), or from N calls of the reward
(PPO), about six kinds of things; it is measured on prompts about those and about two others. Demonstrations are glad
reviews as the grammar writes them, or the gladdest of four, which a demonstrator chooses with the same judge.

Prints the tables, and writes them with ``scores.csv`` and ``rl_vs_sft.png``. Finished runs are kept: the same command
goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers.utils import logging

from agents.benchmark.plots import COLOURS, DASHES, MARKERS, STYLE
from agents.benchmark.results import versions
from agents.benchmark.suites import BenchmarkError
from agents.experiments import play_runs, write_csv
from agents.lm.actor_critic import LMActorCritic
from agents.lm.loading import load_model
from agents.lm.models import new_gpt2
from agents.lm.saving import replacing
from agents.lm.sft import SFTConfig, encode_rows, train_on_texts
from agents.ppo import PPO
from agents.rlhf.comparison_report import markdown
from agents.rlhf.evaluation import measure, write_texts
from agents.rlhf.intervals import Interval, bootstrap
from agents.rlhf.plots import to_png
from agents.rlhf.worlds import TinyReviewsWorld
from textenvs.tiny_reviews import TRAIN_KINDS

BASE_SEED = 0
DEMONSTRATIONS, TEXTS = 100_000, 7
"""Seeds of streams, apart from each other."""
METHODS = {"sft": "SFT", "sft-best": "SFT, best of four", "rl": "RL (PPO)"}
SPLITS = {"test": "kinds never seen", "train": "kinds of the training"}


@dataclass(frozen=True)
class Setting:
    """What is run, as pure data.

    Attributes:
        texts: that the base model is pretrained on.
        counts: budgets N: demonstrations, or calls of the reward.
        evaluation_texts: of one measurement, each to another prompt.
        sft_steps: gradient steps on the demonstrations, in as many epochs as that takes.
        sft_learning_rate, kl_coef, rl_learning_rate: chosen on seed 100, see docs/results.md.
    """

    texts: int = 102_400
    width: int = 96
    num_layers: int = 2
    counts: tuple[int, ...] = (256, 1_024, 4_096)
    evaluation_texts: int = 256
    sft_learning_rate: float = 1e-3
    sft_steps: int = 256
    rl_learning_rate: float = 1e-3
    kl_coef: float = 0.05
    num_envs: int = 64


PRESETS = {
    "quick": Setting(),
    "smoke": Setting(texts=640, width=32, num_layers=1, counts=(32, 64), evaluation_texts=24, num_envs=16, sft_steps=4),
}


@dataclass(frozen=True)
class Args:
    """Options."""

    preset: Literal["quick", "smoke"] = "quick"
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the learning; the base model is made once."""
    out: Path | None = None
    """Folder of the results; runs/rl-vs-sft-PRESET unless given."""
    base: Path | None = None
    """A pretrained model of TinyReviews to begin with, instead of one that is made here."""

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"rl-vs-sft-{self.preset}"


def pretrain(setting: Setting, folder: Path) -> None:
    """The base model, where it is not there yet."""
    if folder.is_dir():
        return
    world = TinyReviewsWorld()
    model = new_gpt2(
        world.tokenizer,
        width=setting.width,
        num_layers=setting.num_layers,
        num_heads=4,
        positions=64,
        seed=BASE_SEED,
    )

    def tell(done: int, of: int, loss: float) -> None:
        if done == of or done % 400 == 0:
            print(f"  pretraining: {done} of {of} steps, loss {loss:.3f}", file=sys.stderr, flush=True)

    train_on_texts(
        model, world.corpus(setting.texts, BASE_SEED), SFTConfig(learning_rate=8e-3), seed=BASE_SEED, on_progress=tell
    )
    with replacing(folder) as temporary:
        model.save_pretrained(temporary)
        world.tokenizer.save_pretrained(temporary)


def demonstrations(world: TinyReviewsWorld, count: int, seed: int, best_of: int) -> list[dict[str, str]]:
    """Rows ``{prompt, completion}``: glad reviews, each the gladdest of so many."""
    grammar = world.grammar
    reviews = grammar.sample(count * best_of, seed=DEMONSTRATIONS + seed, kinds=TRAIN_KINDS, sentiments=("positive",))
    rows = reviews.demonstrations()
    if best_of == 1:
        return rows
    judge = _judge(world)
    scores = judge([row["prompt"] for row in rows], [row["completion"] for row in rows]).reshape(count, best_of)
    return [rows[number * best_of + int(best)] for number, best in enumerate(scores.argmax(axis=1))]


def _judge(world: TinyReviewsWorld) -> Callable[[list[str], list[str]], np.ndarray]:
    from textenvs import Episodes

    def scores(prompts: list[str], completions: list[str]) -> np.ndarray:
        found = world.gold(Episodes.from_texts(prompts, completions))
        assert found is not None
        return found

    return scores


# -- runs --------------------------------------------------------------------------------------------------------------


def measured(policy: LMActorCritic, reference: LMActorCritic, setting: Setting, seed: int) -> dict[str, Any]:
    """Figures and gold scores of a policy on both splits. A copy of it writes."""
    world, found = TinyReviewsWorld(), {}
    for split in SPLITS:
        writer = policy.frozen_copy()
        answers = write_texts(writer, world, setting.evaluation_texts, TEXTS + seed, split)
        figures = measure(writer, answers, world, reference=reference, pretrained=None)
        gold, grammatical = world.gold(answers.episodes), world.grammatical(answers.episodes)
        assert gold is not None
        assert grammatical is not None
        first = answers.episodes
        found[split] = {
            "figures": asdict(figures),
            "gold": np.round(gold.astype(float), 4).tolist(),
            "grammatical": grammatical.tolist(),
            "samples": list(zip(first.prompts[:4], first.completions[:4], strict=True)),
        }
    return found


def play(args: Args, setting: Setting, base: Path, key: tuple[str, ...]) -> dict[str, Any]:
    """One run: a measurement for each budget that it passes."""
    method, seed = key[0], int(key[-1].removeprefix("seed "))
    reference = LMActorCritic.from_pretrained(base).frozen_copy()
    if method == "base":
        return {"0": measured(LMActorCritic.from_pretrained(base), reference, setting, seed)}
    if method == "rl":
        return by_reinforcement(setting, base, reference, seed)
    return by_demonstrations(setting, base, reference, seed, 4 if method == "sft-best" else 1, int(key[1]))


def by_demonstrations(
    setting: Setting, base: Path, reference: LMActorCritic, seed: int, best_of: int, count: int
) -> dict[str, Any]:
    """SFT on so many demonstrations."""
    world, model = TinyReviewsWorld(), load_model(base)
    corpus = encode_rows(demonstrations(world, count, seed, best_of), world.tokenizer)
    steps_of_an_epoch = -(-count // SFTConfig.batch_size)
    config = SFTConfig(learning_rate=setting.sft_learning_rate, epochs=max(setting.sft_steps // steps_of_an_epoch, 1))
    train_on_texts(model, corpus, config, seed=seed)
    return {str(count): measured(LMActorCritic(model, world.tokenizer), reference, setting, seed)}


def by_reinforcement(setting: Setting, base: Path, reference: LMActorCritic, seed: int) -> dict[str, Any]:
    """PPO, measured at the end of the batch in which each budget is used up."""
    world, found = TinyReviewsWorld(), {}
    policy = LMActorCritic.from_pretrained(base, critic="copy")
    agent = PPO(
        world.envs("train", setting.num_envs),
        policy=policy,
        reference=reference.frozen_copy(),
        seed=seed,
        kl_coef=setting.kl_coef,
        learning_rate=setting.rl_learning_rate,
        epochs=2,
        num_minibatches=2,
    )

    def after_batch(agent: Any) -> bool:
        for count in setting.counts:
            if agent.num_episodes >= count and str(count) not in found:
                found[str(count)] = measured(policy, reference, setting, seed)
                found[str(count)]["reward_calls"] = agent.num_episodes
        return bool(agent.num_episodes < setting.counts[-1])

    agent.learn(10**12, callback=after_batch)
    return found


def make_keys(setting: Setting, seeds: tuple[int, ...]) -> list[tuple[str, ...]]:
    """Names of all runs."""
    keys: list[tuple[str, ...]] = []
    for seed in seeds:
        keys.append(("base", f"seed {seed}"))
        keys += [(method, str(n), f"seed {seed}") for method in ("sft", "sft-best") for n in setting.counts]
        keys.append(("rl", f"seed {seed}"))
    return keys


# -- what they show ----------------------------------------------------------------------------------------------------

Found = dict[tuple[str, int], list[dict[str, Any]]]
"""(method, budget) to the measurements of every seed."""


def collect(results: dict[tuple[str, ...], dict[str, Any]]) -> Found:
    """Measurements by method and budget."""
    found: Found = {}
    for key, by_count in results.items():
        for count, each in by_count.items():
            found.setdefault((key[0], int(count)), []).append(each)
    return found


def gold(measurement: dict[str, Any], split: str, grammatical_only: bool = False) -> np.ndarray:
    """Scores of the texts; 0 for those that are not grammatical, if those do not count."""
    scores = np.array(measurement[split]["gold"])
    return np.where(measurement[split]["grammatical"], scores, 0.0) if grammatical_only else scores


def interval(found: Found, method: str, count: int, split: str, grammatical_only: bool = False) -> Interval:
    """Mean gold score with its interval."""
    return bootstrap([gold(each, split, grammatical_only) for each in found[method, count]])


def scores_table(found: Found, setting: Setting) -> list[list[str]]:
    """Header and rows: every method and budget."""
    table = [["budget", "method", "demonstrations", "reward calls", *(f"gold, {name}" for name in SPLITS.values())]]
    table[0] += ["grammatical, never seen", "the same, training", "KL from the base", "tokens", "distinct"]
    rows = [("base", 0)] + [(method, n) for n in setting.counts for method in METHODS]
    for method, count in rows:
        each = found[method, count]
        row = [f"{count:,}", METHODS.get(method, "base model")]
        row += spent(method, count, each)
        row += [interval(found, method, count, split).text(".2f") for split in SPLITS]
        for split in SPLITS:
            row.append(f"{100 * np.mean([one[split]['figures']['grammatical'] for one in each]):.0f} %")
        for name, style in (("kl", ".1f"), ("length", ".1f"), ("distinct", ".2f")):
            row.append(f"{np.mean([one['test']['figures'][name] for one in each]):{style}}".replace("-", "−"))
        table.append(row)
    return table


def spent(method: str, count: int, measurements: list[dict[str, Any]]) -> list[str]:
    """Demonstrations and calls of the reward. PPO finishes the batch in which its budget is used up; whoever chooses
    the best of four demonstrations has asked about four times as many."""
    calls = {"sft-best": 4 * count, "rl": round(np.mean([each.get("reward_calls", 0) for each in measurements]))}
    return [f"{0 if method == 'rl' else count:,}", f"{calls.get(method, 0):,}"]


def differences_table(found: Found, setting: Setting) -> list[list[str]]:
    """Header and rows: RL less SFT on kinds never seen, for the same seeds and prompts."""
    names = [(method, only) for method in ("sft", "sft-best") for only in (False, True)]
    what = {False: "gold", True: "gold of grammatical texts"}
    table = [["budget", *(f"RL − {METHODS[method]}: {what[only]}" for method, only in names)]]
    for count in setting.counts:
        row = [f"{count:,}"]
        for method, only in names:
            pairs = zip(found["rl", count], found[method, count], strict=True)
            difference = bootstrap([gold(x, "test", only) - gold(y, "test", only) for x, y in pairs])
            row.append(difference.text("+.2f"))
        table.append(row)
    return table


def samples_table(found: Found, setting: Setting) -> list[list[str]]:
    """Header and rows: what was written to the first prompts of a kind never seen, at the largest budget."""
    table = [["prompt", "method", "text"]]
    for number in range(3):
        for method, count in [("base", 0), *((method, setting.counts[-1]) for method in METHODS)]:
            prompt, text = found[method, count][0]["test"]["samples"][number]
            table.append([prompt, METHODS.get(method, "base model"), text])
    return table


def draw(found: Found, setting: Setting) -> Figure:
    """Gold score on both splits, and the share of grammatical texts, against the budget."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.6, 3.4), layout="constrained")
        axes: Any = figure.subplots(1, 3)
        for panel, split in zip(axes, SPLITS, strict=False):
            _draw_scores(panel, found, setting, split)
            panel.set_title(f"Gold score, {SPLITS[split]}", loc="left")
        for i, method in enumerate(METHODS):
            shares = [
                [100 * each["test"]["figures"]["grammatical"] for each in found[method, n]] for n in setting.counts
            ]
            axes[2].plot(setting.counts, np.mean(shares, axis=1), **_style(i))
            axes[2].fill_between(setting.counts, np.min(shares, axis=1), np.max(shares, axis=1), **_shade(i))
        base = 100 * np.mean([each["test"]["figures"]["grammatical"] for each in found["base", 0]])
        axes[2].axhline(base, color="0.5", lw=0.9, ls=":")
        axes[2].set_title("% grammatical, kinds never seen", loc="left")
        for panel in axes:
            panel.set(xscale="log", xlabel="demonstrations, or calls of the reward")
            panel.set_xticks(setting.counts, [f"{n:,}" for n in setting.counts])
            panel.minorticks_off()
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=5, frameon=False)
    return figure


def _draw_scores(axes: Axes, found: Found, setting: Setting, split: str) -> None:
    for i, method in enumerate(METHODS):
        each = [interval(found, method, n, split) for n in setting.counts]
        axes.plot(setting.counts, [one.mean for one in each], label=METHODS[method], **_style(i))
        axes.fill_between(setting.counts, [one.low for one in each], [one.high for one in each], **_shade(i))
    base = interval(found, "base", 0, split).mean
    axes.axhline(base, color="0.5", lw=0.9, ls=":", label="base model")


def _style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i], "linestyle": DASHES[i], "marker": MARKERS[i], "markersize": 4, "lw": 1.5}


def _shade(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i], "alpha": 0.18, "linewidth": 0}


def main(args: Args) -> int:
    """Run what is not finished yet, print and write what came out; returns the exit code."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    if len(set(args.seeds)) != len(args.seeds) or not args.seeds or min(args.seeds) < 0:
        raise BenchmarkError(f"--seeds must be different numbers from 0 on, at least one; got {list(args.seeds)}.")
    setting, out = PRESETS[args.preset], args.folder
    base = args.base or out / "base"
    keys = make_keys(setting, args.seeds)
    settings = {"rl_vs_sft": {**asdict(setting), "base": str(args.base)}, "versions": versions()}

    def play_one(key: tuple[str, ...]) -> dict[str, Any]:
        if args.base is None:
            pretrain(setting, base)
        return play(args, setting, base, key)

    found = collect(play_runs(out, settings, keys, play_one))
    scores = scores_table(found, setting)
    text = "\n".join(
        markdown(table) for table in (scores, differences_table(found, setting), samples_table(found, setting))
    )
    (out / "rl_vs_sft.md").write_text(text, encoding="utf-8")
    rows = [dict(zip(scores[0], row, strict=True)) for row in scores[1:]]
    write_csv(out / "scores.csv", rows)
    to_png(draw(found, setting), out / "rl_vs_sft.png")
    print(text)
    print(f"written: {out / 'rl_vs_sft.md'}, {out / 'scores.csv'}, {out / 'rl_vs_sft.png'}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Args, description=__doc__)))
    except (BenchmarkError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the runs that have finished.", file=sys.stderr)
        sys.exit(130)
