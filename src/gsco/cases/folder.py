"""Dataset folders: ``labels.csv``, ``vqa.jsonl`` or ``reports.jsonl``, with an optional ``dataset.yaml``."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, cast, get_args

from gsco.cases.case import SPLITS, Case, Dataset, ImageRef, Split, Task, TaskKind
from gsco.cases.names import UNKNOWN_MODALITY, KnownSet, known_set, make_options
from gsco.cases.splits import draw_splits
from gsco.cases.tables import read_csv, read_jsonl, read_yaml
from gsco.errors import DatasetError, LabelError, NoLabelsError

FILES: Mapping[TaskKind, str] = {"diagnosis": "labels.csv", "vqa": "vqa.jsonl", "report": "reports.jsonl"}
"""The file that holds the cases of each kind of task."""

LEFT_OUT = "heldout"
"""A value of ``split`` whose rows are counted in the card and not read."""

_WHOLE = re.compile(r"0|[1-9][0-9]{0,8}")
_OWN = frozenset({"task", "modality", "options", "multi_label", "ordinal", "label_column", "name", "license"})
_NOTHING = "no finding"
"""What a column of findings says, in ChestX-ray14's words, where there is none of them."""


def load_folder(
    root: Path,
    *,
    task: TaskKind | None = None,
    modality: str | None = None,
    name: str | None = None,
    seed: int = 0,
    label_column: str | None = None,
) -> Dataset:
    """Read a dataset folder as described in the docs; no image is opened.

    ``labels.csv`` wins where several of the three files stand in the folder, unless `task` or the key
    ``task`` of ``dataset.yaml`` says otherwise. Missing modality and option names come from a built-in
    catalogue by the folder's name, else from the keys. `label_column`, or the key ``label_column`` of
    ``dataset.yaml``, names another column of ``labels.csv`` for the labels; then "No Finding" there is no
    label, and a case may have none.

    Raises:
        NoLabelsError: none of the files is there, or not the one `task` needs.
        LabelError: a label outside the declared options.
        DatasetError: anything else that is not as described.
    """
    about = read_yaml(root / "dataset.yaml")
    kind = _kind(root, about, task)
    title = name or _text(root, about, "name") or root.resolve().name
    known = known_set(title) or known_set(root.resolve().name)
    path = root / FILES[kind]
    column = label_column or _text(root, about, "label_column") or "label"
    rows = _csv_rows(path, column) if kind == "diagnosis" else _json_rows(path, root, kind)
    kept = [row for row in rows if row.split != LEFT_OUT]
    if not kept:
        raise NoLabelsError("lists no case", where=str(path), remedy="Add one line per image.")
    origin = known_set(title, exact=True) or known_set(root.resolve().name, exact=True)
    card = _card(path, about, origin, left_out=len(rows) - len(kept))
    options, multi = _options(root, about, known, kept) if kind == "diagnosis" else ((), False)
    ordinal = _flag(root, about, "ordinal", False)
    if kind == "diagnosis":
        _check_labels(path, kept, tuple(o.key for o in options), multi)
    cases = tuple(row.case(root) for row in kept)
    if all(row.split == "" for row in kept):
        cases = draw_splits(cases, seed=seed)
        card["split"] = f"drawn: 70/10/20, seed {seed}, by patient or group where given"
    modality = modality or _text(root, about, "modality") or (known.modality if known else UNKNOWN_MODALITY)
    return Dataset(title, Task(kind, modality, options, multi, ordinal), cases, root, card)


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a cases file, checked but for its labels."""

    number: int
    id: str
    images: tuple[str, ...]
    split: str
    labels: tuple[str, ...] = ()
    patient_id: str | None = None
    group: str | None = None
    question: str | None = None
    answer: str | None = None
    report: str | None = None
    extra: Mapping[str, str] | None = None

    def case(self, root: Path) -> Case:
        return Case(
            self.id,
            tuple(ImageRef(root / image) for image in self.images),
            self.labels,
            cast(Split, self.split or "train"),
            self.patient_id,
            self.group,
            self.question,
            self.answer,
            self.report,
            dict(self.extra or {}),
        )


def _kind(root: Path, about: Mapping[str, Any], task: TaskKind | None) -> TaskKind:
    kinds = get_args(TaskKind)
    stated = task or about.get("task")
    if stated is not None and stated not in kinds:
        raise DatasetError(
            f"task {stated!r} is none of {', '.join(kinds)}",
            where=None if task else str(root / "dataset.yaml"),
        )
    present = [kind for kind, file in FILES.items() if (root / file).is_file()]
    kind = stated or (present[0] if present else None)
    if kind is None or kind not in present:
        wanted = f"no {FILES[kind]}, which the task {kind!r} needs" if kind else "no labels.csv"
        raise NoLabelsError(
            f"there is {wanted}",
            where=str(root),
            remedy="Add labels.csv (columns image,label,split), vqa.jsonl or reports.jsonl, "
            "or put the images into one folder per class.",
        )
    return cast(TaskKind, kind)


def _csv_rows(path: Path, column: str = "label") -> list[_Row]:
    own = {"image", column, "split", "patient_id", "group"}
    rows = []
    for number, cells in read_csv(path, ("image", column)):
        image = _inside(path, f"row {number}", cells["image"])
        rows.append(
            _Row(
                number,
                image,
                (image,),
                _split(path, f"row {number}", cells.get("split")),
                _labels_of(cells[column], column),
                cells.get("patient_id") or None,
                cells.get("group") or None,
                extra={key: value for key, value in cells.items() if key not in own},
            )
        )
    _all_or_none(path, rows)
    return rows


def _labels_of(text: str, column: str) -> tuple[str, ...]:
    """The labels in one cell."""
    labels = tuple(part.strip() for part in text.split("|") if part.strip())
    if column == "label":
        return labels
    return tuple(label for label in labels if label.lower().replace("_", " ") != _NOTHING)


def _json_rows(path: Path, root: Path, kind: TaskKind) -> list[_Row]:
    """Lines of ``vqa.jsonl`` or ``reports.jsonl``.

    A line without patient and group takes those of its image in ``labels.csv``, else the image itself is
    the group: all questions on one image stay in one split.
    """
    units: dict[str, tuple[str | None, str | None]] = {}
    if (root / "labels.csv").is_file():
        units = {row.images[0]: (row.patient_id, row.group) for row in _csv_rows(root / "labels.csv")}
    own = {"image", "images", "split", "patient_id", "group", "question", "answer", "report"}
    rows: list[_Row] = []
    for number, line in read_jsonl(path):
        spot = f"line {number}"
        given = line.get("images", line.get("image"))
        listed = given if isinstance(given, list) else [] if given is None else [given]
        images = tuple(_inside(path, spot, image) for image in listed)
        patient, group = units.get(images[0], (None, None)) if images else (None, None)
        patient, group = _scalar(line.get("patient_id")) or patient, _scalar(line.get("group")) or group
        if not patient and not group and images:
            group = images[0]
        question = _scalar(line.get("question"))
        if kind == "vqa" and not question:
            raise DatasetError(f"{spot} has no question", where=str(path))
        first = images[0] if images else "text"
        identity = next(
            (str(line[key]) for key in ("id", "qid", "study_id", "uid") if line.get(key) is not None), ""
        )
        if kind == "vqa" or not images:
            identity = f"{first}#{identity or number}"
        else:
            identity = first
        rows.append(
            _Row(
                number,
                identity,
                images,
                _split(path, spot, line.get("split")),
                (),
                patient,
                group,
                question,
                _scalar(line.get("answer")),
                _report(line) if kind == "report" else None,
                {
                    key: text
                    for key, value in line.items()
                    if key not in own and (text := _scalar(value)) is not None
                },
            )
        )
    _all_or_none(path, rows)
    # A study or image may name several lines: then the line's number tells them apart.
    times = Counter(row.id for row in rows)
    return [row if times[row.id] == 1 else replace(row, id=f"{row.id}#{row.number}") for row in rows]


def _report(line: Mapping[str, Any]) -> str | None:
    """The report text: ``report``, else its parts ``findings`` and ``impression``."""
    if _scalar(line.get("report")):
        return _scalar(line["report"])
    parts = [(title, _scalar(line.get(title.lower()))) for title in ("FINDINGS", "IMPRESSION")]
    return " ".join(f"{title}: {text}" for title, text in parts if text) or None


def _scalar(value: Any) -> str | None:
    """A JSON value as stripped text; None for null and for empty text."""
    if value is None:
        return None
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = "|".join(value)
    return str(value).strip() or None


def _inside(path: Path, spot: str, image: Any) -> str:
    """The image path as written, in POSIX form; it must stay inside the dataset's folder."""
    if not isinstance(image, str) or not image.strip():
        raise DatasetError(f"{spot} names no image", where=str(path))
    plain = PurePosixPath(image.strip().replace("\\", "/"))
    if (
        not plain.parts
        or plain.is_absolute()
        or ".." in plain.parts
        or "\0" in image
        or plain.parts[0].endswith(":")
    ):
        raise DatasetError(
            f"{spot}: image {image!r} is outside the folder",
            where=str(path),
            remedy="Name images relative to the dataset's folder.",
        )
    return str(plain)


