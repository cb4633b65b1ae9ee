"""Endless streams of cases and records, and streams drawn by weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case

T = TypeVar("T")


def endless(rng: np.random.Generator, items: Sequence[T]) -> Iterator[T]:
    """All of them, reshuffled at every pass; nothing if there are none."""
    while items:
        for i in rng.permutation(len(items)):
            yield items[i]


def balanced(rng: np.random.Generator, cases: Sequence[Case]) -> Iterator[Case]:
    """Labelled cases, every label equally often, each label's cases reshuffled at every pass."""
    by_label: dict[str, list[Case]] = {}
    for case in cases:
        if case.label is not None:
            by_label.setdefault(case.label, []).append(case)
    streams = [endless(rng, group) for _, group in sorted(by_label.items())]
    while streams:
        for i in rng.permutation(len(streams)):
            yield next(streams[i])


def independent(rng: np.random.Generator, items: Sequence[T]) -> Iterator[T]:
    """One of them at a time, whatever came before."""
    while items:
        yield items[int(rng.integers(len(items)))]


class ByWeight(Generic[T]):
    """Things of which one is drawn at a time, as often as its weight says among the others'."""

    def __init__(self, weighed: Sequence[tuple[float, T]]) -> None:
        self._things = [thing for _, thing in weighed]
        self._shares = shares_of([weight for weight, _ in weighed])

    def __bool__(self) -> bool:
        return bool(self._things)

    def draw(self, rng: np.random.Generator) -> T:
        """One of them."""
        return self._things[int(rng.choice(len(self._things), p=self._shares))]


def shares_of(weights: Sequence[float]) -> NDArray[np.float64]:
    """The weights as shares of their sum."""
    found = np.asarray(weights, dtype=np.float64)
    return np.asarray(found / found.sum())
