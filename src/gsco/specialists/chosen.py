"""The runtime that was found fastest on a machine, kept with the specialist it answers for.

A specialist's folder may hold a folder ``runtime``: ``choice.json``, which says what was tried, on what
machine, and what was kept, and, unless PyTorch was, the exported specialist beside it. `choose_runtime` in
`gsco.specialists.fastest` writes it, `load_specialist` reads it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from functools import cache
from pathlib import Path
from typing import Any

from gsco.errors import ModelError
from gsco.specialists.exported import ExportedSpecialist
from gsco.specialists.machine import cpu_name
from gsco.specialists.trained import TrainedSpecialist

FOLDER = "runtime"
CHOICE = "choice.json"
PYTORCH = "pytorch"
_LIBRARIES = ("torch", "onnxruntime", "openvino")


@cache
def this_machine() -> dict[str, str]:
    """What a choice depends on: the processor, and the versions of the libraries that compute."""
    found = {"cpu": cpu_name()}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found


def mark_of(specialist: TrainedSpecialist) -> str:
    """SHA-256 (hex) of what decides a specialist's logits: kind, options, settings and weights."""
    about = [specialist.kind, specialist.options, specialist._config()]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, values in sorted(specialist._tensors().items()):
        digest.update(f"\n{name} {values.dtype} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def runtime_of(specialist: object) -> str:
    """What computes a specialist's answers: ``pytorch``, or a runtime and its precision (``onnx fp32``)."""
    fast = getattr(specialist, "fast", None)
    return f"{fast.runtime} {fast.precision}" if isinstance(fast, ExportedSpecialist) else PYTORCH


def runtime_mark(specialist: object) -> str:
    """What tells answers of one runtime from those of another; empty for PyTorch."""
    fast = getattr(specialist, "fast", None)
    if not isinstance(fast, ExportedSpecialist):
        return ""
    return json.dumps([runtime_of(specialist), fast._config()["sha256"], this_machine()], sort_keys=True)


def take_chosen(specialist: TrainedSpecialist, folder: Path, *, cached: bool) -> None:
    """Let the runtime that was chosen on this machine answer for a specialist.

    PyTorch goes on answering where nothing was chosen, and, with the reason in ``runtime_note``, where the
    choice was made on another machine, with other versions, or for other weights.

    Args:
        specialist: as it was read from `folder`.
        folder: of the specialist.
        cached: whether it is a head that finds features of its images in a cache, which is faster still.
    """
    path = folder / FOLDER / CHOICE
    if not path.is_file():
        return
    try:
        choice: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kept, why = str(choice["kept"]), str(choice["why"])
        reason = _against(choice, specialist)
        if not reason and cached:
            reason = "features of images are kept for it, which other heads share"
        if not reason and kept != PYTORCH:
            specialist.fast = ExportedSpecialist.from_pretrained(folder / FOLDER)
    except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
        reason = f"its runtime folder cannot be read ({error})"
    if reason:
        kept, why = PYTORCH, reason
    specialist.runtime_note = f"{specialist.name} answers by {kept}: {why}"


def _against(choice: dict[str, Any], specialist: TrainedSpecialist) -> str:
    """Why a choice does not hold here; empty where it does."""
    before, here = choice["machine"], this_machine()
    other = [f"{key} {before.get(key)}, here {here[key]}" for key in here if before.get(key) != here[key]]
    if other:
        return f"the fastest runtime was chosen elsewhere ({'; '.join(other)}); export it --to auto again"
    if choice["original"] != mark_of(specialist):
        return "the fastest runtime was chosen for other weights; export it --to auto again"
    return ""