def _split(path: Path, spot: str, value: Any) -> str:
    """One of the splits, `LEFT_OUT`, or "" where none is given."""
    text = str(value or "").strip().lower()
    if text and text not in SPLITS and text != LEFT_OUT:
        raise DatasetError(
            f"{spot}: split {text!r} is none of {', '.join(SPLITS)}",
            where=str(path),
            remedy=f"Use train, val or test ({LEFT_OUT!r} rows are left out).",
        )
    return text


def _all_or_none(path: Path, rows: Iterable[_Row]) -> None:
    """A split is given for all rows or for none: half a split is a mistake."""
    empty = [row.number for row in rows if row.split == ""]
    if empty and any(row.split for row in rows):
        raise DatasetError(
            f"row {empty[0]} has no split ({len(empty)} such in all), others have one",
            where=str(path),
            remedy="Give every row a split, or none to have them drawn.",
        )


def _options(
    root: Path, about: Mapping[str, Any], known: KnownSet | None, rows: Iterable[_Row]
) -> tuple[tuple[Any, ...], bool]:
    """Options and whether several labels may stand together."""
    where = str(root / "dataset.yaml")
    declared = about.get("options")
    names = dict(known.names) if known else {}
    found = {label for row in rows for label in row.labels}
    if declared is None:
        keys = sorted(found, key=int) if all(_WHOLE.fullmatch(label) for label in found) else sorted(found)
    elif isinstance(declared, dict):
        keys = [str(key) for key in declared]
        names |= {str(key): str(value) for key, value in declared.items() if value not in (None, "")}
    elif isinstance(declared, list):
        keys = []
        for entry in declared:
            if isinstance(entry, dict) and "key" in entry:
                keys.append(str(entry["key"]))
                if entry.get("name"):
                    names[keys[-1]] = str(entry["name"])
            elif isinstance(entry, dict):
                raise DatasetError(f"option {entry!r} has no 'key'", where=where)
            else:
                keys.append(str(entry))
    else:
        raise DatasetError("options must be a list, or a mapping of key to name", where=where)
    double = [value for value, n in Counter(keys).items() if n > 1]
    double += [value for value, n in Counter(names[key] for key in keys if key in names).items() if n > 1]
    if double:
        raise DatasetError(f"the option {double[0]!r} stands twice", where=where)
    multi = _flag(root, about, "multi_label", any(len(row.labels) > 1 for row in rows))
    return make_options(keys, names), multi


