"""Training records of a generalist: one-turn conversations, on disk in InternVL's JSONL form.

One line is ``{"id", "kind", "source", "image", "conversations": [{"from": "human", "value": ...},
{"from": "gpt", "value": ...}]}``; a human turn about an image starts with ``<image>`` and a newline.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gsco.cases import ImageRef, load_image
from gsco.errors import DatasetError

IMAGE_TAG = "<image>\n"


@dataclass(frozen=True, slots=True)
class Record:
    """One training conversation of one turn.

    Attributes:
        id: unique in its file.
        kind: what it teaches (``see``, ``hear``, ...).
        source: name of the dataset it was made from (``"simulated"`` without one).
        image: the image, or None for text only.
        prompt / answer: the two turns, without image tag.
    """

    id: str
    kind: str
    source: str
    image: ImageRef | None
    prompt: str
    answer: str


def write_records(
    records: Sequence[Record], folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write ``records.jsonl`` into `folder`, and rows of npz arrays as PNG beside it.

    Returns:
        The path of ``records.jsonl``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "records.jsonl"
    draft = target.with_suffix(".tmp")
    with draft.open("w", encoding="utf-8") as out:
        for i, record in enumerate(records):
            image = None if record.image is None else str(_file_of(record.image, folder / "images"))
            tag = "" if image is None else IMAGE_TAG
            line = {
                "id": record.id,
                "kind": record.kind,
                "source": record.source,
                "image": image,
                "conversations": [
                    {"from": "human", "value": tag + record.prompt},
                    {"from": "gpt", "value": record.answer},
                ],
            }
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            if progress:
                progress(i + 1, len(records))
    os.replace(draft, target)  # noqa: PTH105
    return target


def _file_of(ref: ImageRef, folder: Path) -> Path:
    if ref.key is None and ref.index is None:
        return ref.path.resolve()
    name = "-".join(str(part) for part in (ref.path.stem, ref.key, ref.index) if part is not None)
    target = folder / f"{name}.png"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        load_image(ref).save(target)
    return target.resolve()


def read_records(path: Path) -> list[Record]:
    """Read one-turn InternVL conversations; a relative image path counts from the file's folder.

    Raises:
        DatasetError: a line is not such a record.
    """
    records = []
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DatasetError("there is no such file of records", where=str(path)) from None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            human, gpt = found["conversations"]
            if (human["from"], gpt["from"]) != ("human", "gpt"):
                raise ValueError("turns must be human, then gpt")
            image = found.get("image")
            records.append(
                Record(
                    id=str(found.get("id", number)),
                    kind=str(found.get("kind", "")),
                    source=str(found.get("source", "")),
                    image=None if image is None else ImageRef(path.parent / image),
                    prompt=str(human["value"]).removeprefix(IMAGE_TAG),
                    answer=str(gpt["value"]),
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"is not a one-turn conversation ({error})",
                where=f"{path}:{number}",
                remedy="Each line needs conversations of one human and one gpt turn.",
            ) from error
    if not records:
        raise DatasetError("holds no records", where=str(path))
    return records
