"""Writes what README and docs/ say that comes from elsewhere: tables of the registries (environments, their arguments
and episodes; reward models), figures of the committed results, tuned configs.

python scripts/docs_tables.py            # write them
python scripts/docs_tables.py --check    # fail if they are not up to date
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro

import textenvs
from agents.benchmark.digest import results_text, summary_text, tuned_table
from agents.benchmark.report import Report, read_report
from textenvs.rewards.registry import built_in_rewards, reward_plugin
from textenvs.tasks import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = ROOT / "docs" / "results" / "standard.tar.xz"
"""The rows of the ``standard`` preset, packed by scripts/report.py."""


@dataclass(frozen=True)
class Args:
    """Options."""

    check: bool = False
    """Change nothing; exit with 1 if a table is out of date."""


def first_sentence(thing: object) -> str:
    """The first paragraph of a docstring, on one line, safe inside a table."""
    paragraph = inspect.getdoc(thing).split("\n\n")[0]  # type: ignore[union-attr]  # every plug-in has one; a test asks
    return " ".join(paragraph.split()).replace("|", "\\|").replace("``", "`")


def number(value: float) -> str:
    """A bound of a range."""
    return {float("inf"): "∞", float("-inf"): "−∞"}.get(value, f"{value:g}".replace("-", "−"))


def rewards_table(current: str) -> str:
    """One row for each built-in reward model."""
    rows = ["| name | range | deterministic | cost | what it is |", "|---|---|---|---|---|"]
    for name in built_in_rewards():
        plugin = reward_plugin(name)
        low, high = getattr(plugin, "low", None), getattr(plugin, "high", None)
        span = "from its parts" if low is None or high is None else f"[{number(low)}, {number(high)}]"
        deterministic = getattr(plugin, "deterministic", None)
        same = "as its parts" if deterministic is None else ("yes" if deterministic else "no")
        cost = vars(plugin).get("cost", "its parts")
        rows.append(f"| `{name}` | {span} | {same} | {cost} | {first_sentence(plugin)} |")
    return "\n".join(rows)


def envs_table(current: str) -> str:
    """One row for each environment id, at its default sizes."""
    rows = [
        "| id | family | prompt | to write | vocabulary | mask | random score | optimum | what is to be written |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for family, env_id, env in every_env(current, rows):
        task, spec = env.task, env.text_spec
        prompt = tokens(spec.prompt_length) if task.has_prompts else "none"
        random, optimum = known(task.random_score, ".4f"), known(task.optimum, "g")
        rows.append(
            f"| `{env_id}` | {family} | {prompt} | {tokens(spec.max_new_tokens)} | {spec.num_tokens} "
            f"| {'yes' if spec.has_masks else 'no'} | {random} | {optimum} | {first_sentence(type(task))} |"
        )
    return "\n".join(rows)


def examples_table(current: str) -> str:
    """One episode of each environment id under seed 0: the oracle's, and one of random legal actions."""
    rows = ["| id | prompt | the oracle's text | score | a random text | score |", "|---|---|---|---|---|---|"]
    for _, env_id, env in every_env(current, rows):
        played = []
        for rng in (None, np.random.default_rng(0)):
            obs, _ = env.reset(seed=0)
            prompt = obs[: env.text_spec.prompt_length]
            text = env.task.oracle(prompt[None])[0].tolist()
            info: dict[str, Any] = {}
            over, t = False, 0
            while not over:
                masks = env.action_masks()
                action = text[t] if rng is None else np.where(masks, rng.random(masks.shape), -1.0).argmax()
                obs, _, over, _, info = env.step(action)
                t += 1
            written = env.task.vocab.decode(obs[len(prompt) :].tolist())
            ended = " ■" if info["finish_reason"] == "stop" else ""
            played.append(f"{shown(written)}{ended} | {info['score']:.2f}")
        rows.append(f"| `{env_id}` | {shown(env.task.vocab.decode(prompt.tolist()))} | {' | '.join(played)} |")
    return "\n".join(rows)


def sizes_table(current: str) -> str:
    """The arguments of each environment id that belong to its task, with their defaults."""
    rows = ["| id | arguments and their defaults |", "|---|---|"]
    for tasks in FAMILIES.values():
        for task in tasks:
            parameters = inspect.signature(task).parameters.values()
            shown_arguments = [f"`{each.name}={each.default!r}`" for each in parameters if each.name != "split"]
            rows.append(f"| `textenvs/{task.name}-v0` | {', '.join(shown_arguments) or 'none'} |")
    return "\n".join(rows)


def every_env(current: str, rows: list[str]) -> Iterator[tuple[str, str, textenvs.TextEnv]]:
    """Family, id and environment, family by family. Where an extra is not installed, the present row is kept."""
    for family, tasks in FAMILIES.items():
        for task in tasks:
            env_id = f"textenvs/{task.name}-v0"
            try:
                env = gym.make(env_id).unwrapped
            except ImportError as error:
                print(f"{env_id} is left as it is: {error}")
                rows += [line for line in current.splitlines() if line.startswith(f"| `{env_id}` |")]
                continue
            assert isinstance(env, textenvs.TextEnv)
            yield family, env_id, env


def shown(text: str) -> str:
    """A text as code, safe inside a table; the end of a long one is left out."""
    if not text:
        return "–"
    text = text if len(text) <= 36 else text[:35] + "…"
    return f"`{text}`".replace("|", "\\|").replace("\n", "⏎")


def tokens(count: int) -> str:
    """A length."""
    return f"{count} token" if count == 1 else f"{count} tokens"


def known(value: float, form: str) -> str:
    """A figure, or a dash where nobody knows it."""
    return "–" if math.isnan(value) else format(value, form)


@functools.cache
def committed_report() -> Report:
    """The report of the committed rows."""
    return read_report([COMMITTED])


TABLES = [
    ("docs/rewards.md", "table of rewards", rewards_table),
    ("docs/environments.md", "table of environments", envs_table),
    ("docs/tasks.md", "example episodes", examples_table),
    ("docs/tasks.md", "table of sizes", sizes_table),
    ("docs/benchmark.md", "tuned configs", lambda current: tuned_table()),
    ("docs/results.md", "results of standard", lambda current: results_text(committed_report())),
    ("README.md", "results of standard", lambda current: summary_text(committed_report())),
]


def main(args: Args) -> None:
    """Write or check every table."""
    stale = []
    for file, name, make_table in TABLES:
        path = ROOT / file
        text = path.read_text(encoding="utf-8")
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        table, after = rest.split(end)
        current = f"{before}{begin}{make_table(table)}\n{end}{after}"
        if current != text:
            stale.append(f"{file} ({name})")
            if not args.check:
                path.write_text(current, encoding="utf-8")
    if stale and args.check:
        sys.exit(f"Out of date: {', '.join(stale)}. Run: python scripts/docs_tables.py")
    print(f"docs tables: {'written: ' + ', '.join(stale) if stale else 'up to date'}")


if __name__ == "__main__":
    main(tyro.cli(Args))
