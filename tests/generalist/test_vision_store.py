"""Stored vision tokens: those of each image, in order, the same when the work was cut short."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsco.cases import ImageRef, load_image
from gsco.generalist.nano.assemble import load_base
from gsco.generalist.nano.eye import vision_tokens
from gsco.generalist.nano.modeling import MedDrNanoForConditionalGeneration
from gsco.generalist.nano.vision_store import VisionStore

N = 83  # no multiple of any batch


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRef]:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for i in range(N):
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(folder / f"{i:03}.png")
    return [ImageRef(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def model(base: Path) -> MedDrNanoForConditionalGeneration:
    loaded: MedDrNanoForConditionalGeneration = load_base(base)[0]
    return loaded


def test_each_image_has_its_own_tokens_and_differing_views(
    images: list[ImageRef], model: MedDrNanoForConditionalGeneration, tmp_path: Path
) -> None:
    store = VisionStore.build(images, model, tmp_path, views=2, seed=1)
    for ref in (images[0], images[40], images[-1]):
        alone = vision_tokens(model, [load_image(ref)]).numpy()[0]
        np.testing.assert_allclose(store.get(str(ref), 0), alone, rtol=2e-3, atol=2e-3)
        assert np.abs(store.get(str(ref), 1) - store.get(str(ref), 0)).max() > 0


def test_cut_short_it_goes_on_to_the_same_tokens(
    images: list[ImageRef], model: MedDrNanoForConditionalGeneration, tmp_path: Path
) -> None:
    whole = VisionStore.build(images, model, tmp_path / "whole", views=2, seed=1)

    def die(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        VisionStore.build(images, model, tmp_path / "cut", views=2, seed=1, progress=die)
    told: list[int] = []
    again = VisionStore.build(
        images, model, tmp_path / "cut", views=2, seed=1, progress=lambda _w, done, _t: told.append(done)
    )
    assert told == [N]  # the first 64 were not looked at again
    np.testing.assert_array_equal(again.array, whole.array)
    assert VisionStore.build(images, model, tmp_path / "cut", views=2, seed=1).array.shape[0] == N
