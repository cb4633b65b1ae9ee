"""The body of a phantom: what belongs to the patient (`Anatomy`) and to the moment (`Pose`).

All lengths are fractions of the image's side; x runs to the right of the image, y downwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# In practice float32: Python numbers do not widen it (NumPy 2 promotion), which the stubs cannot express.
Plane = NDArray[np.floating[Any]]

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
            rib_contrast=u(0.07, 0.13),
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

    def points(self, sign: int, local: NDArray[np.float64]) -> NDArray[np.float64]:
        """Image coordinates of points given as (distance from the midline on side `sign`, height), (n, 2)."""
        c, s = np.cos(self.tilt), np.sin(self.tilt)
        dx, dy = sign * local[:, 0], local[:, 1] - 0.5
        return np.stack([self.midline + c * dx - s * dy, 0.5 + self.shift + s * dx + c * dy], axis=1)

    def grid(self, size: int) -> tuple[Plane, Plane]:
        """Upright coordinates (x from the midline, y) of every pixel, each (size, size) float32."""
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size
        c, s = math.cos(self.tilt), math.sin(self.tilt)
        dx = (axis - self.midline)[None, :]
        dy = (axis - 0.5 - self.shift)[:, None]
        return c * dx + s * dy, c * dy - s * dx + 0.5


def sigmoid(z: Plane) -> Plane:
    """Logistic function without overflow."""
    out: Plane = np.tanh(0.5 * z)
    out += 1.0
    out *= 0.5
    return out


def length(dx: Plane, dy: Plane) -> Plane:
    """Euclidean length (`numpy.hypot` guards against overflow, at ten times the price)."""
    out: Plane = np.sqrt(dx * dx + dy * dy)
    return out


def blur(plane: Plane, width: float) -> Plane:
    """Gaussian blur with reflected borders; `width` is the standard deviation in pixels."""
    if width <= 0:
        return plane
    radius = max(1, int(np.ceil(2.5 * width)))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
    for axis in (0, 1):
        padded = np.pad(plane, [(radius, radius) if a == axis else (0, 0) for a in (0, 1)], mode="reflect")
        n = plane.shape[axis]
        out = np.zeros_like(plane)
        for i, tap in enumerate((taps / taps.sum()).tolist()):
            out += tap * (padded[i : i + n] if axis == 0 else padded[:, i : i + n])
        plane = out
    return plane


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

    def _depth(self, y: Plane) -> Plane:
        """0 at the apex, 1 at the costophrenic angle."""
        depth: Plane = (y - self.apex) / (self.angle - self.apex)
        return np.clip(depth, 0.0, 1.0)

    def lateral(self, y: Plane) -> Plane:
        """Distance of the chest wall from the midline at height y."""
        t = self._depth(y)
        left = 1 - t
        squared = left * left
        wall: Plane = np.sqrt(1 - squared * squared) * (0.90 + 0.10 * t)
        return self.half_width * wall

    def medial(self, y: Plane) -> Plane:
        """Distance of the mediastinal edge from the midline: the apex is rounded, away from the spine."""
        return self.mediastinum + 0.05 * np.exp(-self._depth(y) * 14)

    def base(self, away: Plane) -> Plane:
        """Height of the diaphragm at a distance from the midline."""
        offset = away / self.half_width - 0.42
        return self.dome + offset * offset * np.where(offset > 0, 0.9 * ANGLE_DEPTH / 0.58**2, 0.10).astype(
            away.dtype
        )

    def mask(self, away: Plane, y: Plane, soft: float = 0.007) -> Plane:
        """How much of each pixel is lung, 0 to 1."""
        edge = np.minimum(self.lateral(y) - away, away - self.medial(y))
        return sigmoid(np.minimum(edge, self.base(away) - y) / soft)

    def width_at(self, y: float) -> float:
        """Distance of the chest wall from the midline at one height."""
        return float(self.lateral(np.asarray([y]))[0])


def lung_shape(anatomy: Anatomy, pose: Pose, side: str) -> LungShape:
    """The outline of the patient's left or right lung."""
    dome = anatomy.dome + pose.inspiration + (anatomy.dome_step if side == "left" else 0.0)
    return LungShape(anatomy.half_width, anatomy.apex, dome, anatomy.mediastinum)


def outward(side: str) -> int:
    """Sign of x on the patient's side: the patient's left is on the right of the image."""
    return 1 if side == "left" else -1
