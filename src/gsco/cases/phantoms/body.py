"""The healthy body of a phantom as planes of attenuation, each (size, size) float32.

`x` and `y` are the upright coordinates that `Pose.grid` gives: x from the midline, y downwards. The numbers
were chosen by eye for a schematic postero-anterior film; they are drawn, not measured.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from gsco.cases.phantoms.anatomy import Anatomy, LungShape, Plane, Pose, blur, length, outward, sigmoid

_VERTEBRA = 0.062
_BRANCHINGS = 4


def soft_tissue(a: Anatomy, pose: Pose, x: Plane, y: Plane) -> Plane:
    """Torso, mediastinum, spine, trachea, aortic knob, clavicles, breasts and abdomen."""
    side = np.abs(x)
    flank = a.half_width * (1.14 + 0.10 * a.habitus)
    # The outline: neck at the top, then shoulders, then the flank.
    shoulder = 0.11 + (flank + 0.06) * np.sqrt(np.clip((y + 0.03) / 0.22, 0, 1))
    outline = np.minimum(shoulder, flank + 0.10 * np.clip(0.45 - y, 0, 1))
    # A chest is rounder than it is flat: the beam's path shortens towards the flanks.
    thickness = 0.61 + 0.10 * a.habitus + 0.10 * y - 0.30 * (side / flank) ** 4
    dome = a.dome + pose.inspiration
    abdomen = 0.12 * sigmoid((y - dome - 0.06) * 16)
    centre = 0.10 * sigmoid((a.mediastinum - side) * 45)
    plane = thickness + abdomen + centre + _spine(a, side, y) + _clavicles(a, side, y)
    plane -= 0.09 * sigmoid((0.017 - np.abs(x + 0.004)) * 260) * sigmoid((0.33 - y) * 40)
    knob = ((x - a.mediastinum) / 0.032) ** 2 + ((y - a.apex - 0.17) / 0.045) ** 2
    plane = plane + 0.13 * np.exp(-knob)
    if a.breast:
        radius, top = 0.5 * a.half_width, dome - 0.04
        distance = length(side - 0.55 * a.half_width, 0.8 * (y - top))
        plane += a.breast * sigmoid((radius - distance) * 50) * sigmoid((y - top + 0.15) * 20)
    body: Plane = plane * sigmoid((outline - side) * 70)
    return body


def _spine(a: Anatomy, side: Plane, y: Plane) -> Plane:
    discs = np.clip(2 * np.sin(y * (2 * math.pi / _VERTEBRA)), -1, 1)
    column: Plane = sigmoid((0.042 - side) * 160) * (0.6 + 0.4 * discs)
    return a.spine_contrast * column


def _clavicles(a: Anatomy, side: Plane, y: Plane) -> Plane:
    t = side / a.half_width
    off = np.abs(y - (a.apex + 0.075 - 0.085 * t + 0.02 * np.sin(4.5 * t))) / 0.016
    bone: Plane = sigmoid((1 - off) * 4) * (0.6 + 0.5 * np.minimum(off, 1.5))
    bone = bone * sigmoid((t - 0.10) * 60) * sigmoid((1.15 - t) * 30)
    return 1.2 * a.rib_contrast * bone


def ribs(a: Anatomy, x: Plane, y: Plane) -> Plane:
    """Posterior ribs (plain) and anterior ribs (faint), as two periodic families of curves."""
    side = np.abs(x)
    t = side / a.half_width
    frame = LungShape(a.half_width * 1.04, a.apex - 0.03, 0.86, 0.0)
    cage = np.minimum((frame.lateral(y) - side) * 90, (y - a.apex + 0.02) * 60)
    cage = sigmoid(np.minimum(cage, (0.88 - y) * 30))
    wall = t * t * t * t
    back = (y - a.apex - 0.02 * t - 0.11 * wall) / a.rib_spacing
    front = (y - a.apex + 0.20 * t - 0.16 * wall) / (1.25 * a.rib_spacing)
    plane: Plane = _band(back, 0.22) * sigmoid((t - 0.12) * 60)
    plane += 0.5 * _band(front, 0.20) * sigmoid((t - 0.42) * 25)
    plane *= cage
    return a.rib_contrast * plane


def _band(phase: Plane, half: float) -> Plane:
    """A bone across each whole number of `phase`, with brighter cortex at its edges."""
    off = np.abs(phase - np.rint(phase)) / half
    return sigmoid((1 - off) * 10) * (0.5 + 0.5 * off * off)


def heart_centre(a: Anatomy, pose: Pose, ratio: float) -> tuple[float, float]:
    """Centre of the heart relative to the midline: two thirds of its width lie on the patient's left."""
    return 0.32 * a.half_width * ratio, a.dome + pose.inspiration - 0.055 - 0.10 * (ratio - 0.45)


def heart(a: Anatomy, pose: Pose, ratio: float, x: Plane, y: Plane) -> Plane:
    """How much of each pixel is heart, 0 to 1: a tilted ellipse, `ratio` of the chest's width wide."""
    cx, cy = heart_centre(a, pose, ratio)
    half = a.half_width * ratio
    c, s = math.cos(a.heart_tilt), math.sin(a.heart_tilt)
    # The horizontal half extent of the ellipse is sqrt((major c)² + (minor s)²).
    minor = 0.80 * half
    major = math.sqrt(half * half - (minor * s) ** 2) / c
    dx, dy = x - cx, y - cy
    p, q = (c * dx + s * dy) / major, (c * dy - s * dx) / minor
    return sigmoid((1 - length(p, q)) * 18)


class _Pen(Protocol):
    def line(self, xy: list[float], *, fill: int, width: int) -> None: ...


def lung_markings(a: Anatomy, pose: Pose, lungs: dict[str, LungShape], size: int) -> Plane:
    """Vessels that branch from the hila, and a fine mottle; the caller keeps them inside the lungs."""
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(a.tree_seed)
    canvas = Image.new("L", (2 * size, 2 * size))
    pen: _Pen = ImageDraw.Draw(canvas)
    for side, lung in lungs.items():
        _vessels(pen, rng, lung, outward(side), pose, 2 * size)
    coarse = rng.standard_normal((28, 28), dtype=np.float32)
    mottle = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    tree = np.asarray(canvas.reduce(2), dtype=np.float32) / 255
    return a.vessels * blur(tree, 0.9 * size / 224) + 0.012 * mottle


def _vessels(pen: _Pen, rng: np.random.Generator, lung: LungShape, sign: int, pose: Pose, side: int) -> None:
    """Draw one lung's tree, generation by generation; each branch gives two thinner ones."""
    angle = np.linspace(-1.35, 1.45, 9) + rng.uniform(-0.12, 0.12, 9)
    start = np.tile([lung.mediastinum + 0.015, 0.5 * (lung.apex + lung.dome) + 0.02], (9, 1))
    reach, width = np.full(9, 0.115), 0.011
    for generation in range(_BRANCHINGS):
        end = start + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        strokes = np.stack([pose.points(sign, start), pose.points(sign, end)], axis=1) * side
        for stroke in strokes.reshape(-1, 4).tolist():
            pen.line(stroke, fill=230 - 40 * generation, width=max(1, round(width * side)))
        bend = rng.uniform(0.15, 0.5, (2, len(angle)))
        angle = np.concatenate([angle - bend[0], angle + bend[1]])
        reach = np.tile(reach, 2) * rng.uniform(0.6, 0.9, len(angle))
        start, width = np.tile(end, (2, 1)), 0.62 * width
