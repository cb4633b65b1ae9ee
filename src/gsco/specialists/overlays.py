"""Heat maps as pictures: tinted overlays that leave the image readable, and a figure with titles and a scale.

The colours are samples of viridis (Smith and van der Walt, 2015), which is perceptually uniform and readable
for the colour-blind. Weak evidence is transparent, so what does not count stays as it was.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gsco.disk import write_atomic

if TYPE_CHECKING:
    from PIL import Image, ImageFont

    from gsco.specialists.heatmaps import Heatmap

_VIRIDIS = "440154 482878 3e4a89 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725"
_STRONGEST = 0.62  # opacity at 1
_CONTOUR = 0.5
SIDE = 320
PAPER, INK, SOFT = (255, 255, 255), (27, 31, 35), (87, 96, 106)
_MARGIN, _GAP = 16, 14


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of a figure and the lines above it, the first of them bold in rank."""

    picture: Image.Image
    lines: tuple[str, ...]


def tint(values: NDArray[np.float32]) -> Image.Image:
    """A heat map (H, W) in [0, 1] as an RGBA picture to lay over the image."""
    from PIL import Image

    opacity = _STRONGEST * np.clip(values / 0.6, 0, 1)
    rgba = np.concatenate([colours(values), opacity[..., None]], axis=-1)
    return Image.fromarray(np.round(255 * rgba).astype(np.uint8), "RGBA")


def overlay(image: Image.Image, values: NDArray[np.float32]) -> Image.Image:
    """The image, tinted where the map says, with a line around what is above half of the strongest place.

    Args:
        image: RGB, of any size.
        values: (H, W) in [0, 1], resized to the image.
    """
    from PIL import Image

    grey = Image.fromarray(values, "F").resize(image.size, Image.Resampling.BILINEAR)
    stretched = np.clip(np.asarray(grey, dtype=np.float32), 0, 1)
    picture = Image.alpha_composite(image.convert("RGBA"), tint(stretched)).convert("RGB")
    above = stretched > _CONTOUR
    around = np.pad(above, 1, mode="edge")  # so that no line runs along the border
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    line = Image.fromarray((above & ~inner).astype(np.uint8) * 230)
    picture.paste((255, 255, 255), mask=line)
    return picture


def colours(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """RGB in [0, 1] of values in [0, 1], shape (..., 3)."""
    steps = np.array([[int(code[i : i + 2], 16) for i in (0, 2, 4)] for code in _VIRIDIS.split()]) / 255
    at = np.linspace(0, 1, len(steps))
    return np.stack([np.interp(values, at, steps[:, channel]) for channel in range(3)], axis=-1)


def figure(panels: Sequence[Panel], *, side: int = SIDE, note: str = "") -> Image.Image:
    """Pictures in rows of at most four, each under its lines, and a colour scale below.

    Args:
        panels: at least one.
        side: longer side of each picture in pixels.
        note: a line beside the scale.
    """
    from PIL import Image, ImageDraw

    pictures = [_fit(panel.picture, side) for panel in panels]
    columns = min(4, len(panels))
    if len(panels) in {5, 6}:
        columns = 3
    height = max(picture.height for picture in pictures)
    lines = max(len(panel.lines) for panel in panels)
    text = 20 * lines + 4
    rows = -(-len(panels) // columns)
    width = 2 * _MARGIN + columns * side + (columns - 1) * _GAP
    sheet = Image.new("RGB", (width, 2 * _MARGIN + rows * (text + height + _GAP) + 34), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (panel, picture) in enumerate(zip(panels, pictures, strict=True)):
        x = _MARGIN + (i % columns) * (side + _GAP)
        y = _MARGIN + (i // columns) * (text + height + _GAP)
        for number, words in enumerate(panel.lines):
            size, ink = (16, INK) if number == 0 else (14, SOFT)
            draw.text((x, y + 20 * number), _cut(words, size, side), fill=ink, font=_font(size))
        sheet.paste(picture, (x + (side - picture.width) // 2, y + text + (height - picture.height) // 2))
    _scale(sheet, note)
    return sheet


def save_figure(
    path: Path,
    picture: Image.Image,
    maps: Sequence[Heatmap],
    *,
    title: str,
    names: Mapping[str, str] | None = None,
) -> None:
    """Write a PNG: the image, then what each heat map says about it.

    Args:
        path: written at once or not at all.
        picture: RGB.
        maps: of this picture.
        title: over the image.
        names: readable names of the options, by key.

    Raises:
        StorageError: the file cannot be written.
    """
    shown = _fit(picture, SIDE)
    panels = [Panel(shown, (title, f"{picture.width} x {picture.height} pixels"))]
    for found in maps:
        says = f"{(names or {}).get(found.option, found.option)} {100 * found.probability:.0f} %"
        how = "no place speaks for it" if found.empty else found.method
        panels.append(Panel(overlay(shown, found.values), (found.specialist, f"{says} · {how}")))
    content = io.BytesIO()
    figure(panels, note="Research use only, not a medical device.").save(content, "PNG", optimize=True)
    write_atomic(path, content.getvalue(), remedy="Name another file with --out.")


def _scale(sheet: Image.Image, note: str) -> None:
    from PIL import Image, ImageDraw

    draw = ImageDraw.Draw(sheet)
    top = sheet.height - _MARGIN - 28
    ramp = np.tile(np.linspace(0, 1, 140, dtype=np.float32), (10, 1))
    bar = Image.new("RGBA", (140, 10), (128, 128, 128, 255))
    bar.alpha_composite(tint(ramp))
    sheet.paste(bar.convert("RGB"), (_MARGIN, top))
    draw.line([(_MARGIN + 70, top), (_MARGIN + 70, top + 9)], fill=PAPER)
    for label, x, anchor in (("0", 0, "lt"), ("0.5", 70, "mt"), ("1", 140, "rt")):
        draw.text((_MARGIN + x, top + 13), label, fill=SOFT, font=_font(12), anchor=anchor)
    room = sheet.width - 2 * _MARGIN - 152
    first = "evidence for the option; 1: the strongest place; line: 0.5"
    draw.text((_MARGIN + 152, top - 3), _cut(first, 13, room), fill=SOFT, font=_font(13))
    draw.text((_MARGIN + 152, top + 13), _cut(note, 13, room), fill=SOFT, font=_font(13))


def _fit(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its longer side at `side` pixels; small ones are enlarged pixel by pixel."""
    from PIL import Image

    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    method = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize(size, method)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _cut(words: str, size: int, room: int) -> str:
    """The words, shortened with an ellipsis where they are wider than `room` pixels."""
    font = _font(size)
    if font.getlength(words) <= room:
        return words
    while words and font.getlength(words + "…") > room:
        words = words[:-1]
    return words.rstrip() + "…"
