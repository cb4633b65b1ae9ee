"""Vision tokens of every view of every image, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gsco.cases import ImageRef, load_image
from gsco.generalist.nano.eye import augment, vision_tokens
from gsco.generalist.nano.modeling import IMAGE_TOKENS, MedDrNanoForConditionalGeneration
from gsco.progress import Progress

_CHUNK = 8  # images decoded ahead while the ones before are looked at


def _ahead(
    pool: ThreadPoolExecutor, views_of: Callable[[int], list[Image.Image]], starts: range, n: int
) -> Iterator[list[list[Image.Image]]]:
    """Views of each chunk in order, the next chunk being decoded while the caller uses this one."""

    def submit(start: int) -> list[Future[list[Image.Image]]]:
        return [pool.submit(views_of, i) for i in range(start, min(start + _CHUNK, n))]

    waiting = submit(starts[0]) if starts else []
    for following in [*starts[1:], None]:
        current, waiting = waiting, [] if following is None else submit(following)
        if current:
            yield [future.result() for future in current]


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
        progress: Progress | None = None,
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

        def views_of(i: int) -> list[Image.Image]:
            rng = np.random.default_rng([seed, i])
            image = load_image(refs[names[i]])
            return [image, *(augment(image, rng) for _ in range(views - 1))]

        # Chunks are counted from the first image, so a second call forms the batches that one call would.
        starts = range(done, len(names), _CHUNK)
        with ThreadPoolExecutor(max_workers=2) as pool:
            for start, shown in zip(starts, _ahead(pool, views_of, starts, len(names)), strict=True):
                end = start + len(shown)
                tokens = vision_tokens(model, [view for one in shown for view in one]).numpy()
                array[start:end] = tokens.reshape(len(shown), *shape[1:])
                if end % (8 * _CHUNK) == 0 or end == len(names):
                    array.flush()
                    done_path.write_text(str(end))
                    if progress:
                        progress("looking at images", end, len(names))
        return cls(np.load(path, mmap_mode="r"), {name: i for i, name in enumerate(names)})
