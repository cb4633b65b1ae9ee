"""What every stage of a run needs: its folder, its settings, where progress goes, and a clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gsco.evaluation.config import RunConfig
from gsco.evaluation.progress import Reporter, Step
from gsco.evaluation.runfolder import RunFolder


class Means(Protocol):
    """With what a part is made: a run's `Work`, or anything else that has these."""

    @property
    def folder(self) -> RunFolder:
        """Where the part goes; locked."""
        ...

    @property
    def cache(self) -> Path:
        """Features and checkpoints."""
        ...

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Step]:
        """A stage that is shown."""
        ...


@dataclass(slots=True)
class Work:
    """What every stage needs.

    Attributes:
        folder: the run folder, locked.
        config: the settings.
        progress: where progress goes.
        cache: the feature cache.
        session: clock times of this process's stages; they end in ``timing.json``.
    """

    folder: RunFolder
    config: RunConfig
    progress: Reporter
    cache: Path
    session: dict[str, Any]

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Step]:
        """A stage that is shown, and whose time is written down when it ends."""
        started = time.monotonic()
        with self.progress.stage(name, total) as step:
            yield step
        self.session["stages"].append({"stage": name, "seconds": round(time.monotonic() - started, 3)})
        save_timing(self.folder, self.session)


def save_timing(folder: RunFolder, session: dict[str, Any]) -> None:
    """Put this process's times beside those of earlier ones in ``timing.json``."""
    known = folder.read_json("timing.json") or {"schema": 1, "sessions": []}
    others = [item for item in known["sessions"] if item["started"] != session["started"]]
    folder.write_json("timing.json", {"schema": 1, "sessions": [*others, session]})
