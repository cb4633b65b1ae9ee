"""How a long job tells that it is alive: named stages, each with a count, and notes beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Step(Protocol):
    """Told how far a stage has come, in absolute numbers."""

    def __call__(self, done: int, total: int | None = None, what: str | None = None) -> None:
        """`done` of `total` units are finished.

        Args:
            done: units finished, in [0, total].
            total: units in all; may become known, or change, on the way.
            what: the part of the stage that these numbers are about.
        """
        ...


class Reporter(Protocol):
    """Where progress goes: a terminal, lines in a file, or nowhere."""

    def stage(self, name: str, total: int | None = None) -> contextlib.AbstractContextManager[Step]:
        """A stage that lasts as long as the block; `total` units where known."""
        ...

    def note(self, text: str) -> None:
        """One line a person should see (a skipped image, a decision that was taken)."""
        ...


class Silent:
    """Says nothing."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Step]:
        """See `Reporter.stage`."""

        def step(done: int, total: int | None = None, what: str | None = None) -> None:
            return None

        yield step

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
