"""What may be seen in a phantom: five findings with side, place, size and contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gsco.cases.phantoms.anatomy import Anatomy, Pose, lung_shape, outward
from gsco.cases.phantoms.body import heart_centre

FindingKind = Literal["no_finding", "effusion", "pneumothorax", "nodule", "consolidation", "cardiomegaly"]
FINDINGS: tuple[FindingKind, ...] = (
    "no_finding",
    "effusion",
    "pneumothorax",
    "nodule",
    "consolidation",
    "cardiomegaly",
)
_NAMES = {
    "no_finding": "no finding",
    "effusion": "pleural effusion",
    "pneumothorax": "pneumothorax",
    "nodule": "lung nodule",
    "consolidation": "consolidation",
    "cardiomegaly": "cardiomegaly",
}
# Limits between small and moderate, moderate and large, in the unit of `Finding.size`.
_SIZES = {
    "effusion": (0.12, 0.20),
    "pneumothorax": (0.065, 0.100),
    "nodule": (0.073, 0.097),
    "consolidation": (0.22, 0.28),
    "cardiomegaly": (0.58, 0.63),
}


def readable_name(kind: str) -> str:
    """The finding as a person reads it, e.g. ``"pleural effusion"``."""
    return _NAMES[kind]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; all lengths are fractions of the image's side.

    Attributes:
        kind: which finding.
        side: the patient's side, ``left`` or ``right``; empty for no finding and for cardiomegaly.
        x, y: centre in the image (x to the right, y down), or NaN for no finding.
        size: nodule and consolidation: diameter; effusion: height of the fluid above the costophrenic
            angle; pneumothorax: width of the air rim; cardiomegaly: cardiothoracic ratio (no length).
        contrast: how plainly it is seen, 1 is plain.
        local: the centre in body coordinates: distance from the midline towards `side`, and height.
        seed: seed of the outline (consolidation).
    """

    kind: FindingKind
    side: str = ""
    x: float = float("nan")
    y: float = float("nan")
    size: float = 0.0
    contrast: float = 1.0
    local: tuple[float, float] = (0.0, 0.0)
    seed: int = 0

    @property
    def size_word(self) -> str:
        """``small``, ``moderate`` or ``large``; empty for no finding."""
        if self.kind == "no_finding":
            return ""
        low, high = _SIZES[self.kind]
        return "small" if self.size < low else "moderate" if self.size < high else "large"

    @property
    def zone(self) -> str:
        """``upper``, ``mid`` or ``lower`` lung zone of a nodule or consolidation, else empty."""
        if self.kind not in ("nodule", "consolidation"):
            return ""
        height = self.local[1]
        return "upper" if height < 0.33 else "mid" if height < 0.53 else "lower"

    @staticmethod
    def sample(kind: FindingKind, anatomy: Anatomy, pose: Pose, rng: np.random.Generator) -> Finding:
        """Draw side, place, size and contrast of a finding that fits this body."""
        side = "left" if rng.random() < 0.5 else "right"
        u = rng.uniform
        lung = lung_shape(anatomy, pose, side)
        contrast = float(u(0.45, 1.0))
        seed = int(rng.integers(2**31))
        if kind == "no_finding":
            return Finding(kind)
        if kind == "cardiomegaly":
            ratio = float(u(0.54, 0.68))
            x, y = pose.to_image(*heart_centre(anatomy, pose, ratio))
            return Finding(kind, "", x, y, ratio, 1.0, seed=seed)
        if kind == "effusion":
            size = float(u(0.07, 0.27))
            away, height = 0.66 * lung.half_width, lung.angle - 0.5 * size
        elif kind == "pneumothorax":
            size = float(u(0.04, 0.13))
            height = lung.apex + 0.35 * (lung.angle - lung.apex)
            away = lung.width_at(height) - 0.5 * size
        else:
            size = float(u(0.05, 0.12) if kind == "nodule" else u(0.16, 0.34))
            height = float(u(lung.apex + 0.11, lung.dome - 0.08))
            wall, inner = lung.width_at(height), lung.mediastinum + 0.05
            # The heart hides the left lower zone's medial part: keep small things lateral of it.
            if side == "left" and height > 0.5 * (lung.apex + lung.dome):
                inner = max(inner, 2 * anatomy.heart_ratio * anatomy.half_width * 0.66 + 0.02)
            margin = 0.03 + 0.25 * size
            away = float(u(min(inner, wall - margin - 0.01), wall - margin))
        x, y = pose.to_image(outward(side) * away, height)
        return Finding(kind, side, x, y, size, contrast, (away, height), seed)
