"""A folder of phantoms that any reader of dataset folders can read."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gsco.cases.case import Split
from gsco.cases.paths import expanded
from gsco.cases.phantoms.findings import FINDINGS, FindingKind, readable_name
from gsco.cases.phantoms.scanner import SCANNERS
from gsco.cases.phantoms.spec import PhantomSpec, sample_spec
from gsco.cases.phantoms.texts import write_questions, write_report
from gsco.disk import writing
from gsco.errors import DatasetError

NAME = "phantom_cxr"
_COLUMNS = (
    "image",
    "label",
    "split",
    "patient_id",
    "group",
    "scanner",
    "finding_side",
    "finding_x",
    "finding_y",
    "finding_size",
)
# Of every ten patients in turn: seven to train, one to validate, two to test.
_BLOCK: tuple[Split, ...] = ("train",) * 7 + ("val",) + ("test",) * 2


@dataclass(frozen=True, slots=True)
class _Planned:
    image: str
    patient: int
    split: Split
    spec: PhantomSpec
    text_seed: tuple[int, ...]


def generate_phantoms(
    folder: Path,
    *,
    n: int = 600,
    seed: int = 0,
    size: int = 224,
    scanners: Sequence[str] = ("A", "B"),
) -> Path:
    """Write a dataset folder of synthetic chest radiographs for diagnosis, questions and reports.

    The first images do not depend on `n`, and everything but the scanner's picture is the same for any
    `scanners`. A patient has one to three images, all in one split (70/10/20 % of patients). In each split
    the findings are equally frequent, and each is equally often seen by each scanner.

    Args:
        folder: created; an earlier phantom folder is replaced, any other content is refused.
        n: number of images, at least 1.
        seed: the same seed gives the same bytes.
        size: side of the images in pixels, at least 32.
        scanners: keys of `SCANNERS` to use.

    Returns:
        The folder: ``images/``, ``labels.csv``, ``vqa.jsonl``, ``reports.jsonl``, ``dataset.yaml``,
        ``README.md``.

    Raises:
        DatasetError: for arguments out of range, or a folder that holds something else.
        StorageError: where the folder cannot be written.
    """
    folder = expanded(folder).resolve()
    _check(folder, n, size, scanners)
    with writing(folder, what="cannot write the phantoms"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".phantoms-") as place:
            draft = Path(place) / folder.name
            (draft / "images").mkdir(parents=True)
            _write(draft, n, seed, size, tuple(scanners))
            if folder.exists():
                shutil.rmtree(folder)
            draft.replace(folder)
    return folder


def _check(folder: Path, n: int, size: int, scanners: Sequence[str]) -> None:
    if n < 1:
        raise DatasetError(f"n={n} phantoms", remedy="Ask for at least 1.")
    if size < 32:
        raise DatasetError(f"size={size} pixels is too small to draw a chest", remedy="Ask for 32 or more.")
    unknown = [name for name in scanners if name not in SCANNERS]
    if unknown or not scanners:
        raise DatasetError(
            f"unknown scanner {unknown[0]!r}" if unknown else "no scanner given",
            remedy=f"Choose from {', '.join(SCANNERS)}.",
        )
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not _is_ours(folder))):
        raise DatasetError(
            "exists and is not a phantom folder", where=str(folder), remedy="Choose an empty or new folder."
        )


def _is_ours(folder: Path) -> bool:
    card = folder / "dataset.yaml"
    return card.is_file() and card.read_text(encoding="utf-8").startswith(f"name: {NAME}\n")


def _plan(n: int, seed: int, scanners: tuple[str, ...]) -> list[_Planned]:
    planned: list[_Planned] = []
    seen: Counter[str] = Counter()
    queues: dict[Split, Iterator[FindingKind]] = {}
    patient = 0
    while len(planned) < n:
        order = np.random.default_rng([seed, 11, patient // 10]).permutation(10)
        split = _BLOCK[int(order[patient % 10])]
        queue = queues.setdefault(split, _shuffled_findings(seed, split))
        for visit in range(
            int(np.random.default_rng([seed, 12, patient]).choice((1, 2, 3), p=(0.6, 0.25, 0.15)))
        ):
            kind = next(queue)
            scanner = scanners[(seen[split + kind] + FINDINGS.index(kind)) % len(scanners)]
            seen[split + kind] += 1
            spec = sample_spec(kind, seed=seed, patient=patient, visit=visit, scanner=scanner)
            name = f"images/phantom_{len(planned):05d}.png"
            planned.append(_Planned(name, patient, split, spec, (seed, 13, patient, visit)))
        patient += 1
    return planned[:n]


def _shuffled_findings(seed: int, split: str) -> Iterator[FindingKind]:
    block = 0
    while True:
        rng = np.random.default_rng([seed, 14, *split.encode(), block])
        yield from (FINDINGS[int(i)] for i in rng.permutation(len(FINDINGS)))
        block += 1


def _write(folder: Path, n: int, seed: int, size: int, scanners: tuple[str, ...]) -> None:
    from PIL import Image

    from gsco.cases.phantoms.draw import draw_phantom

    rows: list[list[str]] = []
    questions: list[dict[str, str]] = []
    reports: list[dict[str, str]] = []
    for item in _plan(n, seed, scanners):
        f, patient = item.spec.finding, f"phantom-{item.patient:05d}"
        Image.fromarray(draw_phantom(item.spec, size=size)).save(folder / item.image, compress_level=4)
        place = ["", "", ""] if f.kind == "no_finding" else [f"{v:.4f}" for v in (f.x, f.y, f.size)]
        rows.append([item.image, f.kind, item.split, patient, patient, item.spec.scanner, f.side, *place])
        rng = np.random.default_rng(item.text_seed)
        findings, impression = write_report(f, rng)
        common = {"split": item.split, "patient_id": patient, "group": patient}
        reports.append(
            {
                "image": item.image,
                "report": f"FINDINGS: {findings} IMPRESSION: {impression}",
                "findings": findings,
                "impression": impression,
                "label": f.kind,
                **common,
            }
        )
        for question in write_questions(f, rng):
            questions.append(
                {
                    "qid": str(len(questions)),
                    "image": item.image,
                    "question": question.question,
                    "answer": question.answer,
                    "answer_type": question.answer_type,
                    "question_type": question.question_type,
                    "organ": "CHEST",
                    **common,
                }
            )
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(rows)
    _text(folder / "labels.csv", table.getvalue())
    _text(folder / "vqa.jsonl", "".join(json.dumps(record) + "\n" for record in questions))
    _text(folder / "reports.jsonl", "".join(json.dumps(record) + "\n" for record in reports))
    _text(folder / "README.md", _README.format(n=n, seed=seed, size=size, scanners=", ".join(scanners)))
    _text(folder / "dataset.yaml", _card(n, seed, size, scanners))


def _text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _card(n: int, seed: int, size: int, scanners: tuple[str, ...]) -> str:
    options = "".join(f"  {kind}: {readable_name(kind)}\n" for kind in FINDINGS)
    return (
        f"name: {NAME}\n"
        "task: diagnosis\n"
        "modality: synthetic chest radiograph (phantom)\n"
        f"options:\n{options}"
        "licence: CC0-1.0\n"
        "synthetic: true\n"
        "description: Synthetic phantoms drawn by a program; no patient was imaged. Not for clinical use.\n"
        "source: gsco.cases.phantoms\n"
        f"n: {n}\n"
        f"seed: {seed}\n"
        f"size: {size}\n"
        f"scanners: [{', '.join(scanners)}]\n"
    )


_README = """# Synthetic chest radiographs (phantoms)

**These images are synthetic.** They were drawn by a program (`gsco.cases.phantoms`); no patient was imaged,
and nothing measured on them says anything about real radiographs. Licence: CC0-1.0.

{n} images of {size} x {size} pixels, 8-bit grey; seed {seed}; scanners {scanners}.

| file | holds |
|---|---|
| `labels.csv` | image, label, split, patient and group, scanner, and the finding's side, place and size |
| `vqa.jsonl` | questions and answers about each image |
| `reports.jsonl` | a report of two parts (findings, impression) for each image |

Left and right are the patient's: the patient's right is on the left of the image. `finding_x` (to the
right) and `finding_y` (down) are fractions of the image's side. `finding_size` is the diameter of a nodule
or consolidation, the height of an effusion above the costophrenic angle, the width of a pneumothorax's air
rim, all as fractions of the image's side, and for cardiomegaly the cardiothoracic ratio. Splits are by
patient.
"""
