"""The body of a phantom: what belongs to the patient (`Anatomy`) and to the moment (`Pose`).

All lengths are fractions of the image's side; x runs to the right of the image, y downwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

# How far the costophrenic angle lies below the top of the diaphragm's dome.
ANGLE_DEPTH = 0.115


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What stays the same between two images of one patient.

    Attributes:
        half_width: midline to the lung's lateral edge, about .31 to .40.
        apex: y of the lungs' upper end.
        dome: y of the right dome of the diaphragm at mean inspiration.
        dome_step: how much lower the left dome is.
        mediastinum: half width of the mediastinum.
        heart_ratio: cardiothoracic ratio without cardiomegaly, about .38 to .49.
        heart_tilt: lean of the heart's axis, radians.
        habitus: thickness of soft tissue, 0 (thin) to 1 (thick).
        breast: density of breast shadows over the lower lungs, 0 for none.
        rib_spacing: distance between ribs.
        rib_contrast: brightness of the ribs.
        spine_contrast: brightness of the vertebrae.
        vessels: brightness of the vessels in the lungs.
        tree_seed: seed of the vessel tree and of the lungs' texture.
    """

    half_width: float
    apex: float
    dome: float
    dome_step: float
    mediastinum: float
    heart_ratio: float
    heart_tilt: float
    habitus: float
    breast: float
    rib_spacing: float
    rib_contrast: float
    spine_contrast: float
    vessels: float
    tree_seed: int

    @staticmethod
    def sample(rng: np.random.Generator) -> Anatomy:
        """Draw one patient."""
        u = rng.uniform
        return Anatomy(
            half_width=u(0.315, 0.395),
            apex=u(0.09, 0.15),
            dome=u(0.67, 0.75),
            dome_step=u(0.005, 0.03),
            mediastinum=u(0.052, 0.075),
            heart_ratio=u(0.39, 0.49),
            heart_tilt=u(0.35, 0.75),
            habitus=u(0.0, 1.0),
            breast=u(0.03, 0.12) if u() < 0.4 else 0.0,
            rib_spacing=u(0.066, 0.080),
            rib_contrast=u(0.05, 0.10),
            spine_contrast=u(0.04, 0.08),
            vessels=u(0.10, 0.20),
            tree_seed=int(rng.integers(2**31)),
        )


@dataclass(frozen=True, slots=True)
class Pose:
    """What changes from one image to the next: position, rotation, depth of inspiration.

    Attributes:
        midline: x of the midline.
        shift: vertical shift.
        tilt: rotation in the image plane, radians.
        inspiration: shift of the diaphragm; positive is deeper.
    """

    midline: float
    shift: float
    tilt: float
    inspiration: float

    @staticmethod
    def sample(rng: np.random.Generator) -> Pose:
        """Draw one pose."""
        return Pose(
            midline=0.5 + rng.uniform(-0.025, 0.025),
            shift=rng.uniform(-0.02, 0.02),
            tilt=rng.uniform(-0.05, 0.05),
            inspiration=rng.uniform(-0.03, 0.03),
        )

    def to_image(self, x: float, y: float) -> tuple[float, float]:
        """Image coordinates of a point given relative to the midline (x) and upright (y)."""
        c, s = np.cos(self.tilt), np.sin(self.tilt)
        dx, dy = x, y - 0.5
        return float(self.midline + c * dx - s * dy), float(0.5 + self.shift + s * dx + c * dy)

    def grid(self, size: int) -> tuple[Plane, Plane]:
        """Upright coordinates (x from the midline, y) of every pixel, each (size, size) float32."""
        axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
        c, s = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        dx = (axis - np.float32(self.midline))[None, :]
        dy = (axis - np.float32(0.5 + self.shift))[:, None]
        return c * dx + s * dy, -s * dx + c * dy + np.float32(0.5)


def sigmoid(z: Plane) -> Plane:
    """Logistic function, float32, without overflow."""
    return np.float32(0.5) * (np.tanh(np.float32(0.5) * z) + np.float32(1.0))


@dataclass(frozen=True, slots=True)
class LungShape:
    """The outline of one lung, on the side where `away` from the midline is positive.

    Attributes:
        half_width: midline to lateral edge.
        apex: y of the upper end.
        dome: y of the diaphragm's dome.
        mediastinum: midline to medial edge.
    """

    half_width: float
    apex: float
    dome: float
    mediastinum: float

    @property
    def angle(self) -> float:
        """y of the costophrenic angle."""
        return self.dome + ANGLE_DEPTH

    def lateral(self, y: Plane | float) -> Plane:
        """Distance of the chest wall from the midline at height y."""
        t = np.clip((np.asarray(y, np.float32) - self.apex) / (self.angle - self.apex), 0.0, 1.0)
        wall = (1.0 - (1.0 - t) ** 3.0) ** 0.5
        return np.asarray(self.half_width * wall * (0.90 + 0.10 * t), dtype=np.float32)

    def base(self, away: Plane) -> Plane:
        """y of the diaphragm at a distance from the midline."""
        offset = away / self.half_width - 0.42
        return np.asarray(
            self.dome + np.where(offset > 0, ANGLE_DEPTH / 0.58**2 * 0.9, 0.10) * offset * offset,
            dtype=np.float32,
        )

    def mask(self, away: Plane, y: Plane, soft: float = 0.007) -> Plane:
        """How much of each pixel is lung, 0 to 1."""
        inverse = np.float32(1.0 / soft)
        edge = np.minimum(self.lateral(y) - away, away - np.float32(self.mediastinum))
        edge = np.minimum(edge, self.base(away) - y)
        return sigmoid(edge * inverse)


def lung_shape(anatomy: Anatomy, pose: Pose, side: str) -> LungShape:
    """The outline of the patient's left or right lung."""
    dome = anatomy.dome + pose.inspiration + (anatomy.dome_step if side == "left" else 0.0)
    return LungShape(anatomy.half_width, anatomy.apex, dome, anatomy.mediastinum)


def outward(side: str) -> int:
    """Sign of x on the patient's side: the patient's left is on the right of the image."""
    return 1 if side == "left" else -1
