"""What one specialist says about one split, kept in a folder: ``predictions/NAME.SPLIT.npz``."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gsco.disk import storage_errors, write_atomic
from gsco.errors import RunError
from gsco.evaluation.runfolder import RunFolder
from gsco.specialists.registry import safe_name


def predictions_path(folder: RunFolder, name: str, split: str) -> Path:
    """Where the predictions of a specialist about a split are kept."""
    return folder.predictions / f"{safe_name(name)}.{split}.npz"


def write_predictions(path: Path, ids: Sequence[str], probabilities: NDArray[np.float64]) -> None:
    """Write ids (n) and probabilities (n, options) by one rename; StorageError where they cannot be."""
    with storage_errors(path):
        path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, ids=np.asarray(ids, dtype=np.str_), probabilities=probabilities)
    write_atomic(path, buffer.getvalue())


def read_predictions(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Ids and probabilities (n, options); RunError where the file is damaged or missing."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return [str(case_id) for case_id in stored["ids"]], stored["probabilities"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise RunError(
            "is damaged or missing", where=str(path), remedy="Delete it and resume the run."
        ) from None
