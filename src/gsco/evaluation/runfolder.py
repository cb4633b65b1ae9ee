"""`RunFolder`: one run on disk. It is locked while written, and never loses or repeats a line.

Whole files appear by rename, so a reader sees the old one or the new one. ``cases.jsonl`` is appended
in batches, each flushed and synced; a torn last line, which a kill or a full disk leaves behind, is cut
off when the folder is opened again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gsco.cases.paths import expanded
from gsco.disk import dump_json, make_folder, storage_errors, write_atomic
from gsco.errors import RunError

try:
    import fcntl
except ImportError:  # pragma: no cover - not on Windows
    fcntl = None  # type: ignore[assignment]

BEGINNINGS = (
    "config.yaml",
    "environment.json",
    "dataset.json",
    "generalist.json",
    "leakage.json",
    "timing.json",
)
"""What a run writes before its first part."""


def normal_path(path: Path) -> Path:
    """An absolute path without ``~``, ``.`` and ``..``; links are kept."""
    return Path(os.path.normpath(expanded(path).absolute()))


def _log_bytes(lines: Sequence[dict[str, Any]]) -> bytes:
    return "".join(
        json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n" for line in lines
    ).encode("utf-8")


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; it need not exist yet.
    """

    LOCK = "run.lock"

    def __init__(self, path: Path) -> None:
        self.path = normal_path(path)
        self._lock: io.TextIOWrapper | None = None

    # names -----------------------------------------------------------------------------------------

    @property
    def config(self) -> Path:
        """Settings, enough to repeat the run."""
        return self.path / "config.yaml"

    @property
    def log(self) -> Path:
        """One line per case and arm."""
        return self.path / "cases.jsonl"

    @property
    def calibration_log(self) -> Path:
        """What each generalist arm says about labelled validation cases, a line per case and arm."""
        return self.path / "calibration.jsonl"

    @property
    def metrics(self) -> Path:
        """Figures, recomputable from the log alone."""
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        """The page to read."""
        return self.path / "report.html"

    @property
    def specialists(self) -> Path:
        """One model folder per specialist."""
        return self.path / "specialists"

    @property
    def index(self) -> Path:
        """The case index."""
        return self.path / "index"

    @property
    def predictions(self) -> Path:
        """What each specialist says about validation and evaluated cases."""
        return self.path / "predictions"

    @property
    def heatmaps(self) -> Path:
        """Small heat maps of the cases that the page shows."""
        return self.path / "heatmaps"

    # opening ---------------------------------------------------------------------------------------

    def check_free(self) -> None:
        """Refuse to start a run where there is one already, or anything else.

        A run that ended before it made a part or an answer (a misspelt model, say) may be started anew.

        Raises:
            RunError: the folder holds a run, or files that are not a run's.
        """
        if any(path.exists() for path in (self.log, self.index, self.specialists, self.metrics)):
            raise RunError(
                "holds a run already",
                where=str(self.path),
                remedy=f"Continue it with `gsco run --resume {self.path}`, or name another --out.",
            )
        if self.path.is_dir() and any(self.path.iterdir()) and not (self.path / self.LOCK).exists():
            raise RunError("is not empty", where=str(self.path), remedy="Name a new folder with --out.")

    def forget_beginnings(self) -> None:
        """Remove what an earlier start, which made no part and no answer, wrote about itself."""
        for name in BEGINNINGS:
            (self.path / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[RunFolder]:
        """Hold the folder for writing; the operating system lets go when the process ends, however it ends.

        Raises:
            RunError: another process is writing this run.
            StorageError: the folder cannot be made.
        """
        if self.path.is_file():
            raise RunError("is a file, not a folder", where=str(self.path), remedy="Give another --out.")
        make_folder(self.path)
        with storage_errors(self.path):
            stream = (self.path / self.LOCK).open("a+", encoding="utf-8")
        try:
            if fcntl is not None:
                try:
                    fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    stream.seek(0)
                    holder = stream.read().strip() or "unknown"
                    raise RunError(
                        f"is being written by process {holder}",
                        where=str(self.path),
                        remedy="Wait for it to end, or stop it.",
                    ) from None
            with storage_errors(self.path):
                stream.seek(0)
                stream.truncate()
                stream.write(str(os.getpid()))
                stream.flush()
            self._sweep()
            yield self
        finally:
            with contextlib.suppress(OSError):
                stream.close()

    def _sweep(self) -> None:
        """Remove what a killed process left half-written (temporary files and folders)."""
        for leftover in (*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    # writing ---------------------------------------------------------------------------------------

    def write_json(self, name: str, value: Any) -> None:
        """Replace one JSON file of the run."""
        write_atomic(self.path / name, dump_json(value))

    def read_json(self, name: str) -> Any:
        """Content of one JSON file of the run, or None where it is not there yet.

        Raises:
            RunError: the file is there and is not JSON.
        """
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise RunError("is damaged", where=str(path), remedy="Delete it and resume the run.") from None

    @contextlib.contextmanager
    def building(self, folder: Path) -> Iterator[Path]:
        """A temporary folder that becomes `folder` when the block ends well, and vanishes otherwise."""
        temporary = folder.with_name(f".{folder.name}.tmp")
        with storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        try:
            with storage_errors(folder):
                yield temporary
                if folder.exists():
                    shutil.rmtree(folder)
                temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def append(self, lines: Sequence[dict[str, Any]], log: Path | None = None) -> None:
        """Append lines to the log (or another one) in one synced write; on failure it is as it was before.

        Raises:
            StorageError: the disk is full or may not be written to.
        """
        if not lines:
            return
        data = _log_bytes(lines)
        log = log or self.log
        with storage_errors(log), log.open("ab", buffering=0) as stream:
            before = stream.seek(0, os.SEEK_END)
            try:
                view = memoryview(data)
                while view:  # a raw write may be short when space runs out
                    view = view[stream.write(view) or 0 :]
                os.fsync(stream.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    stream.truncate(before)
                raise

    def rewrite(self, lines: Sequence[dict[str, Any]], log: Path | None = None) -> None:
        """Put these lines in the place of all that the log (or another one) holds, at once.

        Raises:
            StorageError: the disk is full or may not be written to; the log is as it was.
        """
        write_atomic(log or self.log, _log_bytes(lines))

    def recover_log(
        self, log: Path | None = None, key: tuple[str, str] = ("case_id", "arm")
    ) -> list[dict[str, Any]]:
        """Lines of the log (or another one), its torn end cut off; earlier damage is an error, not a guess.

        Args:
            log: the log; ``cases.jsonl`` when None.
            key: the two fields that together stand once.

        Raises:
            RunError: a line before the last one is not JSON, or one case and arm stands twice.
        """
        lines: list[dict[str, Any]] = []
        log = log or self.log
        if not log.is_file():
            return lines
        good = 0
        seen: set[tuple[str, str]] = set()
        data = log.read_bytes()
        while good < len(data):
            end = data.find(b"\n", good)
            if end < 0:
                break
            number = len(lines) + 1
            try:
                line = json.loads(data[good:end])
                named = (line[key[0]], line[key[1]])
            except (ValueError, KeyError, TypeError):
                if data.find(b"\n", end + 1) < 0 and end + 1 == len(data):
                    break  # the torn line itself, closed by a stray newline
                raise RunError(
                    f"line {number} is damaged",
                    where=str(log),
                    remedy="Start the run again in a new folder.",
                ) from None
            if named in seen:
                raise RunError(
                    f"line {number} repeats case {named[0]!r}, {key[1]} {named[1]!r}",
                    where=str(log),
                    remedy="Start the run again in a new folder.",
                )
            seen.add(named)
            lines.append(line)
            good = end + 1
        if good < len(data):
            with storage_errors(log), log.open("r+b") as stream:
                stream.truncate(good)
                os.fsync(stream.fileno())
        return lines
