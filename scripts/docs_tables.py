"""Writes the tables in docs/ that come from the registries: environments and reward models.

python scripts/docs_tables.py            # write them
python scripts/docs_tables.py --check    # fail if they are not up to date
"""

from __future__ import annotations

import inspect
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import tyro

import textenvs
from textenvs.rewards.registry import built_in_rewards, reward_plugin

DOCS = Path(__file__).resolve().parent.parent / "docs"


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
    """One row for each environment id, at its default sizes; as it stands now where an extra is not installed."""
    rows = [
        "| id | prompt | tokens to write | vocabulary | random score | optimum | what is to be written |",
        "|---|---|---|---|---|---|---|",
    ]
    for env_id in textenvs.list_envs():
        try:
            env = gym.make(env_id).unwrapped
        except ImportError as error:
            print(f"{env_id} is left as it is: {error}")
            rows += [line for line in current.splitlines() if line.startswith(f"| `{env_id}` |")]
            continue
        assert isinstance(env, textenvs.TextEnv)
        task, spec = env.task, env.text_spec
        prompt = f"{spec.prompt_length} tokens" if task.has_prompts else "none"
        random, optimum = known(task.random_score, ".4f"), known(task.optimum, "g")
        rows.append(
            f"| `{env_id}` | {prompt} | {spec.max_new_tokens} | {spec.num_tokens} | {random} | {optimum} "
            f"| {first_sentence(type(task))} |"
        )
    return "\n".join(rows)


def known(value: float, form: str) -> str:
    """A figure, or a dash where nobody knows it."""
    return "–" if math.isnan(value) else format(value, form)


TABLES = {"rewards.md": ("table of rewards", rewards_table), "environments.md": ("table of environments", envs_table)}


def main(args: Args) -> None:
    """Write or check every table."""
    stale = []
    for file, (name, make_table) in TABLES.items():
        path = DOCS / file
        text = path.read_text(encoding="utf-8")
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        table, after = rest.split(end)
        current = f"{before}{begin}{make_table(table)}\n{end}{after}"
        if current != text:
            stale.append(path.name)
            if not args.check:
                path.write_text(current, encoding="utf-8")
    if stale and args.check:
        sys.exit(f"Out of date in docs/: {', '.join(stale)}. Run: python scripts/docs_tables.py")
    print(f"docs tables: {'written: ' + ', '.join(stale) if stale else 'up to date'}")


if __name__ == "__main__":
    main(tyro.cli(Args))
