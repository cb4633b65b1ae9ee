"""Records as batches: read by place in the order, cropped by seed, put together by shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset

from gsco.cases import load_image
from gsco.errors import DatasetError, ImageError
from gsco.generalist.finetune.conversation import SkippedRecord
from gsco.generalist.finetune.encoding import IGNORED, Encoded, Encoder
from gsco.generalist.finetune.meta import Annotation
from gsco.generalist.finetune.order import FILLER
from gsco.generalist.finetune.preparation import Prepared, conversation_of

if TYPE_CHECKING:
    from PIL import Image

_SCALE = (0.8, 1.0)
_RATIO = (3 / 4, 4 / 3)


class OrderedRecords(Dataset[tuple[str, Encoded]]):
    """Records in reading order, each with its name.

    Args:
        annotations: where they stand.
        records: the usable ones; `order` counts in them.
        order: see `gsco.generalist.finetune.order.training_order`.
        encoder: tokenises a conversation.
        seed: of the crops; the crop at a place depends on seed and place alone.
        crop: whether sets with ``data_augment`` are cropped at all.
    """

    def __init__(
        self,
        annotations: Sequence[Annotation],
        records: Sequence[Prepared],
        order: Sequence[int],
        encoder: Encoder,
        *,
        seed: int = 0,
        crop: bool = True,
    ) -> None:
        self.annotations = annotations
        self.records = records
        self.order = order
        self.encoder = encoder
        self.seed = seed
        self.crop = crop
        self._shortest = min(range(len(records)), key=lambda i: records[i].tokens)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> tuple[str, Encoded]:
        number = self.order[place]
        record = self.records[self._shortest if number == FILLER else number]
        annotation = self.annotations[record.source]
        try:
            found = conversation_of(annotation, record.line, self.encoder)
            images = [load_image(ref) for ref in found.images]
        except (SkippedRecord, ImageError) as error:
            raise DatasetError(
                f"record {record.line + 1} changed since it was first read ({error})",
                where=str(annotation.path),
                remedy="Put it back, or train into another folder.",
            ) from None
        if self.crop and annotation.data_augment:
            rng = np.random.default_rng([self.seed, place])
            images = [random_crop(image, rng) for image in images]
        encoded = self.encoder(found.messages, images)
        return record.id, encoded.without_labels() if number == FILLER else encoded


def random_crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """InternVL's training crop (``RandomResizedCrop``: area .8-1, ratio 3/4-4/3, bicubic).

    It is brought back to the size it had, so that the processor makes as many tokens of it as before.
    """
    from PIL import Image as Pillow

    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(*_SCALE)
        ratio = float(np.exp(rng.uniform(*np.log(_RATIO))))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            box = (left, top, left + w, top + h)
            return image.resize(image.size, Pillow.Resampling.BICUBIC, box=box)
    w, h = min(width, round(height * _RATIO[1])), min(height, round(width / _RATIO[0]))  # the middle
    left, top = (width - w) // 2, (height - h) // 2
    return image.resize(image.size, Pillow.Resampling.BICUBIC, box=(left, top, left + w, top + h))


class Collator:
    """Encoded records to one batch, padded on the right; ``records`` holds their names.

    Args:
        pad: id of the padding token; it carries no meaning here, since attention and labels pass it over.
        blank: a record with an image and no labels. Where it is given, a batch without any image gets it
            as one row more: processes that share a model's shards must all run its vision part.
    """

    def __init__(self, pad: int, *, blank: Encoded | None = None) -> None:
        self.pad = pad
        self.blank = blank

    def __call__(self, items: Sequence[tuple[str, Encoded]]) -> dict[str, Any]:
        """The batch: tensors by name, `labels` (B, T), and `records`."""
        rows = [encoded for _, encoded in items]
        if self.blank is not None and all(set(row.inputs) <= _sequence_keys(row) for row in rows):
            rows.append(self.blank)
        length = max(len(row) for row in rows)
        out: dict[str, Any] = {"records": [name for name, _ in items]}
        out["labels"] = torch.stack(
            [functional.pad(row.labels, (0, length - len(row)), value=IGNORED) for row in rows]
        )
        for key in dict.fromkeys(key for row in rows for key in row.inputs):
            if any(key in _sequence_keys(row) for row in rows):
                fill = self.pad if key == "input_ids" else 0
                values = [row.inputs.get(key, torch.zeros_like(row.inputs["input_ids"])) for row in rows]
                out[key] = torch.cat(
                    [functional.pad(value, (0, length - value.shape[1]), value=fill) for value in values]
                )
            else:
                out[key] = _stacked([row.inputs[key] for row in rows if key in row.inputs])
        return out


def _sequence_keys(row: Encoded) -> set[str]:
    """Tensors with one value for each token, as the ids have."""
    return {key for key, value in row.inputs.items() if value.shape == row.inputs["input_ids"].shape}


def _stacked(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Along the first axis; others padded with zeros to the largest, as processors do with tiles."""
    most = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
    padded = []
    for value in values:
        sides: list[int] = []
        for size, full in zip(reversed(value.shape[1:]), reversed(most), strict=True):
            sides += [0, full - size]
        padded.append(functional.pad(value, sides) if any(sides) else value)
    return torch.cat(padded)
