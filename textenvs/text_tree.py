"""TextTree: every text that can be written after one prompt, as a tree of prefixes, and what policies do on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from textenvs.engine import episodes_from_rows
from textenvs.rewards.base import Judge
from textenvs.tasks.base import Task, check_size

NextLogprobs = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""A policy: from observations int64 [B, L], all with equally many tokens written, and legal actions bool [B, V] (None:
every one is), to the log-probabilities [B, V] of the next token."""

LIMIT = 2**20
"""Texts after one prompt at most, unless another limit is given."""
BLOCK = 2**14
"""Rows that a policy is asked about at once."""
TEXTS_AT_ONCE = 2**16
"""Texts that are scored at once."""
TOLERANCE = 1e-3
"""How far the probabilities of all legal tokens may be from 1 before they count as wrong and not as rounded."""


@dataclass(frozen=True)
class Level:
    """The n unfinished prefixes of one length t, and the m ways in which they go on.

    Attributes:
        tokens: [n, t], the prefixes.
        legal: bool [n, V], None where every token always is.
        parents: int32 [m], the prefix that each child goes on from, ascending.
        actions: [m], its next token.
        ended: bool [m], whether the text is then finished.
    """

    tokens: np.ndarray
    legal: np.ndarray | None
    parents: np.ndarray
    actions: np.ndarray
    ended: np.ndarray


