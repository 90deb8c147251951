"""A time limit for slow plug-ins."""

from __future__ import annotations

import threading
from typing import Any

from textenvs.episodes import Episodes
from textenvs.rewards.base import RewardError, Scores, describe
from textenvs.rewards.combinators import Combined, make_judge
from textenvs.rewards.registry import register_reward


@register_reward("time_limit")
class TimeLimit(Combined):
    """The reward, or an error when a batch takes longer than ``seconds``.

    Python cannot stop a thread, so the plug-in is told: its method ``cancel()``, if it has one, is called when its time
    ran out (it may close a connection or set a flag). Its late answer is dropped either way.

    Args:
        reward: the reward inside.
        seconds: limit for one batch.
        retries: how often a batch that ran out of time is sent again before the run stops.
    """

    def __init__(self, reward: Any, *, seconds: float, retries: int = 0) -> None:
        if not seconds > 0:
            raise ValueError(f"time_limit: seconds must be positive, got {seconds!r}.")
        if retries < 0:
            raise ValueError(f"time_limit: retries cannot be negative, got {retries}.")
        judge = make_judge(reward)
        self._set_up([judge])
        self.low, self.high, self.seconds, self.retries = judge.low, judge.high, float(seconds), retries

    def score_parts(self, episodes: Episodes) -> Scores:
        for _ in range(self.retries + 1):
            answer = self._try(episodes)
            if answer is not None:
                return answer
        tries = f", {self.retries + 1} times" if self.retries else ""
        raise RewardError(
            f"Reward {self.judges[0].name!r} did not answer within {self.seconds:g} s{tries} "
            f"(while scoring {len(episodes)} texts, the first: {describe(episodes, 0)})."
        )

    def _try(self, episodes: Episodes) -> Scores | None:
        answer: list[Scores] = []
        failure: list[BaseException] = []
        judge = self.judges[0]

        def work() -> None:
            try:
                answer.append(judge(episodes))
            except BaseException as error:
                failure.append(error)

        # A daemon: a plug-in that hangs for ever must not keep the program from ending.
        worker = threading.Thread(target=work, name=f"reward {judge.name}", daemon=True)
        worker.start()
        worker.join(self.seconds)
        if worker.is_alive():
            cancel = getattr(judge.model, "cancel", None)
            if callable(cancel):
                cancel()
            return None
        if failure:
            raise failure[0]
        return answer[0]
