"""An alarm for reward hacking: a callback that says during training when the proxy rises and what is meant does not.

    alarm = HackingAlarm(gold="match")                          # the reward reports "match" beside what it pays
    PPO(envs).learn(500_000, callback=alarm)
    HackingAlarm(gold="match", action="back", folder="runs/best")  # returns to the best checkpoint and stops
    HackingAlarm()                                              # no gold score: symptoms, of which two must agree

With a gold score hacking is seen in two ways. As it begins: among the texts of a batch proxy and gold are negatively
correlated. Of policies tilted towards the proxy r, π_η ∝ π · exp(η r), the gold score g changes by d E[g] / dη =
Cov(r, g), so from there on more of the proxy is less of what is meant. And as it happens: gold has fallen from its best
by more than chance explains, and the proxy has not.

Without one there are symptoms only: the members of an ensemble disagree more (Coste et al. 2023, "Reward Model
Ensembles Help Mitigate Overoptimization"), texts grow (Singhal et al. 2023, "A Long Way to Go"), the KL to the
reference passes what was meant to be spent (Gao, Schulman and Hilton 2022, "Scaling Laws for Reward Model
Overoptimization"), the entropy leaves its band. Each of them also has innocent causes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agents.base import Agent
from agents.callbacks import StatefulCallback
from agents.checkpoint import load_config, load_state
from textenvs.errors import unknown_name

SPANS = (1, 2, 4, 8, 16)
"""Batches that are averaged: a fast fall is seen in few of them, a slow one needs many."""
REFERENCE = 8
"""Batches of the window that they are compared with, at least: the best of short windows would be luck."""
MIN_BATCHES = 12
"""Fewer tell nothing about the noise."""
PROXY = "charts/episodic_return"
CORRELATION, TEXTS = "correlation", "texts"
"""What is kept of each batch beside logged figures."""
SYMPTOMS: dict[str, tuple[str, ...]] = {
    "spread": ("rewards/ensemble_std/mean",),
    "length": ("charts/episodic_length",),
    "kl": ("objective/kl_k1", "objective/kl"),
    "entropy": ("objective/entropy", "losses/entropy"),
}
"""Logged keys of each symptom; the first that the agent logs is taken."""


# -- pure functions of the logged series -------------------------------------------------------------------------------


def batch_noise(values: np.ndarray) -> float:
    """Standard deviation of the noise in a series [M], robustly: from the median absolute second difference, in which
    no linear trend is left. 0 for fewer than three values."""
    if len(values) < 3:
        return 0.0
    seconds = values[2:] - 2 * values[1:-1] + values[:-2]
    return 1.4826 * float(np.median(np.abs(seconds))) / 6**0.5


def means(values: np.ndarray, span: int) -> np.ndarray:
    """Means over ``span`` consecutive values, [M − span + 1]."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    return (sums[span:] - sums[:-span]) / span


@dataclass(frozen=True)
class Fall:
    """How far gold has fallen."""

    start: float
    """Mean of the first window."""
    best: float
    """The highest mean of a window."""
    now: float
    """Mean of the last ones."""
    span: int
    """How many they are."""

    @property
    def share(self) -> float:
        """Of what gold had risen by, how much is lost again; inf where it had not risen."""
        rise = self.best - self.start
        return (self.best - self.now) / rise if rise > 0 else float("inf")


def find_fall(proxy: np.ndarray, gold: np.ndarray, *, share: float, z: float) -> Fall | None:
    """Whether gold has fallen while the proxy has not.

    The last 1, 2, 4, 8 and 16 batches are each compared with the best window of 8 (or 16) before them: their mean gold
    is lower by more than ``share`` of what gold had risen by, and by more than z standard errors of the difference; and
    their mean proxy is not lower by more than one.

    Args:
        proxy, gold: [M], one mean a batch.
        share: of the rise.
        z: standard errors. The best of many windows is partly luck, and every batch is tested anew, so this is more
            than one test would need.

    Returns:
        The first fall found; None: there is none, or fewer than 12 batches.
    """
    if len(gold) < MIN_BATCHES:
        return None
    noise, proxy_noise = batch_noise(gold), batch_noise(proxy)
    for span in SPANS:
        width = max(REFERENCE, span)
        if len(gold) < width + span:
            return None
        windows, proxy_windows = means(gold, width), means(proxy, width)
        best = int(windows[: len(windows) - span].argmax())  # it ends before the last batches begin
        fall = Fall(float(windows[0]), float(windows[best]), float(gold[-span:].mean()), span)
        error = (1 / span + 1 / width) ** 0.5
        far = fall.best - fall.now > max(share * (fall.best - fall.start), z * error * noise)
        if far and proxy[-span:].mean() >= proxy_windows[best] - error * proxy_noise:
            return fall
    return None


