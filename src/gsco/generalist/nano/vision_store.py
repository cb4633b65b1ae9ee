"""Vision tokens of every view of every image, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gsco.cases import ImageRef, load_image
from gsco.generalist.nano.eye import augment, vision_tokens
from gsco.generalist.nano.modeling import IMAGE_TOKENS, MedDrNanoForConditionalGeneration


class VisionStore:
    """float16 (n_images, views, 49, 1280); view 0 is plain, the others are augmented."""

    def __init__(self, array: NDArray[np.float16], position: dict[str, int]) -> None:
        self.array = array
        self.position = position

    def get(self, image: str, view: int) -> NDArray[np.float16]:
        """Tokens (49, 1280) of one view of the image whose reference reads `image`."""
        found: NDArray[np.float16] = self.array[self.position[image], view]
        return found

    @classmethod
    def build(
        cls,
        images: Sequence[ImageRef],
        model: MedDrNanoForConditionalGeneration,
        folder: Path,
        *,
        views: int,
        seed: int,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> VisionStore:
        """Look at every image once; a second call after a kill goes on where the first one was."""
        folder.mkdir(parents=True, exist_ok=True)
        refs = {str(image): image for image in images}
        names = sorted(refs)
        shape = (len(names), views, IMAGE_TOKENS, model.config.vision_config.hidden_size)
        mark = hashlib.sha256(json.dumps([names, shape, seed]).encode()).hexdigest()[:16]
        path, done_path = folder / f"vision-{mark}.npy", folder / f"vision-{mark}.done"
        done = int(done_path.read_text()) if done_path.exists() and path.exists() else 0
        array = np.lib.format.open_memmap(path, mode="r+" if done else "w+", dtype=np.float16, shape=shape)
        for i in range(done, len(names)):
            rng = np.random.default_rng([seed, i])
            image = load_image(refs[names[i]])
            shown = [image, *(augment(image, rng) for _ in range(views - 1))]
            array[i] = vision_tokens(model, shown).numpy()
            if (i + 1) % 50 == 0 or i + 1 == len(names):
                array.flush()
                done_path.write_text(str(i + 1))
                if progress:
                    progress("looking at images", i + 1, len(names))
        return cls(np.load(path, mmap_mode="r"), {name: i for i, name in enumerate(names)})
