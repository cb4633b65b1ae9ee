"""Progress for people: bars on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from gsco.evaluation.progress import Reporter, Step

_EVERY_SECONDS = 10.0
_WORTH_SAYING = 2.0  # a stage that took no longer needs no second line


class RichReporter:
    """Bars with elapsed and remaining time, one per stage; finished stages stay on the screen."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Step]:
        """See `gsco.evaluation.progress.Reporter.stage`."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<36}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(name, total=total)

            def step(done: int, total: int | None = None, what: str | None = None) -> None:
                text = f"{name}: {what}" if what else name
                if total is None:
                    progress.update(task, completed=done, description=text)
                else:
                    progress.update(task, completed=done, total=total, description=text)

            yield step
            shown = progress.tasks[0]
            end = shown.total if shown.total is not None else max(shown.completed, 1)
            progress.update(task, completed=end, total=end, description=name)

    def note(self, text: str) -> None:
        """See `gsco.evaluation.progress.Reporter.note`."""
        self._console.print(f"  {text}", style="dim", markup=False, highlight=False, soft_wrap=True)


class PlainReporter:
    """A line when a stage begins, every ten seconds, and when it ends: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Step]:
        """See `gsco.evaluation.progress.Reporter.stage`."""
        started = last = time.monotonic()
        known = total
        self._line(f"{name} …")

        def step(done: int, total: int | None = None, what: str | None = None) -> None:
            nonlocal last, known
            known = known if total is None else total
            now = time.monotonic()
            if now - last >= _EVERY_SECONDS:
                last = now
                text = f"{name}: {what}" if what else name
                self._line(f"{text} {done}/{known if known is not None else '?'} ({now - started:.0f} s)")

        yield step
        seconds = time.monotonic() - started
        if seconds >= _WORTH_SAYING:
            self._line(f"{name}: done ({seconds:.0f} s)")

    def note(self, text: str) -> None:
        """See `gsco.evaluation.progress.Reporter.note`."""
        self._line(f"  {text}")


def reporter(console: Console) -> Reporter:
    """The reporter that suits a console."""
    return RichReporter(console) if console.is_terminal else PlainReporter(console)
