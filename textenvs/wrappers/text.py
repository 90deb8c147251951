"""TextObservation: strings in, strings out."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction

from textenvs.vocab import Vocab
from textenvs.wrappers.records import check_rows, find_text_spec


class TextSpace(spaces.Text):
    """Texts of at most so many tokens.

    A ``gymnasium.spaces.Text`` that contains every string that is short enough, since a tokenizer of bytes can decode
    to any character; samples are random tokens.

    Args:
        vocab: whose tokens are sampled.
        max_tokens: of a sample, and what bounds the length.
    """

    def __init__(self, vocab: Vocab, max_tokens: int) -> None:
        tokens = vocab.decode_rows(np.arange(len(vocab))[:, None])
        longest = max(map(len, tokens)) + len(vocab.separator)
        characters = frozenset(vocab.separator.join(tokens)) or frozenset(" ")
        super().__init__(max_length=max(1, max_tokens * longest), min_length=0, charset=characters)
        self.vocab, self.max_tokens = vocab, max_tokens

    def contains(self, x: Any) -> bool:
        """Whether it is a string, and short enough."""
        return isinstance(x, str) and len(x) <= self.max_length

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """The text of 1 to ``max_tokens`` random tokens; masks are of other kinds of texts."""
        if mask is not None or probability is not None:
            raise ValueError("A space of texts by tokens is sampled without mask and probability.")
        count = int(self.np_random.integers(1, self.max_tokens + 1))
        ends = set(self.vocab.eos_ids)
        ids = self.np_random.integers(len(self.vocab), size=count).tolist()
        return self.vocab.decode([i for i in ids if i not in ends])


class TextObservation(gym.Wrapper[str, str, Any, Any], gym.utils.RecordConstructorArgs):
    """Strings in, strings out: for agents that speak to a language model's API, for people, for scripts.

    * Observation: prompt and what has been written, as one text; ``info["prompt"]`` and ``info["completion"]`` have
      them apart, at every step.
    * Action: a text, whose tokens are written one after another; the reward is the sum of theirs. What is left of it
      when the episode is over is dropped. The empty text writes EOS.

    Args:
        env: a scalar text environment; wrappers that change observations belong above this one.
        whole: whether an action is a whole answer: EOS is written after it (where the task has EOS), so that an episode
            is one step.

    Raises:
        TypeError: no text environment, or observations that are no rows of ids any more.
    """

    def __init__(self, env: gym.Env[Any, Any], *, whole: bool = False) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, whole=whole)
        super().__init__(env)
        self._spec = find_text_spec(env, "TextObservation")
        check_rows(env, self._spec, env.observation_space, "TextObservation")
        self.whole = whole
        self.observation_space = TextSpace(self._spec.vocab, self._spec.row_length)
        self.action_space = TextSpace(self._spec.vocab, self._spec.max_new_tokens if whole else 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """As the environment."""
        inner: Any = self.env
        row, info = inner.reset(seed=seed, options=options)
        return self._texts(row, info)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Write a text.

        Raises:
            InvalidAction: no text, or one that cannot be written; the environment is as it was before.
        """
        inner: Any = self.env
        total = 0.0
        for token in self._tokens(action):
            row, reward, terminated, truncated, info = inner.step(token)
            total += float(reward)
            if terminated or truncated:
                break
        text, info = self._texts(row, info)
        return text, total, terminated, truncated, info

    def _tokens(self, action: Any) -> list[int]:
        if not isinstance(action, str):
            raise InvalidAction(f"An action is a text, to be written; got {action!r:.100}.")
        ends = list(self._spec.eos_ids[:1])
        try:
            ids = self._spec.vocab.encode(action)
        except ValueError as error:
            raise InvalidAction(str(error)) from error
        tokens = ids + ends if self.whole or not ids else ids
        if not tokens:
            raise InvalidAction("An empty text writes EOS, which this task does not have: write at least one token.")
        return tokens

    def _texts(self, row: np.ndarray, info: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        decode, prompt_length = self._spec.vocab.decode, self._spec.prompt_length
        ids = row.tolist()
        texts = {"prompt": decode(ids[:prompt_length]), "completion": decode(ids[prompt_length:])}
        return decode(ids), {**info, **texts}