def _flag(root: Path, about: Mapping[str, Any], key: str, default: bool) -> bool:
    value = about.get(key, default)
    if not isinstance(value, bool):
        raise DatasetError(f"{key} is {value!r}, not true or false", where=str(root / "dataset.yaml"))
    return value


def _check_labels(path: Path, rows: Iterable[_Row], keys: tuple[str, ...], multi: bool) -> None:
    allowed = set(keys)
    for row in rows:
        wrong = next((label for label in row.labels if label not in allowed), None)
        if wrong is not None:
            raise LabelError(
                f"row {row.number}: label {wrong!r} is not among the options {', '.join(keys)}",
                where=str(path),
                remedy="Correct the label, or add it to the options in dataset.yaml.",
            )
        if len(set(row.labels)) < len(row.labels):
            raise LabelError(f"row {row.number}: a label stands twice", where=str(path))
        if not multi and len(row.labels) != 1:
            what = "no label" if not row.labels else f"{len(row.labels)} labels"
            raise LabelError(
                f"row {row.number}: {what}, where one of {', '.join(keys)} is needed",
                where=str(path),
                remedy="Give each image one label, or set multi_label: true in dataset.yaml.",
            )


def _text(root: Path, about: Mapping[str, Any], key: str) -> str | None:
    value = about.get(key)
    if value is not None and not isinstance(value, (str, int, float)):
        raise DatasetError(f"{key} must be text", where=str(root / "dataset.yaml"))
    return str(value).strip() or None if value is not None else None


def _card(path: Path, about: Mapping[str, Any], origin: KnownSet | None, *, left_out: int) -> dict[str, Any]:
    """What is known about the data: the catalogue's words, then those of ``dataset.yaml``."""
    card: dict[str, Any] = {"format": path.name, "split": "given"}
    if origin:
        card |= {key: value for key in ("licence", "source") if (value := getattr(origin, key))}
    card |= {key: value for key, value in about.items() if key not in _OWN}
    if about.get("license"):
        card["licence"] = about["license"]
    if left_out:
        card[LEFT_OUT] = left_out
    card["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return card
