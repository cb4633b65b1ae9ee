"""Pixels for MedDr-nano's eye, and their vision tokens.

The whole image is resized to 224 x 224 (bicubic, aspect ratio not kept, as MedDr does at 448), scaled to
[-1, 1]. Training may add views: a random crop of 75-100 % of the area, a small rotation, brightness and
contrast; no mirror images, since laterality matters in some of the questions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageEnhance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gsco.generalist.nano.modeling import MedDrNanoForConditionalGeneration

SIZE = 224


def to_pixels(image: Image.Image) -> torch.Tensor:
    """An RGB image -> float32 (3, 224, 224) in [-1, 1]."""
    small = image if image.size == (SIZE, SIZE) else image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    array = np.asarray(small, dtype=np.float32) / 127.5 - 1.0
    return torch.from_numpy(array).permute(2, 0, 1)


def augment(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One random view of an RGB image, 224 x 224."""
    width, height = image.size
    scale = np.sqrt(rng.uniform(0.75, 1.0))
    w, h = width * scale, height * scale
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    view = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))
    fill = tuple(int(c) for c in np.asarray(view).reshape(-1, 3).min(axis=0))
    view = view.rotate(rng.uniform(-8, 8), Image.Resampling.BILINEAR, fillcolor=fill)
    view = ImageEnhance.Brightness(view).enhance(rng.uniform(0.85, 1.15))
    return ImageEnhance.Contrast(view).enhance(rng.uniform(0.85, 1.15))


@torch.inference_mode()
def vision_tokens(
    model: MedDrNanoForConditionalGeneration, images: Sequence[Image.Image], *, batch_size: int = 8
) -> torch.Tensor:
    """Vision tokens before the projector, float32 (n, 49, 1280)."""
    tower = model.model.vision_tower
    out = []
    for start in range(0, len(images), batch_size):
        pixels = torch.stack([to_pixels(image) for image in images[start : start + batch_size]])
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        out.append(tower(pixels).last_hidden_state)
    return torch.cat(out)