class TextTree:
    """All N texts that can be written after one prompt.

    They are numbered in the order of their lengths. Illegal actions are no way to go on: a policy must give them no
    probability.

    Args:
        task: what is to be written.
        prompt_ids: int64 [P], left-padded.
        prompt_index: its number in the task's prompt set, −1 without one.
        limit: the most texts that there may be.
        block_size: rows that a policy is asked about at once.

    Attributes:
        levels: prefixes of 0, 1, … tokens.
        num_texts: N.
        lengths: int64 [N] tokens, EOS included.

    Raises:
        ValueError: more than ``limit`` texts; the message says how many.
    """

    def __init__(
        self,
        task: Task,
        prompt_ids: np.ndarray | None = None,
        *,
        prompt_index: int = -1,
        limit: int = LIMIT,
        block_size: int = BLOCK,
    ) -> None:
        self.task = task
        self.limit = check_size("TextTree", "limit", limit, 1)
        self.block_size = check_size("TextTree", "block_size", block_size, 1)
        self.prompt_ids = np.zeros(task.prompt_length, np.int64) if prompt_ids is None else np.asarray(prompt_ids)
        if self.prompt_ids.shape != (task.prompt_length,) or (prompt_ids is None and task.has_prompts):
            raise ValueError(f"{task.name} needs a prompt: a row of {task.prompt_length} ids, left-padded.")
        self.prompt_index = prompt_index
        self._dtype = np.min_scalar_type(task.pad_id)
        self._eos = np.isin(np.arange(task.pad_id), task.vocab.eos_ids)
        check_count(task, limit)
        self.levels = self._grow()
        counts = [int(level.ended.sum()) for level in self.levels]
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        """Number of the first text that ends at each level, and N."""
        self.num_texts = int(self.starts[-1])
        self.lengths = np.repeat(np.arange(1, len(self.levels) + 1), counts)

    def __len__(self) -> int:
        return self.num_texts

    def _grow(self) -> list[Level]:
        task = self.task
        levels: list[Level] = []
        tokens = np.zeros((1, 0), dtype=self._dtype)
        finished = 0
        for written in range(task.max_new_tokens):
            parts, children = [], 0
            for start, rows in self._blocks(tokens):
                legal = self._legal(rows, written)
                children += int(np.count_nonzero(legal))  # before there is a list of them
                if finished + children > self.limit:
                    raise ValueError(too_large(task, f"more than {shown(finished + children - 1)}", self.limit))
                parents, actions = np.nonzero(legal)
                parts.append((legal, (parents + start).astype(np.int32), actions.astype(self._dtype)))
            legal, parents, actions = (np.concatenate(part) for part in zip(*parts, strict=True))
            last = written + 1 == task.max_new_tokens
            ended = np.ones(len(actions), dtype=np.bool_) if last else self._eos[actions]
            levels.append(Level(tokens, legal if task.has_masks else None, parents, actions, ended))
            finished += int(ended.sum())
            tokens = np.concatenate([tokens[parents[~ended]], actions[~ended, None]], axis=1)
            if not len(tokens):
                break
        return levels

    def _legal(self, rows: np.ndarray, written: int) -> np.ndarray:
        if not self.task.has_masks:
            return np.ones((len(rows), self.task.pad_id), dtype=np.bool_)
        legal = np.asarray(self.task.action_masks(rows, np.full(len(rows), written))).astype(np.bool_)
        if not legal.any(axis=1).all():
            raise ValueError(f"{self.task.name} has a state in which no action is legal: check_text_env shows it.")
        return legal

    def _blocks(self, tokens: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Observations int64 [b, L] of prefixes [n, t], some at a time, and the number of the first."""
        for start in range(0, len(tokens), self.block_size):
            yield start, self._rows(tokens[start : start + self.block_size])

    def _rows(self, tokens: np.ndarray) -> np.ndarray:
        prompt_length, written = self.task.prompt_length, tokens.shape[1]
        rows = np.full((len(tokens), prompt_length + self.task.max_new_tokens), self.task.pad_id, dtype=np.int64)
        rows[:, :prompt_length] = self.prompt_ids
        rows[:, prompt_length : prompt_length + written] = tokens
        return rows

    # -- texts ---------------------------------------------------------------------------------------------------------

    def rows(self, index: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Final observations int64 [n, L] of the texts with these numbers."""
        index = np.arange(self.num_texts)[index] if isinstance(index, slice) else np.asarray(index)
        rows = self._rows(np.zeros((len(index), 0), dtype=self._dtype))
        for written, level in enumerate(self.levels):
            here = np.flatnonzero((self.starts[written] <= index) & (index < self.starts[written + 1]))
            if not len(here):
                continue
            children = np.flatnonzero(level.ended)[index[here] - self.starts[written]]
            columns = slice(self.task.prompt_length, self.task.prompt_length + written)
            rows[here, columns] = level.tokens[level.parents[children]]
            rows[here, columns.stop] = level.actions[children]
        return rows

    def texts(self, index: np.ndarray | slice = slice(None)) -> list[str]:
        """The texts with these numbers, decoded, EOS left out."""
        return self.task.vocab.decode_rows(self.rows(index)[:, self.task.prompt_length :])

    def scores(self, judge: Judge) -> tuple[np.ndarray, np.ndarray | None]:
        """Scores float64 [N] and, where the judge reports them, gold scores [N].

        Raises:
            ValueError: a judge that does not say that it is deterministic, or a task whose episodes are judged by
                their number.
            RewardError: it failed, or broke its contract.
        """
        check_exact(self.task, judge)
        totals, golds = [], []
        for start in range(0, self.num_texts, TEXTS_AT_ONCE):
            index = np.arange(start, min(start + TEXTS_AT_ONCE, self.num_texts))
            rows, lengths = self.rows(index), self.lengths[index]
            last = rows[np.arange(len(rows)), self.task.prompt_length + lengths - 1]
            reasons = np.array(["length", "stop"], dtype=object)[self._eos[last].astype(np.int64)]
            episodes = episodes_from_rows(
                self.task,
                rows,
                lengths=lengths,
                finish_reason=reasons,
                key=np.zeros(len(rows), dtype=np.uint64),
                prompt_index=np.full(len(rows), self.prompt_index),
            )
            scores = judge(episodes)
            totals.append(scores.total.astype(np.float64))
            if scores.gold is not None:
                golds.append(scores.gold.astype(np.float64))
        return np.concatenate(totals), np.concatenate(golds) if golds else None

    # -- policies ------------------------------------------------------------------------------------------------------

    def logprobs(self, policy: NextLogprobs) -> np.ndarray:
        """Log-probabilities float64 [N] of all texts under a policy, asked once for each level (in blocks).

        Rounding is removed: what a policy says about the next token is scaled to probabilities that add up to 1.

        Raises:
            ValueError: it answers for another vocabulary, with other things than log-probabilities, or gives
                probability to illegal actions.
        """
        result = np.empty(self.num_texts)
        prefixes = np.zeros(1)
        for written, level in enumerate(self.levels):
            children = np.empty(len(level.parents))
            for start, rows in self._blocks(level.tokens):
                legal = None if level.legal is None else level.legal[start : start + len(rows)]
                step = checked_logprobs(policy(rows, legal), legal, (len(rows), self.task.pad_id))
                first, stop = np.searchsorted(level.parents, [start, start + len(rows)])
                parents = level.parents[first:stop]
                children[first:stop] = prefixes[parents] + step[parents - start, level.actions[first:stop]]
            result[self.starts[written] : self.starts[written + 1]] = children[level.ended]
            prefixes = children[~level.ended]
        return result

    def conditionals(self, logprobs: np.ndarray) -> list[np.ndarray]:
        """What a distribution over texts, log-probabilities [N], says about the next token: for each level
        log-probabilities [n, V], −inf for illegal ones. After a prefix of probability 0 legal tokens are equally
        likely."""
        result: list[np.ndarray] = []
        prefixes = np.zeros(0)
        for written in reversed(range(len(self.levels))):
            level = self.levels[written]
            children = np.empty(len(level.parents))
            children[level.ended] = logprobs[self.starts[written] : self.starts[written + 1]]
            children[~level.ended] = prefixes
            begin = np.searchsorted(level.parents, np.arange(len(level.tokens)))
            prefixes = np.logaddexp.reduceat(children, begin)
            never = prefixes == -np.inf
            count = np.diff(np.append(begin, len(children)))
            table = np.full((len(level.tokens), self.task.pad_id), -np.inf)
            given = children - np.where(never, 0.0, prefixes)[level.parents]
            table[level.parents, level.actions] = np.where(never[level.parents], -np.log(count)[level.parents], given)
            result.append(table)
        return result[::-1]

    def policy(self, logprobs: np.ndarray) -> NextLogprobs:
        """The policy that writes each text with its probability of ``logprobs`` [N]: for this prompt only."""
        tables = self.conditionals(logprobs)
        prompt_length, pad_id = self.task.prompt_length, self.task.pad_id

        def next_logprobs(rows: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
            if (rows[:, :prompt_length] != self.prompt_ids).any():
                raise ValueError("This policy is a table for one prompt, and was asked about another.")
            written = int((rows[0, prompt_length:] != pad_id).sum())
            node = np.zeros(len(rows), dtype=np.int64)
            for t in range(written):
                node = self._children[t][node, rows[:, prompt_length + t]]
            return tables[written][node]

        return next_logprobs

    @cached_property
    def _children(self) -> list[np.ndarray]:
        """For each level int64 [n, V]: the unfinished prefix that a token leads to; −1 where there is none."""
        result = []
        for level in self.levels:
            table = np.full((len(level.tokens), self.task.pad_id), -1, dtype=np.int64)
            goes_on = ~level.ended
            table[level.parents[goes_on], level.actions[goes_on]] = np.arange(int(goes_on.sum()))
            result.append(table)
        return result


def count_texts(num_tokens: int, num_eos: int, max_new_tokens: int) -> int:
    """Texts without a mask: Σ_{t<T} S^(t−1) E of them end with one of the E EOS tokens before the budget does, and
    S^(T−1) V at it, with S = V − E.
    """
    symbols = num_tokens - num_eos
    early = sum(symbols ** (t - 1) * num_eos for t in range(1, max_new_tokens)) if num_eos else 0
    return early + symbols ** (max_new_tokens - 1) * num_tokens


def check_count(task: Task, limit: int) -> None:
    """Check that a task without masks has no more than ``limit`` texts after a prompt; with masks one has to look.

    Raises:
        ValueError: it has; the message says how many.
    """
    if not task.has_masks:
        count = count_texts(task.pad_id, len(task.vocab.eos_ids), task.max_new_tokens)
        if count > limit:
            raise ValueError(too_large(task, shown(count), limit))


def too_large(task: Task, count: str, limit: int) -> str:
    """The message about ``count`` texts."""
    return (
        f"{task.name} has {count} texts of up to {task.max_new_tokens} tokens out of {task.pad_id} after a prompt; "
        f"they are all listed up to {shown(limit)}. Make the texts shorter or the vocabulary smaller, pass a larger "
        f"limit=, or estimate from samples."
    )


def shown(count: int) -> str:
    """A number of texts, for a message; powers of ten where it is astronomic."""
    return f"{count:,}" if count < 10**15 else f"about 10^{math.floor(math.log10(count))}"


def check_exact(task: Task, judge: Judge) -> None:
    """Check that every text has one score.

    Raises:
        ValueError: it has not, or nobody says so.
    """
    if type(task).draw_episodes is not Task.draw_episodes:
        raise ValueError(
            f"{task.name} changes from episode to episode, so that no text has one score: evaluate it before and "
            f"after the change, as two environments."
        )
    if not judge.deterministic:
        raise ValueError(
            f"Reward {judge.name!r} does not say that it is deterministic, and an exact value needs one score for each "
            f"text. Use the reward without its noise; or, if it always answers alike, declare deterministic=True "
            f"(register_reward and FunctionReward take it)."
        )


def checked_logprobs(answer: Any, legal: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    """A policy's answer as float64 [B, V], scaled so that the legal tokens' probabilities add up to 1.

    Raises:
        ValueError: another shape, NaN, or probabilities that do not add up to 1 within rounding.
    """
    logprobs = np.asarray(answer, dtype=np.float64)
    if logprobs.shape != shape:
        raise ValueError(
            f"The policy must answer with log-probabilities [{shape[0]}, {shape[1]}], one for each of the "
            f"{shape[1]} tokens of this environment; got {list(logprobs.shape)}. A policy or reference over another "
            f"vocabulary cannot be compared here."
        )
    if np.isnan(logprobs).any():
        raise ValueError("The policy answered NaN for a log-probability.")
    if legal is not None:
        logprobs = np.where(legal, logprobs, -np.inf)
    with np.errstate(over="ignore"):
        totals = np.exp(logprobs).sum(axis=1)
    worst = int(np.abs(totals - 1.0).argmax())
    if not abs(totals[worst] - 1.0) <= TOLERANCE:
        raise ValueError(
            f"The probabilities of the {'tokens' if legal is None else 'legal tokens'} after a prefix add up to "
            f"{totals[worst]:.4g}, not to 1: the policy must answer with log-probabilities (log_softmax of logits"
            f"{'' if legal is None else ', taken over the legal tokens that its second argument shows'})."
        )
    return logprobs - np.log(totals)[:, None]
