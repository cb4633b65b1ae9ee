"""Training records of a generalist: conversations of one turn, on disk in InternVL's form.

The form is that of `gsco.cases.conversations`; a record adds ``kind`` and ``source``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gsco.cases import ImageRef, load_image
from gsco.cases.conversations import IMAGE_TAG, image_ref, read_conversations, write_conversations
from gsco.errors import DatasetError
from gsco.progress import Count

_TAG = f"{IMAGE_TAG}\n"


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


def write_records(records: Sequence[Record], folder: Path, *, progress: Count | None = None) -> Path:
    """Write ``records.jsonl`` into `folder`, and rows of npz arrays as PNG beside it.

    Returns:
        The path of ``records.jsonl``.

    Raises:
        StorageError: the file cannot be written.
    """

    def lines() -> Iterator[dict[str, object]]:
        for done, record in enumerate(records, start=1):
            image = None if record.image is None else str(file_of(record.image, folder / "images"))
            yield {
                "id": record.id,
                "kind": record.kind,
                "source": record.source,
                "image": image,
                "conversations": [
                    {"from": "human", "value": ("" if image is None else _TAG) + record.prompt},
                    {"from": "gpt", "value": record.answer},
                ],
            }
            if progress:
                progress(done, len(records))

    target = folder / "records.jsonl"
    write_conversations(target, lines())
    return target


def file_of(ref: ImageRef, folder: Path) -> Path:
    """The file of an image; a row of an npz, or a frame, is written as PNG into `folder` first."""
    if ref.key is None and ref.index is None:
        return ref.path.resolve()
    name = "-".join(str(part) for part in (ref.path.stem, ref.key, ref.index) if part is not None)
    target = folder / f"{name}.png"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        load_image(ref).save(target)
    return target.resolve()


def read_records(path: Path, *, images: Path | None = None) -> list[Record]:
    """Read one-turn InternVL conversations; a relative image path counts from `images`, or the file's folder.

    Raises:
        DatasetError: there is no such file, or a record is none of one turn about at most one image.
    """
    records = []
    for number, found in enumerate(read_conversations(path), start=1):
        image = found.get("image")
        if len(found["conversations"]) != 2 or isinstance(image, list):
            raise DatasetError(
                f"record {number} is not a one-turn conversation about one image",
                where=str(path),
                remedy="Each record needs one human turn, one gpt turn and at most one image.",
            )
        human, gpt = found["conversations"]
        records.append(
            Record(
                id=str(found.get("id", number)),
                kind=str(found.get("kind", "")),
                source=str(found.get("source", "")),
                image=image_ref(image, images or path.parent) if image else None,
                prompt=human["value"].removeprefix(_TAG),
                answer=gpt["value"],
            )
        )
    if not records:
        raise DatasetError("holds no records", where=str(path))
    return records
