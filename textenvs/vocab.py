"""Vocab: token ids to text and back."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np


class Vocab:
    """The writable tokens of a task, ids 0 … V − 1. Padding is not among them: it is always the id V.

    Args:
        tokens: V distinct, non-empty strings.
        eos: the token that ends a text, one of ``tokens``, or None. It has no text: decoding leaves it out.
        separator: what stands between tokens in text. Default: nothing if every token but ``eos`` is one character,
            else a space.

    Raises:
        TypeError: a token that is not a string.
        ValueError: no tokens, an empty or repeated token, an ``eos`` that is not a token, or a token that contains
            the separator (text would not decode to the same ids).
    """

    def __init__(self, tokens: Sequence[str], *, eos: str | None = None, separator: str | None = None) -> None:
        self.tokens = tuple(tokens)
        self.eos = eos
        if not self.tokens:
            raise ValueError("A vocabulary needs at least one token; got an empty sequence.")
        for i, token in enumerate(self.tokens):
            if not isinstance(token, str):
                raise TypeError(f"Tokens are strings; token {i} is {token!r:.100}, a {type(token).__name__}.")
        self._ids = {token: i for i, token in enumerate(self.tokens)}
        if len(self._ids) != len(self.tokens):
            repeated = sorted(token for token, count in Counter(self.tokens).items() if count > 1)
            raise ValueError(f"Tokens must be distinct; repeated: {repeated[:5]}.")
        if "" in self._ids:
            raise ValueError(f"Token {self._ids['']} is the empty string; every token needs a text.")
        if eos is not None and eos not in self._ids:
            raise ValueError(f"eos={eos!r} is not one of the tokens.")
        written = [token for token in self.tokens if token != eos]
        single = all(len(token) == 1 for token in written)
        self.separator = ("" if single else " ") if separator is None else separator
        if self.separator:
            bad = [token for token in written if self.separator in token]
            if bad:
                raise ValueError(f"Tokens {bad[:5]} contain the separator {self.separator!r}.")
        elif not single:
            bad = [token for token in written if len(token) != 1]
            raise ValueError(f"Tokens {bad[:5]} are longer than one character: give a separator.")
        self.eos_ids: tuple[int, ...] = () if eos is None else (self._ids[eos],)
        # A table of code points decodes many rows of one-character tokens at once; 0 stands for "no text".
        self._codepoints: np.ndarray | None = None
        if not self.separator and "\0" not in self._ids:
            points = [0 if token == eos else ord(token) for token in self.tokens]
            self._codepoints = np.array([*points, 0], dtype=np.uint32)

    @classmethod
    def symbols(cls, count: int, *, eos: bool = False) -> Vocab:
        """``count`` plain symbols: digits, then letters; beyond 62 words ``w0 w1 …``. EOS is the last id."""
        characters = string.digits + string.ascii_letters
        tokens = list(characters[:count]) if count <= len(characters) else [f"w{i}" for i in range(count)]
        return cls([*tokens, "<eos>"], eos="<eos>") if eos else cls(tokens)

    @classmethod
    def characters(cls, texts: Iterable[str], *, eos: str | None = "<eos>") -> Vocab:
        """The characters that occur in the texts, in the order of their code points. EOS is the last id.

        Raises:
            ValueError: there are none, or ``eos`` is one of them.
        """
        return cls._of_pieces(set().union(*texts), eos, None)

    @classmethod
    def words(cls, texts: Iterable[str], *, eos: str | None = "<eos>") -> Vocab:
        """The words that occur in the texts, which single spaces separate; EOS is the last id. A word is whatever
        stands between two spaces: ``"end."`` is another one than ``"end"``.

        Raises:
            ValueError: there are none, ``eos`` is one of them, or a text has spaces at its ends or two in a row: it
                would not come back as it was.
        """
        pieces: set[str] = set()
        for text in texts:
            found = text.split(" ") if text else []
            if "" in found:
                raise ValueError(
                    f"The text {text!r:.100} begins or ends with a space, or has two in a row, so that its words do "
                    f"not give it back: clean it, ' '.join(text.split()), or choose characters or bytes as tokens."
                )
            pieces.update(found)
        return cls._of_pieces(pieces, eos, " ")

    @classmethod
    def _of_pieces(cls, pieces: set[str], eos: str | None, separator: str | None) -> Vocab:
        if eos in pieces:
            raise ValueError(f"eos={eos!r} occurs in the texts: choose a name for EOS that does not.")
        return cls([*sorted(pieces), *([] if eos is None else [eos])], eos=eos, separator=separator)

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        shown = ", ".join(repr(token) for token in self.tokens[:4])
        return f"Vocab({len(self)} tokens: {shown}{', …' if len(self) > 4 else ''}; eos={self.eos!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocab):
            return NotImplemented
        return (self.tokens, self.eos, self.separator) == (other.tokens, other.eos, other.separator)

    def __hash__(self) -> int:
        return hash((self.tokens, self.eos, self.separator))

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without EOS.

        Raises:
            ValueError: a piece of the text is not a token.
        """
        pieces: Iterable[str] = text.split(self.separator) if self.separator else text
        if self.separator and not text:
            pieces = ()
        ids = []
        for position, piece in enumerate(pieces):
            token_id = self._ids.get(piece)
            if token_id is None or token_id in self.eos_ids:
                raise ValueError(f"{piece!r} (piece {position} of {text!r}) is not a token of {self!r}.")
            ids.append(token_id)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of a row of ids. EOS and padding (ids outside 0 … V − 1) have no text."""
        size, eos_ids = len(self.tokens), self.eos_ids
        return self.separator.join(self.tokens[i] for i in ids if 0 <= i < size and i not in eos_ids)

    def decode_rows(self, ids: np.ndarray) -> list[str]:
        """Texts of the rows of an integer array [B, T]."""
        if ids.shape[1] == 0:
            return [""] * len(ids)
        if self._codepoints is None:
            return [self.decode(row) for row in ids.tolist()]
        # Seen as unsigned, negative ids are larger than any token: they have no text either.
        known = np.minimum(ids.astype(np.uint64), np.uint64(len(self.tokens)))
        points = np.ascontiguousarray(self._codepoints[known])
        # Trailing zeros vanish in the view; a left-padded prompt has leading ones.
        return [text.replace("\0", "") for text in points.view(f"<U{ids.shape[1]}")[:, 0].tolist()]


class ByteVocab(Vocab):
    """The 256 bytes of UTF-8, and EOS as the last id: writes any text in any language.

    Every text comes back from its bytes. The other way round not every row of bytes is a text: what is no UTF-8 is
    decoded to the replacement character U+FFFD.
    """

    def __init__(self) -> None:
        shown = [chr(i) if 32 <= i < 127 else f"<0x{i:02X}>" for i in range(256)]
        self.tokens = (*shown, "<eos>")
        self.eos = "<eos>"
        self.eos_ids = (256,)
        self.separator = ""

    def encode(self, text: str) -> list[int]:
        """Bytes of a text, without EOS.

        Raises:
            ValueError: the text holds half a character (a lone surrogate), which UTF-8 cannot write.
        """
        return list(text.encode("utf-8"))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of a row of bytes. EOS and padding have none."""
        return bytes(i for i in ids if 0 <= i < 256).decode("utf-8", errors="replace")

    def decode_rows(self, ids: np.ndarray) -> list[str]:
        """Texts of the rows of an integer array [B, T]."""
        written = (ids >= 0) & (ids < 256)
        texts = (row[mask].astype(np.uint8).tobytes() for row, mask in zip(ids, written, strict=True))
        return [text.decode("utf-8", errors="replace") for text in texts]
