"""What a specialist is to the floors above: a `Specialist` speaks `Opinion`s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gsco.cases import ImageRef


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one specialist says about one case.

    Attributes:
        specialist: the specialist's name.
        probabilities: calibrated probability of each option, in the task's order, summing to 1
            (single-label tasks).
        reliability: balanced accuracy of this specialist on validation, in [0, 1]; None when unknown.
    """

    specialist: str
    probabilities: tuple[float, ...]
    reliability: float | None = None

    @property
    def choice(self) -> int:
        """Position of the most probable option (the first one on a tie)."""
        return int(np.argmax(self.probabilities))


@runtime_checkable
class Specialist(Protocol):
    """Image → calibrated class probabilities and an embedding.

    Attributes:
        name: unique among the specialists of a run, file-name safe.
        options: option keys, in the order of the probabilities.
        reliability: balanced accuracy on validation, in [0, 1], or None.
    """

    name: str
    options: tuple[str, ...]
    reliability: float | None

    def predict(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        """Calibrated probabilities, shape (n_images, n_options), rows summing to 1."""
        ...

    def save_pretrained(self, folder: Path) -> None:
        """Write ``config.json``, ``model.safetensors`` and a card (``README.md``)."""
        ...
