"""Error messages that name the thing, what is allowed, and the nearest known name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Message for a name that is not among the known ones.

    Args:
        kind: what was looked up, e.g. ``"reward"``.
        name: what was given.
        known: every allowed name.
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names) if names else '(none)'}."
