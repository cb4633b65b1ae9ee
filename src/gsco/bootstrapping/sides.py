"""Left and right: which side a mention in a sentence is said to be on."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SIDE = re.compile(
    r"\b(?P<both>bilateral\w*|both|bibasilar|bibasal|biapical|bi-?lateral\w*)\b"
    r"|\b(?P<left>left\w*|lingul\w+|ll[lz]|lul)\b|\b(?P<right>right\w*|rl[lz]|rul|rml)\b"
)
_BREAK = re.compile(
    r"[;:]|,(?!\s*(?:left|right|bilateral))|\b(?:and|with|but|no|without)\b(?!\s*(?:left|right))"
)
LEFT, RIGHT = "left", "right"
BOTH = frozenset({LEFT, RIGHT})


def sides_in(text: str) -> frozenset[str]:
    """All sides a text names; "bilateral" and "both" are left and right."""
    out: set[str] = set()
    for match in _SIDE.finditer(text.lower()):
        out |= BOTH if match["both"] else {LEFT} if match["left"] else {RIGHT}
    return frozenset(out)


def sides_of(sentence: str, start: int, stop: int, spans: Sequence[tuple[int, int]]) -> frozenset[str]:
    """Side of the term at [start, stop) of a lower-case sentence.

    Words between the term before and this one count first, then those behind it as far as the next term or
    break, then those before the earlier terms: "left effusion and right basal atelectasis" gives each its
    own, "right basal scarring or atelectasis" gives both the same.

    Args:
        spans: places of all terms of the sentence.
    """
    ends = sorted((b for _, b in spans if b <= start), reverse=True)
    ahead = [a for a, b in spans if a >= stop]
    behind = sentence[stop : min(ahead, default=len(sentence))]
    if ahead and (cut := list(re.finditer(r",|\band\b", behind))):
        behind = behind[: cut[-1].start()]  # what stands behind the last joint belongs to the next term
    broken = _BREAK.search(behind)
    behind = behind[: broken.start()] if broken else behind
    floors = [*ends, 0]
    for said in (sentence[floors[0] : start], behind, *(sentence[floor:start] for floor in floors[1:])):
        if sides := sides_in(said):
            return sides
    return frozenset()


def disagree(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether two statements of side, each perhaps silent, name no side in common."""
    return bool(a and b and not a & b)
