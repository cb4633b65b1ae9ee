"""How long and how fast a network learns: `Schedule`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a network is trained.

    Attributes:
        size: side to which a picture is stretched.
        images: training pictures shown in all; epochs follow from it, within `least` and `most`.
        least / most: bounds of the number of epochs.
        batch: pictures per step of the optimiser.
        lr: peak learning rate.
        weight_decay: of AdamW.
        smoothing: label smoothing.
        average: decay of the moving average of the weights, which is what is kept; 0 keeps the weights
            themselves.
        patience: epochs without a better validation figure after which training stops; None never stops.
        pad: side to which normalised pictures are padded with zeros, centred; None does not pad.
        optimiser: ``adamw`` or ``adam`` (which decays nothing).
        decay_all: whether biases and norms decay, too.
        rate: ``warm_cosine`` (linear warm-up over a tenth of the steps, then cosine to 1 %, by step),
            ``cosine`` (to 0, by epoch, without warm-up; the first two epochs have the peak, as in the
            MedMNIST+ code) or ``steps`` (a tenth after half and again after three quarters of the epochs).
        balance: classes weigh (1 / frequency) ** balance in the loss; 0 weighs all cases the same.
        sampling: ``shuffle`` shows each case once an epoch; ``balanced`` draws as many cases with
            replacement, each class as often.
        clip: largest norm of a gradient; None does not clip.
        keep: the epoch kept has the lowest validation ``loss`` or the highest validation ``auc``.
        accumulate: parts in which a batch is worked through, for less memory; batch norm sees a part.
    """

    size: int
    images: int
    least: int = 5
    most: int = 30
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.05
    smoothing: float = 0.05
    average: float = 0.98
    patience: int | None = 8
    pad: int | None = None
    optimiser: Literal["adamw", "adam"] = "adamw"
    decay_all: bool = False
    rate: Literal["warm_cosine", "cosine", "steps"] = "warm_cosine"
    balance: float = 0.5
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    clip: float | None = 5.0
    keep: Literal["loss", "auc"] = "loss"
    accumulate: int = 1

    def epochs(self, n: int) -> int:
        """Number of epochs for `n` training cases."""
        return max(self.least, min(self.most, round(self.images / max(1, n))))

    def share(self, epoch: int, step: int, epochs: int, steps: int) -> float:
        """Share of the peak learning rate at a step.

        Args:
            epoch / epochs: the epoch from 0, and how many there are.
            step / steps: the step in its epoch from 0, and how many an epoch has.
        """
        if self.rate == "steps":
            return 0.1 ** ((epoch >= 0.5 * epochs) + (epoch >= 0.75 * epochs))
        if self.rate == "cosine":
            return (1 + math.cos(math.pi * max(0, epoch - 1) / epochs)) / 2
        done, total = epoch * steps + step, epochs * steps
        warm = max(1, total // 10)
        if done < warm:
            return (done + 1) / warm
        return 0.01 + 0.99 * (1 + math.cos(math.pi * (done - warm) / max(1, total - warm))) / 2

    def order(self, targets: NDArray[np.int64], generator: torch.Generator) -> torch.Tensor:
        """Rows in the order of one epoch, shape (N,).

        Args:
            targets: option positions (N,), or 0/1 by label (N, options), drawn by their rarest label.
            generator: where all chance comes from.
        """
        import torch

        if self.sampling == "shuffle":
            return torch.randperm(len(targets), generator=generator)
        if targets.ndim == 2:
            often = np.concatenate([targets.sum(axis=0), [(targets.sum(axis=1) == 0).sum()]])
            with_none = np.concatenate([targets, (targets.sum(axis=1) == 0)[:, None]], axis=1)
            weights = (with_none / np.maximum(often, 1)).max(axis=1)
        else:
            weights = 1.0 / np.bincount(targets)[targets]
        return torch.multinomial(
            torch.from_numpy(weights), len(targets), replacement=True, generator=generator
        )
