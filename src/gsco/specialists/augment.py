"""Random changes to training pictures that leave the label true, by modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far training pictures may be changed.

    Attributes:
        mirror: flip left and right. Not for chest X-rays, where the side of the heart means something.
        turn: flip up and down and turn by quarters: for pictures without an up (cells, tissue, skin).
        degrees: rotation, uniform within plus and minus.
        zoom: scale, uniform within 1 plus and minus.
        shift: translation as a share of the side, uniform within plus and minus.
        light: brightness and contrast, each uniform within 1 plus and minus.
        tint: the same for each colour channel by itself; 0 where pictures are grey.
    """

    mirror: bool = True
    turn: bool = False
    degrees: float = 10.0
    zoom: float = 0.2
    shift: float = 0.08
    light: float = 0.15
    tint: float = 0.0


_WITHOUT_UP = ("histo", "patholog", "microscop", "smear", "blood", "cell", "derm", "skin")
_GREY = ("x-ray", "xray", "radiograph", "ultrasound", "ct", "mr", "mri", "phantom")


def augmentation_for(modality: str) -> Augmentation:
    """The augmentation for a modality as a dataset words it (``"chest X-ray"``)."""
    text = modality.lower()
    if any(part in text for part in _WITHOUT_UP):
        return Augmentation(turn=True, degrees=20.0, tint=0.05)
    words = text.replace("-", " ").replace("/", " ").split()
    grey = any(part in words or (len(part) > 3 and part in text) for part in _GREY)
    if grey and "ultrasound" not in text:
        return Augmentation(mirror=False, degrees=7.0)
    return Augmentation(tint=0.0 if grey else 0.05)


def augment(batch: torch.Tensor, how: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """A changed copy of a batch.

    Args:
        batch: float32 (N, 3, H, W), values in [0, 1].
        how: the limits.
        generator: where all chance comes from.

    Returns:
        The same shape, in [0, 1]; pixels from outside the picture repeat its border.
    """
    import math

    import torch

    n = len(batch)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(n, *shape, generator=generator) * 2 - 1

    angle = uniform() * math.radians(how.degrees)
    sign = torch.ones(n, 2)
    if how.mirror or how.turn:
        sign[:, 0] = torch.where(uniform() > 0, 1.0, -1.0)
    if how.turn:
        sign[:, 1] = torch.where(uniform() > 0, 1.0, -1.0)
        angle = angle + torch.randint(0, 4, (n,), generator=generator) * (math.pi / 2)
    scale = 1 + uniform() * how.zoom
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = uniform(2) * (2 * how.shift)
    matrix = torch.stack(
        [
            torch.stack([cos * sign[:, 0], -sin * sign[:, 1], shift[:, 0]], dim=1),
            torch.stack([sin * sign[:, 0], cos * sign[:, 1], shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = torch.nn.functional.affine_grid(matrix, list(batch.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)
    brightness = 1 + uniform(1, 1, 1) * how.light + uniform(3, 1, 1) * how.tint
    contrast = 1 + uniform(1, 1, 1) * how.light
    middle = moved.mean(dim=(1, 2, 3), keepdim=True)
    return ((moved - middle) * contrast + middle).mul(brightness).clamp(0, 1)
