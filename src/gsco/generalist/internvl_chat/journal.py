"""The record of a conversion, by which a killed one goes on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsco.disk import dump_json, write_atomic
from gsco.errors import ModelError
from gsco.generalist.internvl_chat.tensors import CHUNK

JOURNAL = "conversion.json"
"""What was converted, how, and the hash of each finished shard; with it a killed conversion goes on."""

DRAFT = ".draft-"


@dataclass(slots=True)
class Journal:
    """What was done so far.

    Attributes:
        path: of the file.
        held: its content.
    """

    path: Path
    held: dict[str, Any]

    @classmethod
    def open(cls, target: Path, name: str, fingerprint: str, options: dict[str, Any]) -> Journal:
        """Begin, or go on with the same work; ModelError where the folder holds something else."""
        target.mkdir(parents=True, exist_ok=True)
        path = target / JOURNAL
        begun = {"schema": 1, "source": name, "fingerprint": fingerprint, "options": options}
        if not path.exists():
            if any(not entry.name.startswith(".") for entry in target.iterdir()):
                raise ModelError(
                    "is not empty", where=str(target), remedy="Name a new folder for the converted model."
                )
            journal = cls(path, {**begun, "complete": False, "shards": {}})
            journal.save()
            return journal
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            same = {key: held[key] for key in begun} == begun
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise ModelError(
                "holds a conversion of another checkpoint, or with other options",
                where=str(target),
                remedy="Name another folder, or delete this one.",
            )
        return cls(path, held)

    def save(self) -> None:
        """Replace the file as a whole."""
        write_atomic(self.path, dump_json(self.held))

    def finish(self, licence: str | None) -> None:
        """Say that everything is there."""
        self.held |= {"complete": True, "licence": licence}
        self.save()


def is_finished(path: Path, record: Any) -> bool:
    """Whether a shard is whole, by the size and SHA-256 in the journal's record of it (None: not written)."""
    if record is None or not path.is_file() or path.stat().st_size != record["bytes"]:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return bool(digest.hexdigest() == record["sha256"])
