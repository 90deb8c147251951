"""What is logged about a batch of finished episodes, whoever the agent."""

from __future__ import annotations

import numpy as np

from agents.base import Metrics
from agents.collect import Rollout


def episode_metrics(rollout: Rollout) -> Metrics:
    """What is logged about a batch of episodes; NaN where none ended, and for a part that applied to none."""
    if not len(rollout):
        return {"charts/episodic_return": float("nan"), "charts/episodic_length": float("nan")}
    metrics = {
        "charts/episodic_return": float(rollout.scores.mean()),
        "charts/episodic_length": float(rollout.lengths.mean()),
    }
    for name, values in rollout.components.items():
        there = ~np.isnan(values)
        applies = values[there].astype(np.float64)
        metrics[f"rewards/{name}/mean"] = float(applies.mean()) if len(applies) else float("nan")
        metrics[f"rewards/{name}/std"] = float(applies.std()) if len(applies) else float("nan")
        if len(rollout.components) > 1:  # one part alone is the score
            metrics[f"rewards/{name}/correlation"] = correlation(applies, rollout.scores[there].astype(np.float64))
    return metrics


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's correlation of two arrays [B]; NaN where one of them does not vary."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.mean((one - one.mean()) * (other - other.mean())) / (one.std() * other.std()))
