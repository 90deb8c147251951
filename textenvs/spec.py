"""TextSpec: everything an agent needs to know about a text environment."""

from __future__ import annotations

from dataclasses import dataclass

from textenvs.vocab import Vocab


@dataclass(frozen=True)
class TextSpec:
    """What both environment classes expose as ``text_spec``. Agents read nothing else of the environment.

    An observation is one row of ``prompt_length + max_new_tokens`` ids: the prompt, left-padded, then what has been
    written, then padding. Column ``prompt_length + t`` is the t-th action.
    """

    prompt_length: int
    """P, columns of the prompt; 0 where the task has none."""
    max_new_tokens: int
    """T, the length budget in tokens, EOS included."""
    pad_id: int
    """V, the number of writable tokens: padding is never an action."""
    eos_ids: tuple[int, ...]
    """Actions that end the text; empty where every text has the same length."""
    vocab: Vocab
    """Ids to text and back."""
    has_masks: bool
    """Whether ``info["action_mask"]`` says which actions are legal."""
    group_size: int = 1
    """Number of consecutive sub-environments that get the same prompts."""

    @property
    def num_tokens(self) -> int:
        """V: the number of actions."""
        return self.pad_id

    @property
    def row_length(self) -> int:
        """L = P + T: the length of an observation."""
        return self.prompt_length + self.max_new_tokens
