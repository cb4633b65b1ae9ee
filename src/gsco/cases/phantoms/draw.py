"""Drawing one phantom with numpy: attenuation of the body first, then the scanner's picture of it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gsco.cases.phantoms.anatomy import LungShape, Plane, lung_shape, outward, sigmoid
from gsco.cases.phantoms.findings import heart_centre
from gsco.cases.phantoms.scanner import SCANNERS, blur, render
from gsco.cases.phantoms.spec import PhantomSpec

_SIDES = ("right", "left")
_F = np.float32


def draw_phantom(spec: PhantomSpec, seed: int | None = None, *, size: int = 224) -> NDArray[np.uint8]:
    """Draw one phantom radiograph.

    Args:
        spec: what to draw.
        seed: seed of the scanner's noise; the spec's own by default.
        size: side of the square image in pixels.

    Returns:
        (size, size) uint8; dense tissue is bright, the patient's right is on the left.
    """
    rng = np.random.default_rng(spec.seed if seed is None else seed)
    return render(_attenuation(spec, size), SCANNERS[spec.scanner], rng)


def _attenuation(spec: PhantomSpec, size: int) -> Plane:
    a, pose, finding = spec.anatomy, spec.pose, spec.finding
    x, y = pose.grid(size)
    plane = _soft_tissue(spec, x, y)
    lungs = {side: lung_shape(a, pose, side) for side in _SIDES}
    markings = _vessel_tree(spec, lungs, size)
    ribs = _ribs(spec, x, y)
    heart = _heart(spec, x, y)
    for side, lung in lungs.items():
        away = x * outward(side)
        mask = lung.mask(away, y)
        air = mask * (_F(0.50) + _F(0.06) * _F(1 - a.habitus)) * (_F(1) - _F(0.92) * heart)
        tissue = markings * mask * (_F(1) - _F(0.6) * heart)
        if finding.side == side:
            tissue, air = _lung_finding(spec, lung, away, y, mask, air, tissue)
        plane = plane - air + tissue
    return np.maximum(plane + ribs + _F(0.10) * heart, 0)


def _soft_tissue(spec: PhantomSpec, x: Plane, y: Plane) -> Plane:
    """Torso, shoulders, neck, mediastinum, spine, trachea, clavicles, breasts, abdomen."""
    a, pose = spec.anatomy, spec.pose
    side = np.abs(x)
    # The outline: neck at the top, shoulders, then the flank.
    flank = a.half_width * (1.14 + 0.10 * a.habitus)
    shoulder = _F(0.11) + _F(flank + 0.06) * np.sqrt(np.clip((y + _F(0.03)) / _F(0.22), 0, 1))
    outline = np.minimum(shoulder, _F(flank) + _F(0.10) * np.clip(_F(0.45) - y, 0, 1))
    body = sigmoid((outline - side) * _F(70))
    thickness = _F(0.66 + 0.10 * a.habitus) + _F(0.10) * (y - _F(0.5))
    # A chest is rounder than it is flat: the beam's path shortens towards the flanks.
    thickness = thickness - _F(0.30) * (side / _F(flank)) ** 4
    dome = a.dome + pose.inspiration
    abdomen = sigmoid((y - _F(dome + 0.06)) * _F(16)) * _F(0.12)
    centre = sigmoid((_F(a.mediastinum) - side) * _F(45)) * _F(0.10)
    vertebra = np.sin(y * _F(2 * math.pi / 0.062))
    spine = sigmoid((_F(0.042) - side) * _F(160)) * (_F(0.6) + _F(0.4) * np.clip(vertebra * 2, -1, 1))
    tracheal = sigmoid((_F(0.017) - np.abs(x + _F(0.004))) * _F(260)) * sigmoid((_F(0.33) - y) * _F(40))
    knob = np.exp(-(((x - _F(a.mediastinum)) / _F(0.032)) ** 2) - ((y - _F(a.apex + 0.17)) / _F(0.045)) ** 2)
    plane = (
        thickness + abdomen + centre + _F(a.spine_contrast) * spine - _F(0.09) * tracheal + _F(0.13) * knob
    )
    plane = plane + _clavicles(spec, side, y)
    if a.breast:
        cx, cy, radius = 0.55 * a.half_width, dome - 0.04, 0.5 * a.half_width
        r = np.sqrt((side - _F(cx)) ** 2 + (_F(0.8) * (y - _F(cy))) ** 2)
        plane = plane + _F(a.breast) * sigmoid((_F(radius) - r) * _F(50)) * sigmoid(
            (y - _F(cy - 0.15)) * _F(20)
        )
    return plane * body


def _clavicles(spec: PhantomSpec, side: Plane, y: Plane) -> Plane:
    a = spec.anatomy
    t = side / _F(a.half_width)
    line = _F(a.apex + 0.075) - _F(0.085) * t + _F(0.02) * np.sin(t * _F(4.5))
    off = np.abs(y - line)
    width = _F(0.016)
    bone = sigmoid((width - off) * _F(260)) * (_F(0.6) + _F(0.5) * (off / width))
    return (
        _F(1.3 * a.rib_contrast) * bone * sigmoid((t - _F(0.10)) * _F(60)) * sigmoid((_F(1.15) - t) * _F(30))
    )


def _ribs(spec: PhantomSpec, x: Plane, y: Plane) -> Plane:
    """Posterior ribs (plain) and anterior ribs (faint) as two periodic families of curves."""
    a = spec.anatomy
    side = np.abs(x)
    t = side / _F(a.half_width)
    frame = LungShape(a.half_width * 1.04, a.apex - 0.03, 0.86, 0.0)
    cage = sigmoid((frame.lateral(y) - side) * _F(90)) * sigmoid((y - _F(a.apex - 0.02)) * _F(60))
    cage = cage * sigmoid((_F(0.88) - y) * _F(30))
    back = (y - _F(a.apex) - _F(0.02) * t - _F(0.11) * t**4) / _F(a.rib_spacing)
    front = (y - _F(a.apex) + _F(0.20) * t - _F(0.16) * t**4) / _F(a.rib_spacing * 1.25)
    plane = _F(a.rib_contrast) * _band(back, 0.22) * sigmoid((t - _F(0.12)) * _F(60))
    plane = plane + _F(0.55 * a.rib_contrast) * _band(front, 0.20) * sigmoid((t - _F(0.42)) * _F(25))
    return plane * cage


def _band(phase: Plane, half: float) -> Plane:
    """A bone across each whole number of `phase`, with brighter cortex at its edges."""
    off = np.abs(phase - np.rint(phase)) / _F(half)
    return sigmoid((_F(1.0) - off) * _F(10)) * (_F(0.55) + _F(0.45) * off * off)


def _heart(spec: PhantomSpec, x: Plane, y: Plane) -> Plane:
    a, pose = spec.anatomy, spec.pose
    ratio = spec.finding.size if spec.finding.kind == "cardiomegaly" else a.heart_ratio
    cx, cy = heart_centre(a, pose, ratio)
    # Half axes of a tilted ellipse whose horizontal extent is the wanted width.
    half = a.half_width * ratio
    c, s = math.cos(a.heart_tilt), math.sin(a.heart_tilt)
    minor = half * 0.80
    major = math.sqrt(max(half * half - (minor * s) ** 2, 1e-6)) / c
    dx, dy = x - _F(cx), y - _F(cy)
    p, q = (_F(c) * dx + _F(s) * dy) / _F(major), (-_F(s) * dx + _F(c) * dy) / _F(minor)
    return sigmoid((_F(1.0) - np.sqrt(p * p + q * q)) * _F(18))


def _vessel_tree(spec: PhantomSpec, lungs: dict[str, LungShape], size: int) -> Plane:
    """Vessels that branch from the hila, and a fine mottle of the lungs."""
    from PIL import Image, ImageDraw

    a, pose = spec.anatomy, spec.pose
    rng = np.random.default_rng(a.tree_seed)
    canvas = Image.new("L", (2 * size, 2 * size))
    pen = ImageDraw.Draw(canvas)
    for side, lung in lungs.items():
        sign = outward(side)
        hilum = (lung.mediastinum + 0.015, 0.5 * (lung.apex + lung.dome) + 0.02)
        for angle in np.linspace(-1.35, 1.45, 9) + rng.uniform(-0.12, 0.12, 9):
            _branch(pen, rng, hilum, float(angle), 0.115, 0.011, 4, sign, pose.to_image, 2 * size)
    tree = np.asarray(canvas, dtype=np.float32).reshape(size, 2, size, 2).mean((1, 3)) / _F(255)
    coarse = rng.standard_normal((28, 28), dtype=np.float32)
    mottle = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    return _F(a.vessels) * blur(tree, 0.9 * size / 224) + _F(0.012) * mottle


def _branch(pen, rng, start, angle, length, width, depth, sign, to_image, side) -> None:  # type: ignore[no-untyped-def]
    end = (start[0] + length * math.cos(angle), start[1] + length * math.sin(angle))
    points = [tuple(side * v for v in to_image(sign * px, py)) for px, py in (start, end)]
    pen.line(points, fill=int(70 + 40 * depth), width=max(1, round(width * side)))
    if depth > 1:
        for turn in (-1, 1):
            bend = turn * rng.uniform(0.15, 0.5)
            _branch(
                pen,
                rng,
                end,
                angle + bend,
                length * rng.uniform(0.6, 0.9),
                width * 0.62,
                depth - 1,
                sign,
                to_image,
                side,
            )


def _lung_finding(
    spec: PhantomSpec, lung: LungShape, away: Plane, y: Plane, mask: Plane, air: Plane, tissue: Plane
) -> tuple[Plane, Plane]:
    """Change tissue and air of the affected lung; returns (tissue, air)."""
    f = spec.finding
    cx, cy = f.local
    if f.kind == "effusion":
        # A meniscus: the fluid climbs towards the chest wall.
        climb = _F(0.35 * f.size + 0.02) * (np.clip(away, 0, 1) / _F(lung.half_width)) ** 3
        fluid = sigmoid((y - _F(lung.angle - f.size) - _F(0.35 * f.size + 0.02) + climb) * _F(75))
        keep = _F(1) - _F(0.60 + 0.38 * f.contrast) * fluid
        return tissue * keep, air * keep
    if f.kind == "pneumothorax":
        inner = LungShape(
            lung.half_width - f.size, lung.apex + 0.8 * f.size, lung.dome + 0.02, lung.mediastinum * 0.5
        ).mask(away, y, 0.004)
        rim = _F(1) - inner
        line = _F(0.10 + 0.22 * f.contrast) * inner * rim * mask
        collapse = _F(0.05 * f.contrast) * inner * mask
        return tissue * inner + line + collapse, air * (_F(1) + _F(0.06 + 0.14 * f.contrast) * rim)
    if f.kind == "nodule":
        r = np.sqrt((away - _F(cx)) ** 2 + (y - _F(cy)) ** 2) / _F(0.5 * f.size)
        return tissue + _F(0.08 + 0.20 * f.contrast) * sigmoid((_F(1) - r) * _F(8)) * mask, air
    if f.kind == "consolidation":
        rng = np.random.default_rng(f.seed)
        cloud = np.zeros_like(y)
        sigma = 0.28 * f.size
        for ox, oy in rng.uniform(-0.2, 0.2, (4, 2)) * f.size:
            cloud += np.exp(-(((away - _F(cx + ox)) ** 2 + (y - _F(cy + oy)) ** 2) / _F(2 * sigma**2)))
        cloud = _F(1) - np.exp(_F(-0.55) * cloud)
        return tissue + cloud * mask * (_F(0.12 + 0.26 * f.contrast)), air
    return tissue, air
