"""InternVL's data format on disk: a meta file that names annotation files, each a record a line.

::

    {"my_set": {"root": "images/", "annotation": "my_set.jsonl", "repeat_time": 1, "data_augment": true,
                "length": 1234}}

``repeat_time`` below 1 takes that share of the lines, from the top; above 1 it repeats them, the part
behind the point again as a share. ``length`` is not relied upon. Relative paths count from the folder
that is called `base` here; InternVL's own scripts count them from where they are started.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsco.errors import DatasetError

_KNOWN = {"root", "annotation", "repeat_time", "data_augment", "length"}
# what later InternVL versions write beside them, about tiles; the model's own processor decides on tiles
_PASSED_OVER = {"max_dynamic_patch", "min_dynamic_patch", "meta"}


@dataclass(frozen=True, slots=True)
class Annotation:
    """One entry of a meta file.

    Attributes:
        name: its key.
        root: the folder that image paths are relative to.
        path: the JSON Lines file.
        repeat_time: how often its lines are read in one epoch, above 0.
        data_augment: whether training images are cropped at random.
        offsets: byte offset of each line that holds anything.
    """

    name: str
    root: Path
    path: Path
    repeat_time: float
    data_augment: bool
    offsets: tuple[int, ...]

    def line(self, number: int) -> Any:
        """The record of line `number` (from 0, empty lines not counted); ValueError where it is no JSON."""
        with self.path.open("rb") as file:
            file.seek(self.offsets[number])
            return json.loads(file.readline())

    def taken(self) -> tuple[int, ...]:
        """The lines that one epoch reads, repeats included."""
        n = len(self.offsets)
        whole, share = divmod(self.repeat_time, 1)
        return (*(tuple(range(n)) * int(whole)), *range(int(n * share)))

    def digest(self) -> str:
        """SHA-256 of the file and of how it is read."""
        with self.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        how = f"{self.name}\0{self.root}\0{self.repeat_time}\0{self.data_augment}\0{content}"
        return hashlib.sha256(how.encode()).hexdigest()


def read_meta(path: Path, *, base: Path) -> tuple[Annotation, ...]:
    """All entries of a meta file.

    Args:
        path: the meta file.
        base: the folder that relative paths in it count from.

    Raises:
        DatasetError: the file is missing or no such file, an entry lacks something, an annotation file is
            missing, empty, or a JSON list.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"is not JSON ({error})", where=str(path)) from None
    if not isinstance(found, dict) or not found or not all(isinstance(v, dict) for v in found.values()):
        raise DatasetError(
            "is no meta file",
            where=str(path),
            remedy='It holds {"name": {"root": ..., "annotation": ..., "repeat_time": 1}, ...}.',
        )
    return tuple(_annotation(path, name, entry, base) for name, entry in found.items())


def _annotation(meta: Path, name: str, entry: Mapping[str, Any], base: Path) -> Annotation:
    where = f"{meta}, {name}"
    unknown = set(entry) - _KNOWN - _PASSED_OVER
    if unknown:
        raise DatasetError(f"unknown key {sorted(unknown)[0]!r}", where=where)
    for key in ("root", "annotation"):
        if not isinstance(entry.get(key), str):
            raise DatasetError(f"has no {key!r}", where=where, remedy="Give a path.")
    repeat = entry.get("repeat_time", 1)
    if isinstance(repeat, bool) or not isinstance(repeat, int | float) or not 0 < repeat < float("inf"):
        raise DatasetError(f"repeat_time {repeat!r} is not a number above 0", where=where)
    augment = entry.get("data_augment", False)
    if not isinstance(augment, bool):
        raise DatasetError(f"data_augment {augment!r} is neither true nor false", where=where)
    path = base / entry["annotation"]
    return Annotation(name, base / entry["root"], path, float(repeat), augment, _offsets(path, where))


def _offsets(path: Path, where: str) -> tuple[int, ...]:
    out, at = [], 0
    try:
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    out.append(at)
                    if len(out) == 1 and line.lstrip().startswith(b"["):
                        raise DatasetError(
                            "is a JSON list", where=str(path), remedy="Write one record on each line."
                        )
                at += len(line)
    except OSError as error:
        raise DatasetError(f"annotation {path} cannot be read ({error.strerror})", where=where) from None
    if not out:
        raise DatasetError("holds no records", where=str(path))
    return tuple(out)