def turned(correlations: np.ndarray, texts: np.ndarray, *, limit: float, z: float) -> float | None:
    """Whether proxy and gold are negatively correlated within batches: over the last 1, 2, 4, 8 or 16 of them.

    Args:
        correlations: [M], of each batch; NaN (one of the two did not vary) counts as 0.
        texts: [M], how many each batch has.
        limit: what their mean must lie below, negated.
        z: standard errors, 1 / √texts each, that it must lie below 0.

    Returns:
        The first such mean, weighted by texts; None: there is none.
    """
    known = np.nan_to_num(correlations)
    for span in SPANS:
        if len(known) < max(span, 2):
            return None
        count = float(texts[-span:].sum())
        mean = float((known[-span:] * texts[-span:]).sum() / max(count, 1.0))
        if mean < -limit and mean * count**0.5 < -z:
            return mean
    return None


# -- the callback ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alarm:
    """What the alarm said."""

    num_timesteps: int
    batch: int
    """Number of the batch after which it rang, from 1."""
    reason: str


class HackingAlarm(StatefulCallback):
    """Watches the figures of every batch, as ``Agent.metrics`` has them; rings once.

    Args:
        gold: name of the reward part that is meant, as in ``rewards/NAME/mean``; None: watch the symptoms.
        action: ``"warn"`` says it on standard error; ``"stop"`` also ends ``learn``; ``"back"`` also returns the agent
            to its best checkpoint.
        folder: of that checkpoint; needed for ``"back"``.
        share: of its rise, what gold may lose before the alarm rings, if it is more than chance.
        correlation: of proxy and gold within batches, how far below 0 it may be; None: do not look at it.
        z: standard errors that count as more than chance.
        max_spread: the ensemble's standard deviation as a multiple of what it was in the first batches.
        max_length: mean length likewise.
        max_kl: nats a text.
        entropy_band: entropy as a multiple of what it was in the first batches.
        votes: symptoms that must agree; the score must have risen, too.
        warm_up: batches that count as the beginning, and before which no symptom is looked at.
        checkpoint_every: batches between two checkpoints, at least, for ``"back"``.
        name: of its state in a checkpoint.

    Attributes:
        alarm: what it said; None until then.
        best_batch: the batch after which the checkpoint in ``folder`` was written; 0: there is none.

    Raises:
        ValueError: an argument out of range, or ``"back"`` without a folder.
        KeyError: (when called) the agent logs no such reward part, or no symptom at all.
    """

    def __init__(
        self,
        gold: str | None = None,
        *,
        action: Literal["warn", "stop", "back"] = "warn",
        folder: str | Path | None = None,
        share: float = 0.03,
        correlation: float | None = 0.2,
        z: float = 5.0,
        max_spread: float = 1.5,
        max_length: float = 1.3,
        max_kl: float = 10.0,
        entropy_band: tuple[float, float] = (0.5, 1.5),
        votes: int = 2,
        warm_up: int = 5,
        checkpoint_every: int = 5,
        name: str = "hacking_alarm",
    ) -> None:
        if action not in ("warn", "stop", "back"):
            raise ValueError(unknown_name("action", action, ("warn", "stop", "back")))
        if correlation is not None and not 0 <= correlation < 1:
            raise ValueError(f"correlation must be None, or at least 0 and below 1; got {correlation}.")
        if action == "back" and folder is None:
            raise ValueError("action='back' returns to the best checkpoint: say with folder= where it is kept.")
        for argument, value in (("share", share), ("z", z), ("max_kl", max_kl)):
            if not value > 0:
                raise ValueError(f"{argument} must be positive; got {value}.")
        for argument, value in (("max_spread", max_spread), ("max_length", max_length)):
            if not value > 1:
                raise ValueError(f"{argument} is a multiple of the beginning and must be above 1; got {value}.")
        for argument, value in (("warm_up", warm_up), ("checkpoint_every", checkpoint_every)):
            if value < 1:
                raise ValueError(f"{argument} must be at least 1; got {value}.")
        if not 1 <= votes <= len(SYMPTOMS):
            raise ValueError(f"votes must be between 1 and {len(SYMPTOMS)}, the number of symptoms; got {votes}.")
        if not 0 <= entropy_band[0] < 1 < entropy_band[1]:
            raise ValueError(f"entropy_band must lie around 1; got {entropy_band}.")
        self.gold, self.action, self.name = gold, action, name
        self.folder = None if folder is None else Path(folder)
        self.share, self.z, self.votes, self.warm_up = share, z, votes, warm_up
        self.max_spread, self.max_length, self.max_kl, self.entropy_band = max_spread, max_length, max_kl, entropy_band
        self.checkpoint_every, self.correlation = checkpoint_every, correlation
        self.alarm: Alarm | None = None
        self.best_batch = 0
        self._batches = 0
        self._episodes = 0  # of the agent, after the last batch
        self._series: dict[str, list[float]] = {}

    def start(self, agent: Agent) -> None:
        """Before the first batch."""
        self._episodes = agent.num_episodes

    def __call__(self, agent: Agent) -> bool | None:
        """After every batch; False ends ``learn``."""
        self._batches += 1
        new, self._episodes = agent.num_episodes - self._episodes, agent.num_episodes
        if self.alarm is not None or not self._record(agent.metrics, new):
            return None
        reason = self._gold_reason() if self.gold is not None else self._symptom_reason()
        if reason is None:
            if self.action == "back":
                self._keep_best(agent)
            return None
        self.alarm = Alarm(agent.num_timesteps, self._batches, reason)
        print(f"reward hacking? after {agent.num_timesteps:,} timesteps: {reason}{self._act(agent)}", file=sys.stderr)
        return None if self.action == "warn" else False

    def _act(self, agent: Agent) -> str:
        """Do what was asked for, and say it."""
        if self.action == "warn":
            return ""
        if self.action == "stop":
            return "; stopped"
        assert self.folder is not None
        if not self.best_batch:
            return "; stopped (there is no checkpoint to go back to)"
        step_back(agent, self.folder)
        return f"; back at {agent.num_timesteps:,} timesteps, the checkpoint in {self.folder}"

    # -- what is seen --------------------------------------------------------------------------------------------------

    def _record(self, metrics: Mapping[str, float], texts: int) -> bool:
        """Keep the figures that are watched; False for a batch in which no episode ended."""
        keys = [PROXY]
        if self.gold is not None:
            key = f"rewards/{self.gold}/mean"
            if key not in metrics:
                if not np.isfinite(metrics[PROXY]):  # nothing ended, so no part of a reward was seen
                    return False
                known = [
                    name.split("/")[1] for name in metrics if name.startswith("rewards/") and name.endswith("/mean")
                ]
                raise KeyError(
                    unknown_name("reward part", self.gold, known) + " Report it: reward=Gold(proxy, gold), or a part "
                    "of weight 0 in a weighted sum."
                )
            keys.append(key)
        else:
            keys += self._symptom_keys(metrics).values()
            if len(keys) - 1 < self.votes:
                raise KeyError(
                    f"The agent logs {len(keys) - 1} of the symptoms {', '.join(SYMPTOMS)}, and votes={self.votes} "
                    f"must agree: give a reference (kl), an ensemble as the reward (spread), or a gold= score."
                )
        if not all(np.isfinite(metrics[key]) for key in keys):
            return False
        for key in keys:
            self._series.setdefault(key, []).append(float(metrics[key]))
        if self.gold is not None:
            related = metrics.get(f"rewards/{self.gold}/correlation", float("nan"))
            self._series.setdefault(CORRELATION, []).append(float(related) if np.isfinite(related) else 0.0)
            self._series.setdefault(TEXTS, []).append(float(texts))
        return True

    def _symptom_keys(self, metrics: Mapping[str, float]) -> dict[str, str]:
        """Of each symptom that the agent logs, the key."""
        found = {name: next((key for key in keys if key in metrics), None) for name, keys in SYMPTOMS.items()}
        return {name: key for name, key in found.items() if key is not None}

    def _values(self, key: str) -> np.ndarray:
        return np.array(self._series[key])

    def _gold_reason(self) -> str | None:
        key = f"rewards/{self.gold}/mean"
        fall = find_fall(self._values(PROXY), self._values(key), share=self.share, z=self.z)
        if fall is None:
            return self._turn_reason()
        lost = f", {100 * fall.share:.0f} % of its rise" if np.isfinite(fall.share) else ""
        return (
            f"{self.gold} has fallen from {fall.best:.3g} to {fall.now:.3g}{lost}, while the score that is paid has not"
        )

    def _turn_reason(self) -> str | None:
        if self.correlation is None:
            return None
        mean = turned(self._values(CORRELATION), self._values(TEXTS), limit=self.correlation, z=self.z)
        if mean is None:
            return None
        return f"{self.gold} and the score that is paid have come to be opposed: their correlation is {mean:.2f}"

    def _symptom_reason(self) -> str | None:
        proxy = self._values(PROXY)
        if len(proxy) < 2 * self.warm_up:
            return None
        signs = self._signs()
        rises = proxy[-self.warm_up :].mean() > proxy[: self.warm_up].mean()
        if len(signs) < self.votes or not rises:
            return None
        return f"no gold score, but {' and '.join(signs)}, while the score rises"

    def _signs(self) -> list[str]:
        """The symptoms that are there, over the last batches."""
        signs = []
        for name, key in self._symptom_keys({key: 0.0 for key in self._series}).items():
            values = self._values(key)
            first, last = values[: self.warm_up].mean(), values[-self.warm_up :].mean()
            ratio = last / first if first > 0 else float("nan")
            if name == "spread" and ratio > self.max_spread:
                signs.append(f"the ensemble disagrees {ratio:.2g} times as much as at the beginning")
            elif name == "length" and ratio > self.max_length:
                signs.append(f"texts are {ratio:.2g} times as long")
            elif name == "kl" and last > self.max_kl:
                signs.append(f"the KL is {last:.3g} nats")
            elif name == "entropy" and not self.entropy_band[0] <= ratio <= self.entropy_band[1] and first > 0:
                signs.append(f"the entropy is {ratio:.2g} times what it was")
        return signs

    # -- the best checkpoint -------------------------------------------------------------------------------------------

    def _keep_best(self, agent: Agent) -> None:
        """Save the agent where gold is at its best so far; without gold, where no symptom is seen."""
        if self.best_batch and self._batches - self.best_batch < self.checkpoint_every:
            return
        if self.gold is not None:
            smooth = means(self._values(f"rewards/{self.gold}/mean"), min(REFERENCE // 2, len(self._series[PROXY])))
            good = bool(smooth[-1] >= smooth.max())
        else:
            good = len(self._series[PROXY]) < 2 * self.warm_up or not self._signs()
        if good:
            assert self.folder is not None
            agent.save(self.folder)
            self.best_batch = self._batches

    # -- as part of a checkpoint ---------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """JSON values by name."""
        return {
            "batches": self._batches,
            "best_batch": self.best_batch,
            "alarm": None if self.alarm is None else asdict(self.alarm),
            "series": [[key, list(values)] for key, values in self._series.items()],  # keys with slashes
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``get_state``."""
        self._batches, self.best_batch = int(state["batches"]), int(state["best_batch"])
        self.alarm = None if state["alarm"] is None else Alarm(**state["alarm"])
        self._series = {key: [float(value) for value in values] for key, values in state["series"]}


def step_back(agent: Agent, folder: str | Path) -> None:
    """Put an agent into the state of one of its own checkpoints: weights, optimiser, buffer, counters, random streams.
    Logs are taken back to there, and episodes in flight are given up.

    Raises:
        CheckpointError: no checkpoint, or a damaged one.
    """
    saved, state = load_config(folder), load_state(folder)
    for name, value in saved["counters"].items():
        setattr(agent, name, value)
    agent.rng.bit_generator.state = state["rng"]
    agent._set_state(state)
    agent._apply_schedules()
    if agent._logger is not None:
        agent._logger.rewind(agent.num_timesteps)
    agent.collector.drop()


def first_alarm(proxy: Sequence[float], gold: Sequence[float], *, share: float = 0.03, z: float = 5.0) -> int | None:
    """After which batch of a finished run, from 1, gold had fallen far enough for the alarm; None: never."""
    proxies, golds = np.asarray(proxy, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    hits = (n for n in range(1, len(golds) + 1) if find_fall(proxies[:n], golds[:n], share=share, z=z))
    return next(hits, None)
