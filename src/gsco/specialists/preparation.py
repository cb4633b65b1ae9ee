"""From a picture to the pixels that a network takes; without PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image


def stretched(image: Image.Image, size: int, interpolation: str) -> NDArray[np.uint8]:
    """One picture as (size, size, 3) uint8, RGB.

    The whole picture is stretched to the square with an antialiased filter. Nothing is cropped: in a
    medical image what matters may stand at the border.

    Args:
        image: RGB.
        size: side of the square in pixels.
        interpolation: ``bilinear``, ``bicubic`` or ``lanczos``.
    """
    from PIL import Image as Pictures

    if image.size != (size, size):
        image = image.resize((size, size), Pictures.Resampling[interpolation.upper()])
    return np.asarray(image.convert("RGB"), dtype=np.uint8)
