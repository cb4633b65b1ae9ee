"""The nouns of the bottom floor: `ImageRef`, `Case`, `Option`, `Task`, `Dataset`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
TaskKind = Literal["diagnosis", "vqa", "report"]


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where the pixels of one image are; nothing is read until `gsco.cases.load_image` is called.

    Attributes:
        path: an image file (PNG, JPEG, TIFF, BMP, WebP), a DICOM file, or a MedMNIST ``.npz``.
        key: the array's name inside an ``.npz`` (e.g. ``"train_images"``), else None.
        index: the row inside an ``.npz`` array, or the frame of a multi-frame file, else None.
    """

    path: Path
    key: str | None = None
    index: int | None = None

    def __str__(self) -> str:
        inner = ":".join(str(part) for part in (self.key, self.index) if part is not None)
        return f"{self.path}:{inner}" if inner else str(self.path)


@dataclass(frozen=True, slots=True)
class Option:
    """One closed answer: `key` as it stands in the data, `name` as a person (or a prompt) reads it."""

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked of a dataset.

    Attributes:
        kind: ``diagnosis`` (closed options), ``vqa`` or ``report``.
        modality: how the images were taken, readable (``"breast ultrasound"``).
        options: the closed options in fixed order; empty for open tasks.
        multi_label: whether a case may have several labels, or none.
        ordinal: whether the options are grades in ascending order.
    """

    kind: TaskKind
    modality: str
    options: tuple[Option, ...] = ()
    multi_label: bool = False
    ordinal: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """Option keys in order."""
        return tuple(option.key for option in self.options)

    @property
    def names(self) -> tuple[str, ...]:
        """Readable option names in order."""
        return tuple(option.name for option in self.options)

    def index(self, key: str) -> int:
        """Position of an option key; ValueError where it is unknown."""
        return self.keys.index(key)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to answer, with the reference answer where it is known.

    Attributes:
        id: unique in its dataset and stable between loads (the image's path relative to the folder,
            or ``"test:17"`` for an npz row).
        images: one or more images of the same study; the first one is the principal one.
        labels: reference option keys; one for single-label tasks, empty when unknown.
        split: ``train``, ``val`` or ``test``.
        patient_id: the patient, where the data say so.
        group: the unit that must stay inside one split (lesion, slide, near-duplicates).
        question / answer / report: for ``vqa`` and ``report`` tasks.
        extra: further columns of the source, untouched.
    """

    id: str
    images: tuple[ImageRef, ...]
    labels: tuple[str, ...] = ()
    split: Split = "test"
    patient_id: str | None = None
    group: str | None = None
    question: str | None = None
    answer: str | None = None
    report: str | None = None
    extra: dict[str, str] = field(default_factory=dict, hash=False, compare=False)

    @property
    def image(self) -> ImageRef:
        """The principal image."""
        return self.images[0]

    @property
    def label(self) -> str | None:
        """The reference option key of a single-label case."""
        return self.labels[0] if self.labels else None

    @property
    def cluster(self) -> str:
        """The unit of resampling for intervals: patient, else group, else the case itself."""
        return self.patient_id or self.group or self.id


@dataclass(frozen=True, slots=True)
class Dataset:
    """Cases with fixed splits and a card.

    Attributes:
        name: short id, e.g. ``"busi"``.
        task: what is asked.
        cases: all cases, in a stable order.
        root: the folder or file it was read from.
        card: licence, source, description, ``synthetic`` and so on, as far as known.
        skipped: images that could not be read, as one line each (name and reason).
    """

    name: str
    task: Task
    cases: tuple[Case, ...]
    root: Path
    card: dict[str, Any] = field(default_factory=dict, hash=False, compare=False)
    skipped: tuple[str, ...] = ()

    def split(self, name: Split) -> tuple[Case, ...]:
        """The cases of one split, in order."""
        return tuple(case for case in self.cases if case.split == name)

    def targets(self, cases: Sequence[Case]) -> list[int]:
        """Option positions of single-label cases; ValueError where a label is missing."""
        position = {key: i for i, key in enumerate(self.task.keys)}
        out = []
        for case in cases:
            if case.label is None:
                raise ValueError(f"{case.id} has no label")
            out.append(position[case.label])
        return out

    def truth(self, cases: Sequence[Case]) -> NDArray[np.int64]:
        """`targets` as an array, (n,); with several labels a case 0 or 1 by label, (n, options)."""
        import numpy as np

        if not self.task.multi_label:
            return np.asarray(self.targets(cases), dtype=np.int64)
        rows = [[key in case.labels for key in self.task.keys] for case in cases]
        return np.asarray(rows, dtype=np.int64).reshape(len(cases), len(self.task.keys))

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)
