"""Specialists from their folders, and what they say about cases, kept so that nothing is asked twice."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, Dataset, ImageRef
from gsco.disk import storage_errors, write_atomic
from gsco.errors import DatasetError, ModelError, NoLabelsError
from gsco.evaluation.comparison.labels import means_else, option_names
from gsco.evaluation.metrics import Floats
from gsco.progress import Count

if TYPE_CHECKING:
    from gsco.cases.case import Split
    from gsco.evaluation.progress import Reporter
    from gsco.specialists import Specialist

BLOCK = 64
"""Images per kept file: what a kill may lose."""
_CARD = "README.md"


@dataclass(frozen=True)
class Contestant:
    """A specialist that is judged.

    Attributes:
        name: unique among those compared.
        folder: where it was read from.
        specialist: ready to be asked.
        fingerprint: SHA-256 over its files, and over the runtime that answers where it is not PyTorch (hex).
    """

    name: str
    folder: Path
    specialist: Specialist
    fingerprint: str


def load_contestants(
    folders: Sequence[Path], *, cache: Path, progress: Reporter | None = None
) -> list[Contestant]:
    """Specialists by folder; those of one name are told apart by as much of their folder as it takes.

    Args:
        folders: at least one; a folder that is named twice counts once.
        cache: where features are kept.
        progress: told which runtime answers, where one was chosen.

    Raises:
        ModelError: a folder is no specialist.
    """
    from gsco.specialists import load_specialist
    from gsco.specialists.chosen import runtime_mark

    paths = list(dict.fromkeys(Path(os.path.normpath(folder.absolute())) for folder in folders))
    found: list[Specialist] = [load_specialist(path, cache=cache) for path in paths]
    for specialist in found:
        if progress and (note := getattr(specialist, "runtime_note", "")):
            progress.note(note)
    names = [specialist.name for specialist in found]
    taken = Counter(names)
    namesakes = {name: [p for p, n in zip(paths, names, strict=True) if n == name] for name in taken}
    return [
        Contestant(
            name if taken[name] == 1 else f"{name} ({_tail(path, namesakes[name])})",
            path,
            specialist,
            fingerprint(path, runtime_mark(specialist)),
        )
        for path, name, specialist in zip(paths, names, found, strict=True)
    ]


def _tail(path: Path, others: Sequence[Path]) -> str:
    """The shortest end of a path that no other one has."""
    for n in range(1, len(path.parts)):
        end = path.parts[-n:]
        if sum(other.parts[-n:] == end for other in others) == 1:
            return "/".join(end)
    return str(path)


def fingerprint(folder: Path, runtime: str = "") -> str:
    """SHA-256 over names and bytes of a specialist's files, the card and the chosen runtime left out.

    Args:
        folder: the specialist's.
        runtime: what computes its answers, see `gsco.specialists.chosen.runtime_mark`.
    """
    from gsco.specialists.chosen import FOLDER

    digest = hashlib.sha256(runtime.encode())
    for path in sorted(folder.rglob("*")):
        if path.relative_to(folder).parts[0] == FOLDER:
            continue
        if path.is_file() and path.name != _CARD and not path.name.startswith("."):
            digest.update(f"{path.relative_to(folder).as_posix()}\n".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def folders_of_run(run: Path) -> list[Path]:
    """The specialists' folders of a run, by name.

    Raises:
        ModelError: there are none.
    """
    found = sorted(path.parent for path in (run / "specialists").glob("*/config.json"))
    if not found:
        raise ModelError(
            "holds no specialists",
            where=str(run),
            remedy="Give a folder that `gsco run` made, or specialists.",
        )
    return found


def ask(
    contestant: Contestant, images: Sequence[ImageRef], *, cache: Path, step: Count | None = None
) -> Floats:
    """Calibrated probabilities, (images, options), from the cache or asked for.

    They are kept in blocks, by the specialist's fingerprint and the content of the images; so a killed
    call loses at most one block, and the answer is the same bytes whether it was interrupted or not.

    Raises:
        ImageError, StorageError: as the names say.
    """
    from gsco.specialists.features import image_keys

    options, parts = len(contestant.specialist.options), []
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        content = hashlib.sha256(b"".join(image_keys(block))).hexdigest()
        kept = cache / "predictions" / contestant.fingerprint[:32] / f"{content[:32]}.npy"
        known = _read(kept, (len(block), options))
        if known is None:
            known = np.asarray(contestant.specialist.predict(block), dtype=np.float64)
            _write(kept, known)
        parts.append(known)
        if step:
            step(min(start + BLOCK, len(images)), len(images))
    return np.concatenate(parts) if parts else np.zeros((0, options))


def _read(path: Path, shape: tuple[int, int]) -> Floats | None:
    try:
        values: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.shape == shape else None


def _write(path: Path, values: Floats) -> None:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def labelled(dataset: Dataset, split: Split) -> tuple[Case, ...]:
    """Cases of a split whose answer is known; where a case may have several labels, none is an answer."""
    several = dataset.task.multi_label
    return tuple(case for case in dataset.split(split) if several or case.label is not None)


def check_dataset(dataset: Dataset, split: Split) -> None:
    """DatasetError where specialists cannot be judged on a split of this dataset."""
    task = dataset.task
    if task.kind != "diagnosis" or not task.options:
        raise DatasetError(
            f"is a {task.kind} task",
            where=str(dataset.root),
            remedy="This works on diagnosis with labels of a closed list.",
        )
    if not labelled(dataset, split):
        raise NoLabelsError(
            f"has no labelled case in split {split!r}",
            where=str(dataset.root),
            remedy="Name another split, or label some cases.",
        )


def columns_for(contestant: Contestant, dataset: Dataset) -> list[int]:
    """Position among the specialist's options of each of the dataset's.

    Raises:
        ModelError: they are not the same options.
    """
    own, options = contestant.specialist.options, dataset.task.keys
    several = bool(getattr(contestant.specialist, "multi_label", False))
    if several != dataset.task.multi_label:
        raise ModelError(
            f"specialist {contestant.name!r} gives {'several labels' if several else 'one label'} a case, "
            f"{dataset.name} has {'several' if dataset.task.multi_label else 'one'}",
            where=str(contestant.folder),
            remedy="Train one on this dataset.",
        )
    other = means_else(dataset.task.options, option_names(contestant.specialist))
    if set(own) != set(options) or other:
        raise ModelError(
            f"specialist {contestant.name!r} chooses among {', '.join(own)}, but {dataset.name} has "
            f"{', '.join(options)}{f' ({other})' if other else ''}",
            where=str(contestant.folder),
            remedy="Try `gsco specialist evaluate DIR --data DATA --external`, which maps labels by name.",
        )
    return [own.index(key) for key in options]


def thresholds_for(contestant: Contestant, columns: Sequence[int]) -> Floats:
    """Above which probability a specialist of several labels a case says each of the dataset's."""
    own = getattr(contestant.specialist, "thresholds", None)
    return np.full(len(columns), 0.5) if own is None else np.asarray(own, dtype=np.float64)[list(columns)]
