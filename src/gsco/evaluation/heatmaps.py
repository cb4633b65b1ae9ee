"""Where the specialists looked: made once for the cases that the page shows, kept in the run folder.

A map is a small grey picture (0: nothing there speaks for the option, 255: the strongest place) whose text
says which case, specialist and option it is of. The page is drawn from these files, so that ``gsco report``
needs no model. A map costs about one pass forward and one backward.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gsco.cases import Case, ImageRef, load_image
from gsco.cases.paths import expanded
from gsco.disk import storage_errors, write_atomic
from gsco.errors import ModelError
from gsco.evaluation.progress import Reporter, Silent
from gsco.evaluation.report.cards import disagreements
from gsco.evaluation.report.heat import StoredHeatmap
from gsco.evaluation.work import Work
from gsco.specialists.registry import safe_name

if TYPE_CHECKING:
    from gsco.evaluation.diagnose import Diagnosis
    from gsco.specialists import Specialist
    from gsco.specialists.heatmaps import Explainer, Heatmap

_WITHOUT = "heatmaps/none.json"
"""The specialists whose lack of heat maps was noted."""
SIDE = 32
"""Longer side of a stored map in pixels; what a network's last maps hold is coarser still."""


def make_heatmaps(
    work: Work, cases: Sequence[Case], lines: Sequence[Mapping[str, Any]], specialists: Sequence[Specialist]
) -> None:
    """Heat maps of the first cases of the page, for each specialist's own answer; those on disk are kept.

    Args:
        work: folder, settings and progress.
        cases: those that were answered.
        lines: the log.
        specialists: of the run; one that has no heat map is left out, and named in a note once, not again
            when the run is resumed.
    """
    chosen = list(disagreements(lines, work.config.split)[0])[: work.config.heatmaps]
    images = {case.id: case.image for case in cases}
    missing = [
        (specialist, case_id)
        for specialist in specialists
        for case_id in chosen
        if case_id in images and not _path(work.folder.heatmaps, case_id, specialist.name).is_file()
    ]
    wanting = [s for s in specialists if any(specialist is s for specialist, _ in missing)]
    if not missing:
        return
    with work.stage("heat maps", total=len(missing)) as step:
        told: list[str] = work.folder.read_json(_WITHOUT) or []
        again = explainers([each for each in wanting if each.name in told], Silent())
        fresh = explainers([each for each in wanting if each.name not in told], work.progress)
        done = {each.specialist.name: each for each in (*again, *fresh)}
        with storage_errors(work.folder.heatmaps):
            work.folder.heatmaps.mkdir(exist_ok=True)
        without = sorted({each.name for each in wanting} - set(done))
        if without:
            work.folder.write_json(_WITHOUT, without)
        for i, (specialist, case_id) in enumerate(missing):
            if specialist.name in done:
                found = done[specialist.name].explain(images[case_id], side=SIDE)
                path = _path(work.folder.heatmaps, case_id, specialist.name)
                write_atomic(path, _encode(found, case_id))
            step(i + 1)


def explainers(
    specialists: Sequence[Specialist], progress: Reporter, *, needed: bool = False
) -> list[Explainer]:
    """What makes heat maps of those specialists that have one; the others are named in a note.

    Raises:
        ModelError: `needed`, and none has one.
    """
    from gsco.specialists.heatmaps import explainer

    made = []
    for specialist in specialists:
        try:
            made.append(explainer(specialist))
        except ModelError as error:
            progress.note(error.what)
    if needed and not made:
        raise ModelError(
            "none of the specialists has a heat map", remedy="Add a linear_probe or a network to the team."
        )
    return made


def stored_heatmap(folder: Path, case_id: str, specialist: str) -> StoredHeatmap | None:
    """The map that `make_heatmaps` left, or None where there is none that can be read."""
    from PIL import Image

    try:
        with Image.open(_path(folder, case_id, specialist)) as picture:
            picture.load()
            text = dict(getattr(picture, "text", {}))
            values = np.asarray(picture.convert("L"), dtype=np.float32)
    except (OSError, ValueError, SyntaxError):  # Pillow raises SyntaxError for some broken PNGs
        return None
    if text.get("case") != case_id or text.get("specialist") != specialist or "option" not in text:
        return None
    return StoredHeatmap((values / 255).astype(np.float32), text["option"], text.get("method", ""))


def save_heatmaps(path: Path, diagnosis: Diagnosis) -> None:
    """Write the heat maps of a diagnosis as one figure; StorageError where that cannot be done."""
    from gsco.specialists.overlays import save_figure

    names = {option.key: option.name for option in diagnosis.options}
    image = expanded(diagnosis.image)
    save_figure(path, load_image(ImageRef(image)), diagnosis.heatmaps, title=image.name, names=names)


def _path(folder: Path, case_id: str, specialist: str) -> Path:
    return folder / f"{hashlib.sha256(case_id.encode()).hexdigest()[:16]}.{safe_name(specialist)}.png"


def _encode(found: Heatmap, case_id: str) -> bytes:
    from PIL import Image, PngImagePlugin

    text = PngImagePlugin.PngInfo()
    for key, value in (
        ("case", case_id),
        ("specialist", found.specialist),
        ("option", found.option),
        ("method", found.method),
    ):
        text.add_itxt(key, value)
    out = io.BytesIO()
    grey = Image.fromarray(np.round(255 * found.values).astype(np.uint8))
    grey.save(out, "PNG", optimize=True, pnginfo=text)
    return out.getvalue()
