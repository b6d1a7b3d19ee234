"""Suggestions for a name that does not exist, and wrong texts made fit to print."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

_LISTED = 12
_SHOWN = 60
#: Longer names are cut: comparing them blocks the event loop, and the rest adds nothing.
_LONGEST = 64
_BLANKS = re.compile(r"[\s-]+")


def nearest_names(
    name: str, allowed: Iterable[str], count: int = 3, cutoff: float = 0.5, words: Mapping[str, str] | None = None
) -> list[str]:
    """The allowed names most like this one, best first.

    A name counts as near if it differs in case or blanks only, is spelt alike, contains the other, or has it in its `words` (a
    title, a description).
    """
    wanted = _normalized(name[:_LONGEST])
    if not wanted:
        return []
    plain = {_normalized(one): one for one in sorted(dict.fromkeys(allowed), reverse=True)}
    close = difflib.get_close_matches(wanted, plain, n=count, cutoff=cutoff)
    parts = sorted(one for one in plain if len(wanted) > 2 and (wanted in one or (len(one) > 2 and one in wanted)))
    described = [one for one, text in (words or {}).items() if len(wanted) > 2 and wanted in _normalized(text)]
    # A word that stands in many descriptions ("trades") is no suggestion.
    found = [plain[one] for one in (*close, *parts)] + (described if len(described) <= count else [])
    return list(dict.fromkeys(found))[:count]


def _normalized(text: str) -> str:
    return _BLANKS.sub("_", text.strip()).casefold()


def name_hint(name: str, allowed: Iterable[str], words: Mapping[str, str] | None = None) -> str:
    """`nearest: a, b`, or the allowed names if none is near."""
    names = sorted(allowed)
    near = nearest_names(name, names, words=words)
    if near:
        return f"nearest: {', '.join(near)}"
    return f"allowed: {', '.join(names[:_LISTED]) or 'none'}{', ...' if len(names) > _LISTED else ''}"


def printable_text(text: object, most: int = _SHOWN) -> str:
    """A foreign text, cut and escaped to fit one line of a terminal."""
    cut = str(text)[: most + 1]
    plain = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut[:most])
    return plain + ("..." if len(cut) > most else "")
