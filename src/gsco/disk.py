"""Writing to disk: whole files by rename, one clear line where it is full or may not be written to."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gsco.errors import StorageError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}
REMEDY = "Name another place."


def as_storage_error(
    error: BaseException, written: Path | str | None = None, *, full: Path | str | None = None
) -> StorageError | None:
    """The `StorageError` behind an exception or its causes, or None where storage is not the cause.

    Some libraries (safetensors, torch) wrap the operating system's error in their own, so the text of
    an error is looked at as well as its number.

    Args:
        error: what was raised.
        written: what was being written, where that is known.
        full: where there is no space, unless the error names it.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, StorageError):
            return current
        number = current.errno if isinstance(current, OSError) else None
        named = current.filename if isinstance(current, OSError) else None
        text = str(current)
        if number in _NO_SPACE or "No space left on device" in text or "File too large" in text:
            return StorageError(
                "no space left to write to",
                where=str(written or named or full or "the disk"),
                remedy="Free some space and go on: the same command again, or `gsco run --resume`. "
                "Nothing finished is lost.",
            )
        if number in _NOT_WRITABLE and written is not None:
            return StorageError(
                f"may not be written ({os.strerror(number or 0)})",
                where=str(written),
                remedy="Choose a folder that you may write to.",
            )
        if number in _NOT_WRITABLE and named is not None:
            return StorageError(
                f"may not be read or written ({os.strerror(number or 0)})",
                where=str(named),
                remedy="Change its permissions, or name another.",
            )
        current = current.__cause__ or current.__context__
    return None


@contextlib.contextmanager
def storage_errors(where: Path | str) -> Iterator[None]:
    """Turn a full or read-only disk into a `StorageError` that names `where`; other errors pass."""
    try:
        yield
    except OSError as error:
        storage = as_storage_error(error, where)
        if storage is None:
            raise
        raise storage from None


@contextlib.contextmanager
def writing(
    where: Path | str,
    *,
    what: str = "cannot be written",
    remedy: str = REMEDY,
    also: type[Exception] = OSError,
) -> Iterator[None]:
    """`storage_errors` where nothing but `where` is touched: then whatever goes wrong is about it.

    Args:
        where: what is written.
        what: what could not be done, where neither space nor permission is the cause.
        remedy: what to do then.
        also: what a library raises in the place of an OSError.
    """
    try:
        yield
    except (OSError, also) as error:
        storage = as_storage_error(error, where)
        if storage is None:
            why = getattr(error, "strerror", None) or error
            storage = StorageError(f"{what} ({why})", where=str(where), remedy=remedy)
        raise storage from error


def as_readable_as_others(*paths: Path) -> None:
    """Give files the permissions that new files have; safetensors makes its own for the owner alone."""
    for path in paths:
        probe = path.with_name(f".{path.name}.{os.getpid()}.mode")
        probe.touch()
        path.chmod(probe.stat().st_mode & 0o777)
        probe.unlink()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A draft beside `path`, which takes its place when the block ends without an error."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield draft
        as_readable_as_others(draft)
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def write_atomic(path: Path, content: str | bytes, *, remedy: str = REMEDY) -> None:
    """Write a whole file so that a reader, or a crash, sees either the old content or the new.

    Raises:
        StorageError: the disk is full or may not be written to; the old file is untouched.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with writing(path, remedy=remedy), whole_file(path) as draft, draft.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def make_folder(path: Path) -> None:
    """Make a folder with its parents, unless it is there; StorageError where that cannot be."""
    with writing(path, what="cannot be made"):
        path.mkdir(parents=True, exist_ok=True)


def dump_json(value: Any) -> str:
    """JSON text that is the same for the same value: fixed order, indented, a final newline."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
