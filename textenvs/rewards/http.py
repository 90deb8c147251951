"""A judge on another machine: one HTTP POST for each batch of texts."""

from __future__ import annotations

import json
import math
import threading
import weakref
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np

from textenvs.episodes import Episodes
from textenvs.rewards.base import RewardError, describe
from textenvs.rewards.inputs import entries_of, load_library, names, whole_number
from textenvs.rewards.registry import register_reward

SCHEMA_VERSION = 1
_LARGEST_SCORE = float(np.finfo(np.float32).max)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ANSWER_BYTES, _ANSWER_BYTES_PER_TEXT = 65_536, 128
"""An answer larger than this much, and this much for each text, is not read to its end."""


class _TryAgain(Exception):
    """This try failed in a way that the next one may not."""


class _GiveUp(Exception):
    """The server answered, and not as agreed: asking again will not help."""


@register_reward("http")
class HttpReward:
    """Scores of a remote server, one POST for each batch.

    The request is JSON ``{"version": 1, "prompts": [...], "completions": [...], "separator": " ", "columns": {...}}``,
    the answer ``{"scores": [...]}`` with one finite number for each text; ``scripts/serve_reward.py`` serves any
    reward plug-in in that schema. ``separator`` is what stands between prompt and completion where they are read as
    one text; ``columns`` is left out where none are sent. Range: as declared by the arguments.

    A try that cannot connect, breaks off, exceeds the time limit or gets a status of 500 or above is repeated; any
    other status than 200, another content type than JSON, too much data or scores that are not as agreed stop at once.

    Args:
        url: where to post; as a plain string, ``"http:https://host/score"``, and for http just the URL itself,
            ``"http://127.0.0.1:8000/score"``.
        columns: columns to send along, each as its values, rows of ids ``X_ids`` as the text ``X``.
        timeout: seconds for one try, from looking up the host to the last byte.
        retries: tries after the first.
        backoff: seconds before the first retry; doubled before each further one.
        headers: further HTTP headers, say for authorisation; never shown in messages.
        low, high: declared range of the scores.
        deterministic, version: as in the reward contract; the server is not asked.
    """

    low, high = -np.inf, np.inf
    deterministic, version, cost = False, "1", "remote"

    def __init__(
        self,
        url: str,
        *,
        columns: Iterable[str] = (),
        timeout: float = 10.0,
        retries: int = 3,
        backoff: float = 0.5,
        headers: Mapping[str, str] | None = None,
        low: float = -math.inf,
        high: float = math.inf,
        deterministic: bool = False,
        version: str = "1",
    ) -> None:
        httpx = load_library("httpx2", reward="http", extra="rewards")
        url = f"http:{url}" if url.startswith("//") else url
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"'http': {url!r} is not a URL: {error}.") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"'http': give a full URL such as 'http://127.0.0.1:8000/score', got {url!r}.")
        if not 0 < timeout < math.inf:
            raise ValueError(f"'http': timeout must be a positive number of seconds, got {timeout!r}.")
        if not 0 <= backoff < math.inf:
            raise ValueError(f"'http': backoff must be a number of seconds, 0 or more, got {backoff!r}.")
        self.url = url
        self._shown_url = str(parsed.copy_with(userinfo=b"", query=None))  # no passwords or tokens in messages
        self.columns = names("http", "columns", columns, empty=True)
        self.timeout = float(timeout)
        self.retries = whole_number("http", "retries", retries, minimum=0)
        self.backoff = float(backoff)
        self.headers = dict(headers or {})
        self.low, self.high = float(low), float(high)
        self.deterministic, self.version = deterministic, f"{version}({self._shown_url})"
        # A proxy from the environment never leads to this machine itself.
        self._use_proxies = parsed.host not in _LOOPBACK
        self._client: Any = None
        self._stop = threading.Event()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_client", "_stop")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _client=None, _stop=threading.Event())

    def score(self, episodes: Episodes) -> np.ndarray:
        """Scores float32 [B].

        Raises:
            RewardError: no try succeeded, or the answer is not as agreed.
            ValueError: a column to send does not exist, or holds what JSON cannot carry.
        """
        if not len(episodes):
            return np.zeros(0, dtype=np.float32)
        body = self._request(episodes)
        limit = _ANSWER_BYTES + _ANSWER_BYTES_PER_TEXT * len(episodes)
        stop = self._stop = threading.Event()
        tries, cause = 0, ""
        while tries <= self.retries and not stop.is_set():
            tries += 1
            try:
                return _scores(self._try(body, limit), len(episodes))
            except _GiveUp as error:
                cause = str(error)
                break
            except _TryAgain as error:
                cause = str(error)
                if tries <= self.retries:
                    stop.wait(self.backoff * 2 ** (tries - 1))
        raise RewardError(
            f"Reward 'http' got no scores from {self._shown_url}: {cause} "
            f"(tries: {tries}; while scoring {len(episodes)} texts, the first: {describe(episodes, 0)})."
        )

    def cancel(self) -> None:
        """Make no further try for the batch at hand."""
        self._stop.set()

    def _request(self, episodes: Episodes) -> bytes:
        separator = episodes.separator
        if separator is None:
            separator = getattr(episodes.vocab, "separator", "")
        request: dict[str, Any] = {
            "version": SCHEMA_VERSION,
            "prompts": episodes.prompts,
            "completions": episodes.completions,
            "separator": separator,
        }
        known = episodes.column_names()
        for name in self.columns:
            if name not in known or name.endswith("_ids"):
                raise ValueError(
                    f"'http' is to send the column {name!r}, which this task does not have as text. "
                    f"Its columns: {', '.join(n for n in known if not n.endswith('_ids')) or '(none)'}."
                )
        if self.columns:
            request["columns"] = {name: entries_of(episodes.column(name)) for name in self.columns}
        try:
            return json.dumps(request, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise ValueError(f"'http' cannot send the columns {', '.join(self.columns)} as JSON: {error}.") from error

    def _try(self, body: bytes, limit: int) -> bytes:
        # The library's own limits hold for single reads and not for looking up the host, so a server that trickles
        # would never run out of time. A thread is left to itself instead, with its connection, once time is up.
        if self._client is None:
            self._client = load_library("httpx2", reward="http", extra="rewards").Client(
                timeout=self.timeout, follow_redirects=False, trust_env=self._use_proxies
            )
            weakref.finalize(self, self._client.close)
        client, answer, late = self._client, Future[bytes](), threading.Event()

        def work() -> None:
            try:
                answer.set_result(self._post(client, body, limit, late))
            except BaseException as error:
                answer.set_exception(error)
            if late.is_set():
                client.close()

        threading.Thread(target=work, name="reward http", daemon=True).start()
        try:
            return answer.result(self.timeout)
        except TimeoutError:
            late.set()
            self._client = None
            raise _TryAgain(f"no complete answer within {self.timeout:g} s") from None

    def _post(self, client: Any, body: bytes, limit: int, late: threading.Event) -> bytes:
        httpx = load_library("httpx2", reward="http", extra="rewards")
        headers = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
        try:
            with client.stream("POST", self.url, content=body, headers={**headers, **self.headers}) as response:
                if response.status_code != 200:
                    problem = f"status {response.status_code}{_detail(response)}"
                    raise _TryAgain(problem) if response.status_code >= 500 else _GiveUp(problem)
                kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                encoding = response.headers.get("content-encoding", "identity")
                if kind != "application/json" or encoding != "identity":
                    raise _GiveUp(f"the answer is not plain JSON but {kind or 'of no content type'} ({encoding})")
                received = bytearray()
                for chunk in response.iter_raw():
                    received += chunk
                    if len(received) > limit:
                        raise _GiveUp(f"the answer is larger than the {limit:,} bytes that its scores may take")
                    if late.is_set():
                        break
                return bytes(received)
        except httpx.TimeoutException:
            raise _TryAgain(f"no complete answer within {self.timeout:g} s") from None
        except httpx.TransportError as error:
            raise _TryAgain(f"{type(error).__name__}: {error}") from error
        except httpx.HTTPError as error:
            raise _GiveUp(f"{type(error).__name__}: {error}") from error


def _detail(response: Any) -> str:
    """The start of an answer that reports a failure."""
    start = bytearray()
    for chunk in response.iter_raw():
        start += chunk
        if len(start) > 1_000:
            break
    text = " ".join(bytes(start).decode(errors="replace").split())
    return f", {text:.500}" if text else ""


def _scores(answer: bytes, count: int) -> np.ndarray:
    """The scores float32 [count] in a server's answer."""
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise _GiveUp(f"the answer is not JSON ({error}): {answer[:200]!r}") from None
    scores = parsed.get("scores") if isinstance(parsed, dict) else None
    if not isinstance(scores, list):
        raise _GiveUp(f"the answer has no list 'scores': {answer[:200]!r}")
    if len(scores) != count:
        raise _GiveUp(f"the answer has {len(scores)} scores for {count} texts")
    for i, score in enumerate(scores):
        if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= _LARGEST_SCORE:
            raise _GiveUp(f"score {i} is not a finite number but {str(score)[:200]!r}")
    return np.array(scores, dtype=np.float32)
