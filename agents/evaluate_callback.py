"""Evaluating an agent again and again while it learns: learning curves, early stop, the best checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from agents import distributed
from agents.base import SEED_STRIDE, Agent, Metrics
from agents.callbacks import StatefulCallback
from agents.evaluation import evaluate_agent
from agents.logger import Logger

EVALUATION_OFFSET = 50_000
"""Evaluation episodes are seeded half-way to the next agent's seeds."""


class EvaluateCallback(StatefulCallback):
    """Evaluates an agent every so many timesteps or episodes while it learns, before the first batch included.

    Each evaluation plays episodes of their own, the same ones every time, on every split, with the best tokens
    ("greedy") and as sampled in training ("sampled"). Training does not notice it: no counter, random number or figure
    of it changes. Results are called ``eval/SPLIT/MODE_score`` and ``eval/SPLIT/MODE_length`` and go into
    ``evaluations.csv`` and TensorBoard's files of the agent's ``log_dir``, if it has one.

    Give it to ``learn`` before a callback that saves: what a checkpoint holds is then the state after the evaluation.

    Args:
        every_timesteps, every_episodes: how often; one of them.
        num_episodes: of each evaluation (of one greedy evaluation without prompts: 1, as all would be alike).
        splits: "train", "test" prompts or both; None: both, or "train" alone where there are no prompts.
        modes: "greedy", "sampled" or both.
        metric: the result by which agents are compared; None: the score on the last split, in the first mode.
        stop_at: learning stops when the metric has reached this …
        consecutive: … in so many evaluations in a row.
        keep_best: folder for a checkpoint of the agent whose metric was best (the first of equals).
        env_id: where to evaluate; None: where the agent learns, if that was given by an id.
        env_kwargs: arguments of that environment; None: the agent's.
        seed: of the evaluation; None: from the agent's, apart from its own episodes.
        name: of the callback's state in a checkpoint.

    Attributes:
        results: of all evaluations since this object was made: timesteps, episodes, and the results.
        best: the best metric so far.

    Raises:
        ValueError: arguments out of range.
    """

    MODES: ClassVar = ("greedy", "sampled")

    def __init__(
        self,
        every_timesteps: int | None = None,
        every_episodes: int | None = None,
        *,
        num_episodes: int = 256,
        splits: tuple[str, ...] | None = None,
        modes: tuple[str, ...] = MODES,
        metric: str | None = None,
        stop_at: float | None = None,
        consecutive: int = 1,
        keep_best: str | Path | None = None,
        env_id: str | None = None,
        env_kwargs: dict[str, Any] | None = None,
        seed: int | None = None,
        name: str = "evaluate",
    ) -> None:
        if (every_timesteps is None) == (every_episodes is None):
            raise ValueError("Say how often to evaluate: every_timesteps= or every_episodes=, one of them.")
        self.every = every_timesteps if every_timesteps is not None else every_episodes or 0
        for argument, value in (("every", self.every), ("num_episodes", num_episodes), ("consecutive", consecutive)):
            if value < 1:
                raise ValueError(f"{argument} must be at least 1; got {value}.")
        if not modes or not set(modes) <= set(self.MODES):
            raise ValueError(f"modes must be some of {', '.join(self.MODES)}; got {modes}.")
        self.in_episodes = every_timesteps is None
        self.num_episodes, self.splits, self.modes, self.metric = num_episodes, splits, modes, metric
        self.stop_at, self.consecutive = stop_at, consecutive
        self.keep_best = None if keep_best is None else Path(keep_best)
        self.env_id, self.env_kwargs, self.seed, self.name = env_id, env_kwargs, seed, name
        self.results: list[Metrics] = []
        self.best: float | None = None
        self._due = 0
        self._streak = 0  # evaluations in a row that reached stop_at
        self._last: int | None = None  # timesteps at the last evaluation
        self._logger: Logger | None = None

    def start(self, agent: Agent) -> bool:
        """Evaluate if it is time; False if the agent has reached the score."""
        env_id = self.env_id or agent.env_id
        if env_id is None:
            raise ValueError(
                "The agent learns in an environment that was not given by an id: pass env_id= to evaluate."
            )
        if self._logger is None and agent.log_dir is not None and distributed.rank() == 0:
            self._logger = Logger(agent.log_dir, file="evaluations.csv")
            if self._last is not None:
                self._logger.rewind(self._last)
        return self(agent)

    def __call__(self, agent: Agent) -> bool:
        """Evaluate if it is time; False if the agent has reached the score."""
        done = agent.num_episodes if self.in_episodes else agent.num_timesteps
        if done >= self._due:
            results = self.evaluate(agent)
            metric = self.metric or list(results)[-2 * len(self.modes)]
            if metric not in results:
                raise ValueError(f"metric must be one of {', '.join(results)}; got {metric!r}.")
            # Scores are float32: rounded, so that 0.9 is at 0.9 and not below it.
            value = round(results[metric], 6)
            self._due = done - done % self.every + self.every
            self._last = agent.num_timesteps
            self._streak = self._streak + 1 if self.stop_at is not None and value >= self.stop_at else 0
            self.results.append({"timesteps": agent.num_timesteps, "episodes": agent.num_episodes} | results)
            if self._logger is not None:
                self._logger.log(agent.num_timesteps, {"eval/episodes": float(agent.num_episodes)} | results)
                self._logger.flush()
            if self.best is None or value > self.best:
                self.best = value
                if self.keep_best is not None:
                    agent.save(self.keep_best)
        return self.stop_at is None or self._streak < self.consecutive

    def evaluate(self, agent: Agent) -> Metrics:
        """Scores and lengths of every split and mode, by key."""
        has_prompts = agent.text_spec.prompt_length > 0
        splits = self.splits or (("train", "test") if has_prompts else ("train",))
        seed = agent.seed * SEED_STRIDE + EVALUATION_OFFSET if self.seed is None else self.seed
        results = {}
        for split in splits:
            for mode in self.modes:
                evaluation = evaluate_agent(
                    agent,
                    self.env_id or agent.env_id or "",
                    split=split,
                    num_episodes=self.num_episodes if has_prompts or mode == "sampled" else 1,
                    deterministic=mode == "greedy",
                    seed=seed,
                    env_kwargs=agent.env_kwargs if self.env_kwargs is None else self.env_kwargs,
                )
                results[f"eval/{split}/{mode}_score"] = evaluation.mean_score
                results[f"eval/{split}/{mode}_length"] = float(evaluation.lengths.mean())
        return results

    def get_state(self) -> dict[str, Any]:
        """When the next evaluation is due, and how the last ones were."""
        return {
            "due": self._due,
            "last": self._last,
            "metric": self.metric,
            "best": self.best,
            "stop_at": self.stop_at,
            "streak": self._streak,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``get_state``; what was best by another metric, or reached another score, is forgotten."""
        self._due, self._last = state["due"], state["last"]
        self.best = state["best"] if state["metric"] == self.metric else None
        self._streak = state["streak"] if state["stop_at"] == self.stop_at else 0
