"""InternVL conversation files: one record is an image and what a human and the model say about it.

::

    {"id": "17", "image": "images/a.png", "width": 224, "height": 224,
     "conversations": [{"from": "human", "value": "<image>\\nIs there an effusion?"},
                       {"from": "gpt", "value": "yes"}]}

A file is a JSON list of such records or holds one on each line. ``image`` may be a list (several images of
one study) or missing (text only); ``width`` and ``height`` are optional and not relied upon. An image that
is a row of an ``.npz`` is written ``set.npz:train_images:17``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from gsco.cases.case import SPLITS, Case, Dataset, ImageRef, Split, Task
from gsco.cases.names import UNKNOWN_MODALITY, known_set
from gsco.cases.splits import draw_splits
from gsco.cases.tables import read_jsonl, read_text
from gsco.disk import whole_file, writing
from gsco.errors import DatasetError, counted

IMAGE_TAG = "<image>"
"""Stands for an image inside a human's turn."""

Record = dict[str, Any]
"""One conversation, as in the module's text."""


def read_conversations(path: Path) -> list[Record]:
    """All records of a conversation ``.json`` or ``.jsonl``, checked, otherwise as they stand.

    Raises:
        DatasetError: naming file and record, where turns are missing, do not alternate human and gpt, or
            hold another number of ``<image>`` tags than there are images (no tag at all is allowed).
    """
    return [record for _, record in _numbered(path)]


def write_conversations(path: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records as JSON Lines, whole or not at all; returns how many.

    Raises:
        ValueError: a record that `read_conversations` would refuse.
        StorageError: the file cannot be written.
    """
    count = 0
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
            for record in records:
                problem = problem_of(record)
                if problem:
                    raise ValueError(f"record {count}: {problem}")
                file.write(json.dumps(dict(record), ensure_ascii=False) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
    return count


def load_conversations(
    path: Path,
    *,
    image_root: Path | None = None,
    split: Split | None = None,
    modality: str | None = None,
    name: str | None = None,
    seed: int = 0,
) -> Dataset:
    """Conversations as a ``vqa`` dataset: each human turn with its answer is a case.

    Args:
        path: a conversation ``.json`` or ``.jsonl``.
        image_root: the folder image paths are relative to; default the file's own.
        split: the split of all records. Otherwise a record's own ``split``; where no record has one, a
            split is drawn by patient, group or image.
        modality: how the images were taken.
        name: a short name; default the file's.
        seed: of the draw.

    Raises:
        DatasetError: a record that is not as described, or a split given for some records only.
    """
    root = image_root or path.parent
    cases: list[Case] = []
    stated: set[bool] = set()
    for number, record in _numbered(path):
        given = split or record.get("split")
        if given is not None and given not in SPLITS:
            raise DatasetError(
                f"record {number}: split {given!r} is none of {', '.join(SPLITS)}", where=str(path)
            )
        stated.add(given is not None)
        images = tuple(image_ref(text, root) for text in _images(record))
        patient, group = (str(record[k]) if record.get(k) else None for k in ("patient_id", "group"))
        if not patient and not group and images:
            group = _images(record)[0]
        identity = str(record.get("id", f"record-{number}"))
        turns = record["conversations"]
        cases.extend(
            Case(
                identity if len(turns) == 2 else f"{identity}#{turn // 2}",
                images,
                split=cast(Split, given or "train"),
                patient_id=patient,
                group=group,
                question=turns[turn]["value"].replace(IMAGE_TAG, "").strip(),
                answer=turns[turn + 1]["value"].strip(),
            )
            for turn in range(0, len(turns), 2)
        )
    if not cases:
        raise DatasetError("holds no conversation", where=str(path))
    if len(stated) > 1:
        raise DatasetError("some records have a split and some have none", where=str(path))
    card = {"format": "conversations", "split": "given"}
    if stated == {False}:
        cases = list(draw_splits(cases, seed=seed))
        card["split"] = f"drawn: 70/10/20, seed {seed}, by patient, group or image"
    title = name or path.stem
    known = known_set(title)
    task = Task("vqa", modality or (known.modality if known else UNKNOWN_MODALITY))
    return Dataset(title, task, tuple(cases), path, card)


def image_ref(text: str, root: Path) -> ImageRef:
    """The image a record names: a path (relative to `root` unless absolute) or ``set.npz:array:row``."""
    row = re.fullmatch(r"(.+\.npz):(\w+):(\d+)", text)
    if row:
        return ImageRef(root / row[1], row[2], int(row[3]))
    return ImageRef(root / text)


def _numbered(path: Path) -> list[tuple[int, Record]]:
    """Checked records with their number: the line of a JSON Lines file, else the place in the list."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        try:
            loaded = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"is not JSON ({error})", where=str(path)) from None
        records = list(enumerate(loaded, start=1))
    else:
        records = list(_lines(path, text))
    for number, record in records:
        problem = problem_of(record)
        if problem:
            raise DatasetError(f"record {number}: {problem}", where=str(path))
    return records


def _lines(path: Path, text: str) -> Iterable[tuple[int, Record]]:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return read_jsonl(path)  # several objects, one on each line
    if isinstance(whole, dict) and any(isinstance(v, dict) and "annotation" in v for v in whole.values()):
        raise DatasetError(
            "lists conversation files and holds no conversation",
            where=str(path),
            remedy="Give one of the files its 'annotation' entries name.",
        )
    return [(1, whole)]


def _images(record: Mapping[str, Any]) -> list[str]:
    given = record.get("image")
    return list(given) if isinstance(given, list) else [] if given in (None, "") else [given]


def problem_of(record: Any) -> str | None:
    """What is wrong with a record, in words, or None."""
    if not isinstance(record, Mapping):
        return "is not an object in braces"
    images = _images(record)
    if not all(isinstance(image, str) and image for image in images):
        return "image is not a path"
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        return "has no conversations"
    tags = 0
    for place, turn in enumerate(turns):
        speaker = ("human", "gpt")[place % 2]
        if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
            return f"turn {place + 1} has no text"
        if turn.get("from") != speaker:
            return f"turn {place + 1} is from {turn.get('from')!r}, not {speaker!r}"
        tags += turn["value"].count(IMAGE_TAG) if speaker == "human" else 0
    if len(turns) % 2:
        return "ends without an answer"
    if tags not in (0, len(images)):
        return f"has {counted(len(images), 'image')} and {counted(tags, f'{IMAGE_TAG} tag')}"
    return None
