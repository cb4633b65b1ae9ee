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
        class_reliability: how often it is right on validation when it says each option, in [0, 1], in the
            task's order (`gsco.specialists.calibration.class_reliability`); None when unknown.
        abstains: whether it is less sure here than on the cases that it would answer.
    """

    specialist: str
    probabilities: tuple[float, ...]
    reliability: float | None = None
    class_reliability: tuple[float, ...] | None = None
    abstains: bool = False

    @property
    def choice(self) -> int:
        """Position of the most probable option (the first one on a tie)."""
        return int(np.argmax(self.probabilities))

    @property
    def trust(self) -> float | None:
        """How often this specialist is right on validation when it says what it says here."""
        return None if self.class_reliability is None else self.class_reliability[self.choice]


@runtime_checkable
class Specialist(Protocol):
    """Image → calibrated class probabilities and an embedding.

    Attributes:
        name: unique among the specialists of a run, file-name safe.
        options: option keys, in the order of the probabilities.
        reliability: balanced accuracy on validation, in [0, 1], or None.

    It may also know its ``class_reliability`` and the confidence it ``abstains_below``, see `opinion_of`.
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


def opinion_of(
    specialist: Specialist, probabilities: Sequence[float] | NDArray[np.float64], keys: Sequence[str]
) -> Opinion:
    """What a specialist says about one case, with what it knows about itself.

    Args:
        specialist: who speaks. One without ``class_reliability`` (a tuple) or ``abstains_below`` (a
            confidence) says nothing about single options and never abstains.
        probabilities: what it says, shape (n_options,), in the order of `keys`.
        keys: the task's options; the specialist may have them in another order.
    """
    row = tuple(map(float, probabilities))
    shares: tuple[float, ...] | None = getattr(specialist, "class_reliability", None)
    if shares is not None:
        shares = tuple(shares[specialist.options.index(key)] for key in keys)
    below = getattr(specialist, "abstains_below", None)
    return Opinion(
        specialist.name, row, specialist.reliability, shares, below is not None and max(row) < below
    )
