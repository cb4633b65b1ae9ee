"""Two scanners that make two different pictures of one body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gsco.cases.phantoms.anatomy import Plane, blur

# 5 x 7 dot letters of the lead markers.
_GLYPHS = {
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
}


@dataclass(frozen=True, slots=True)
class Scanner:
    """How a scanner renders a body.

    Attributes:
        gamma: exponent of the tone curve (below 1 is brighter).
        black, white: grey values of no and full attenuation, 0 to 1.
        noise: standard deviation of the noise at mid grey.
        grain: width in pixels (at 224) over which noise is correlated; 0 for white noise.
        blur: width of the blur in pixels at 224.
        sharpen: strength of the edge enhancement.
        collimation: width of the dark border, as a fraction of the side.
        marker: letter of the lead marker; it stands on the side of the patient that it names.
        marker_y: height of the marker.
    """

    gamma: float
    black: float
    white: float
    noise: float
    grain: float
    blur: float
    sharpen: float
    collimation: float
    marker: str
    marker_y: float


SCANNERS: dict[str, Scanner] = {
    "A": Scanner(1.15, 0.01, 0.97, 0.016, 0.0, 0.0, 0.6, 0.0, "L", 0.05),
    "B": Scanner(0.72, 0.10, 0.90, 0.022, 1.0, 1.0, 0.0, 0.035, "R", 0.90),
}


def render(attenuation: Plane, scanner: Scanner, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Tone curve, sharpness, noise, collimation and marker.

    Args:
        attenuation: (size, size) float32, 0 air to about 1 bone over soft tissue.
        scanner: which scanner.
        rng: source of the noise.

    Returns:
        (size, size) uint8, dense tissue bright.
    """
    size = attenuation.shape[0]
    scale = size / 224
    plane = blur(attenuation, scanner.blur * scale)
    if scanner.sharpen:
        plane = plane + scanner.sharpen * (plane - blur(plane, 1.2 * scale))
    plane = (np.clip(plane, 0.0, 1.2) / 1.2) ** scanner.gamma
    grain: Plane = rng.standard_normal((size, size), dtype=np.float32)
    if scanner.grain:
        grain = blur(grain, scanner.grain * scale)
        grain = grain / grain.std()
    # Fewer quanta pass through dense tissue, so it is noisier.
    plane = plane + scanner.noise * (0.6 + 0.8 * plane) * grain
    plane = scanner.black + (scanner.white - scanner.black) * plane
    _collimate(plane, scanner)
    _mark(plane, scanner)
    return np.clip(np.rint(plane * 255), 0, 255).astype(np.uint8)


def _collimate(plane: Plane, scanner: Scanner) -> None:
    border = round(scanner.collimation * plane.shape[0])
    if border:
        for edge in (plane[:border], plane[-border:], plane[:, :border], plane[:, -border:]):
            edge *= 0.15


def _mark(plane: Plane, scanner: Scanner) -> None:
    size = plane.shape[0]
    dot = max(1, round(size / 112))
    glyph = np.array([[c == "1" for c in row] for row in _GLYPHS[scanner.marker]])
    stamp = np.kron(glyph, np.ones((dot, dot), dtype=bool))
    top = round(scanner.marker_y * size) - (stamp.shape[0] if scanner.marker_y > 0.5 else 0)
    inset = round(0.05 * size)
    left = size - inset - stamp.shape[1] if scanner.marker == "L" else inset
    plane[top : top + stamp.shape[0], left : left + stamp.shape[1]][stamp] = 1.0
