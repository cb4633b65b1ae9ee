"""What every training leaves in its folder, so that a killed one goes on and another is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gsco.disk import dump_json, write_atomic
from gsco.errors import RunError


def same_or_new(path: Path, facts: dict[str, Any]) -> None:
    """Write down what is trained, or see that it is what was begun.

    Args:
        path: ``work/facts.json`` of the training's folder.
        facts: records, recipe and all else that decides about the weights; JSON values.

    Raises:
        RunError: the folder holds an unfinished training of something else.
    """
    if not path.exists():
        write_atomic(path, dump_json(facts))
    elif json.loads(path.read_text(encoding="utf-8")) != json.loads(dump_json(facts)):
        raise RunError(
            "holds an unfinished training of other data or by another recipe",
            where=str(path.parent.parent),
            remedy="Name another folder, or remove this one.",
        )


def forget_after(log: Path, step: int) -> None:
    """Cut off the steps that a killed training logged after its last checkpoint, the last perhaps by half."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    write_atomic(log, "".join(f"{line}\n" for line in kept))
