"""Reports of different images that say nearly the same: by the share of common word triples."""

from __future__ import annotations

import re
from collections import defaultdict

SIMILAR = 0.9
"""Jaccard similarity of word triples from which two reports are near-duplicates."""


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Word triples of a text, case and punctuation aside; of a shorter text the words themselves."""
    words = re.findall(r"[^\W_]+", text.lower())
    return frozenset(tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


class Seen:
    """Reports seen so far, each with the image it is about.

    Args:
        similar: Jaccard similarity in (0, 1] from which two are near-duplicates (Broder, 1997).
    """

    def __init__(self, similar: float = SIMILAR) -> None:
        self._similar = similar
        self._known: list[tuple[str, frozenset[tuple[str, ...]]]] = []
        self._by_shingle: dict[tuple[str, ...], list[int]] = defaultdict(list)

    def find(self, text: str, image: str) -> str | None:
        """Another image whose report is a near-duplicate of this one, the most similar first, or None."""
        wanted = shingles(text)
        shared: dict[int, int] = defaultdict(int)
        for shingle in wanted:
            for place in self._by_shingle.get(shingle, ()):
                shared[place] += 1
        best: tuple[float, str] | None = None
        for place, common in shared.items():
            owner, known = self._known[place]
            likeness = common / (len(wanted) + len(known) - common)
            if owner != image and likeness >= self._similar and (best is None or likeness > best[0]):
                best = (likeness, owner)
        return best[1] if best else None

    def add(self, text: str, image: str) -> None:
        """Remember a report."""
        known = shingles(text)
        for shingle in known:
            self._by_shingle[shingle].append(len(self._known))
        self._known.append((image, known))
