"""Drawing one phantom with numpy: attenuation of the body first, then the scanner's picture of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gsco.cases.phantoms.anatomy import LungShape, Plane, length, lung_shape, outward, sigmoid
from gsco.cases.phantoms.body import heart, lung_markings, ribs, soft_tissue
from gsco.cases.phantoms.findings import Finding
from gsco.cases.phantoms.scanner import SCANNERS, render
from gsco.cases.phantoms.spec import PhantomSpec


def draw_phantom(spec: PhantomSpec, seed: int | None = None, *, size: int = 224) -> NDArray[np.uint8]:
    """Draw one phantom radiograph.

    Args:
        spec: what to draw.
        seed: seed of the scanner's noise; the spec's own by default.
        size: side of the square image in pixels.

    Returns:
        (size, size) uint8; dense tissue is bright, the patient's right is on the left of the image.
    """
    rng = np.random.default_rng(spec.seed if seed is None else seed)
    return render(_attenuation(spec, size), SCANNERS[spec.scanner], rng)


def _attenuation(spec: PhantomSpec, size: int) -> Plane:
    a, pose, finding = spec.anatomy, spec.pose, spec.finding
    x, y = pose.grid(size)
    lungs = {side: lung_shape(a, pose, side) for side in ("right", "left")}
    plane = soft_tissue(a, pose, x, y)
    ratio = finding.size if finding.kind == "cardiomegaly" else a.heart_ratio
    cor = heart(a, pose, ratio, x, y)
    markings = lung_markings(a, pose, lungs, size)
    for side, lung in lungs.items():
        away = x * outward(side)
        mask = lung.mask(away, y)
        air = mask * (0.56 - 0.06 * a.habitus) * (1 - 0.92 * cor)
        tissue = mask * markings * (1 - 0.6 * cor)
        if finding.side == side:
            aerated = mask * (1 - 0.8 * cor)
            air, tissue = _affect(finding, lung, away, y, aerated, air, tissue)
        plane += tissue - air
    return np.maximum(plane + ribs(a, x, y) + 0.10 * cor, 0)


def _affect(
    f: Finding, lung: LungShape, away: Plane, y: Plane, aerated: Plane, air: Plane, tissue: Plane
) -> tuple[Plane, Plane]:
    """Put the finding into its lung.

    Args:
        f: the finding.
        lung: outline of the affected lung.
        away: distance from the midline, positive on the affected side.
        y: height.
        aerated: where there is lung that the heart does not hide, 0 to 1.
        air: attenuation that the lung's air takes away.
        tissue: attenuation that the lung's vessels add.

    Returns:
        The changed `air` and `tissue`.
    """
    cx, cy = f.local
    if f.kind == "effusion":
        # A meniscus: the fluid climbs towards the chest wall.
        rise = 0.35 * f.size + 0.02
        climb = rise * (np.clip(away, 0, 1) / lung.half_width) ** 3
        fluid = sigmoid((y - lung.angle + f.size - rise + climb) * 75)
        kept = 1 - (0.60 + 0.38 * f.contrast) * fluid
        return air * kept, tissue * kept
    if f.kind == "pneumothorax":
        # The lung draws back from the wall: a darker rim without vessels, and a thin bright line.
        collapsed = LungShape(
            lung.half_width - f.size, lung.apex + 0.8 * f.size, lung.dome + 0.02, 0.5 * lung.mediastinum
        )
        inner = collapsed.mask(away, y, 0.004)
        rim = 1 - inner
        line = (0.10 + 0.22 * f.contrast) * inner * rim + 0.05 * f.contrast * inner
        return air * (1 + (0.06 + 0.14 * f.contrast) * rim), tissue * inner + line * aerated
    if f.kind == "nodule":
        radius = length(away - cx, y - cy) / (0.5 * f.size)
        return air, tissue + (0.16 + 0.26 * f.contrast) * sigmoid((1 - radius) * 9) * aerated
    if f.kind == "consolidation":
        cloud = np.zeros_like(y)
        for ox, oy in np.random.default_rng(f.seed).uniform(-0.2, 0.2, (4, 2)).tolist():
            squared = (away - cx - ox * f.size) ** 2 + (y - cy - oy * f.size) ** 2
            cloud += np.exp(squared * (-0.5 / (0.28 * f.size) ** 2))
        return air, tissue + (0.20 + 0.30 * f.contrast) * (1 - np.exp(-0.8 * cloud)) * aerated
    raise ValueError(f"{f.kind} has no side")
