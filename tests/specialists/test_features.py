from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsco.cases import Dataset, ImageRef
from gsco.errors import ImageError, StorageError
from gsco.specialists.backbones import Backbone, load_backbone
from gsco.specialists.features import describe_pixels, extract, image_keys


@pytest.fixture(scope="module")
def backbone(backbone_folder: Path) -> Backbone:
    return load_backbone(str(backbone_folder), size=48)


@pytest.fixture(scope="module")
def refs(dataset: Dataset) -> list[ImageRef]:
    return [case.image for case in dataset.cases[:22]]


def _rows(cache: Path) -> dict[str, int]:
    (path,) = (cache / "features").glob("*.sqlite")
    db = sqlite3.connect(path)
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    counts = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
    db.close()
    return counts


def test_second_read_gives_the_very_same_values(
    backbone: Backbone, refs: list[ImageRef], tmp_path: Path
) -> None:
    first = extract(backbone, refs, cache=tmp_path)
    np.testing.assert_array_equal(extract(backbone, refs, cache=tmp_path), first)
    assert first.dtype == np.float32
    assert first.shape == (22, backbone.channels)
    assert len(np.unique(first, axis=0)) == 22


def test_second_read_computes_nothing(
    backbone: Backbone, refs: list[ImageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(backbone, refs, cache=tmp_path)

    def computed(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(backbone, "apply", computed)
    extract(backbone, refs[::-1], cache=tmp_path)


def test_values_do_not_depend_on_order_batch_threads_or_store(
    backbone: Backbone, refs: list[ImageRef], tmp_path: Path
) -> None:
    plain = backbone.pooled([Image.open(ref.path).convert("RGB") for ref in refs])
    stored = extract(backbone, refs, cache=tmp_path / "a", batch_size=5, threads=1)
    shuffled = extract(backbone, refs[::-1], cache=tmp_path / "b", batch_size=16, threads=3)[::-1]
    without = extract(backbone, refs, cache=None)
    for other in (stored, shuffled, without):
        np.testing.assert_allclose(other, plain, rtol=0, atol=1e-5)
    assert not (tmp_path / "None").exists()


def test_content_is_the_key_not_the_name(backbone: Backbone, refs: list[ImageRef], tmp_path: Path) -> None:
    twin = tmp_path / "twin.png"
    twin.write_bytes(refs[0].path.read_bytes())
    found = extract(backbone, [refs[0], ImageRef(twin), refs[1], refs[0]], cache=tmp_path)
    assert _rows(tmp_path)["pooled"] == 2
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[3])
    twin.write_bytes(refs[2].path.read_bytes())  # same name, other picture
    assert not np.array_equal(extract(backbone, [ImageRef(twin)], cache=tmp_path)[0], found[0])


def test_rows_of_an_npz_are_different_images(backbone: Backbone, tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", train_images=arrays, val_images=arrays[::-1])
    refs = [
        ImageRef(tmp_path / "set.npz", key, i) for key in ("train_images", "val_images") for i in range(3)
    ]
    assert len(set(image_keys(refs))) == 6
    found = extract(backbone, refs, cache=tmp_path)
    np.testing.assert_allclose(found[:3], found[3:][::-1], atol=1e-5)
    assert len(np.unique(found[:3], axis=0)) == 3


def test_other_weights_or_size_have_their_own_store(
    backbone: Backbone, backbone_folder: Path, refs: list[ImageRef], tmp_path: Path
) -> None:
    extract(backbone, refs[:2], cache=tmp_path)
    extract(load_backbone(str(backbone_folder), size=32), refs[:2], cache=tmp_path)
    assert len(list((tmp_path / "features").glob("*.sqlite"))) == 2


def test_maps_and_pooled_are_kept_apart(backbone: Backbone, refs: list[ImageRef], tmp_path: Path) -> None:
    maps = extract(backbone, refs[:5], cache=tmp_path, pooled=False)
    pooled = extract(backbone, refs[:5], cache=tmp_path, pooled=True)
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), pooled, atol=1e-5)
    np.testing.assert_array_equal(extract(backbone, refs[:5], cache=tmp_path, pooled=False), maps)


def test_one_pass_gives_pooled_and_texture(backbone: Backbone, refs: list[ImageRef], tmp_path: Path) -> None:
    extract(backbone, refs[:6], cache=tmp_path)
    assert _rows(tmp_path) == {"pooled": 6, "texture": 6}
    texture = extract(backbone, refs[:6], cache=tmp_path, kind="texture")
    np.testing.assert_array_equal(
        texture[2, -98:], describe_pixels(backbone.prepare(Image.open(refs[2].path).convert("RGB")))
    )


def test_progress_ends_at_all(backbone: Backbone, refs: list[ImageRef], tmp_path: Path) -> None:
    extract(backbone, refs[:4], cache=tmp_path)
    seen: list[tuple[int, int]] = []
    extract(
        backbone, refs, cache=tmp_path, batch_size=6, progress=lambda done, total: seen.append((done, total))
    )
    assert seen[0] == (4, 22)
    assert seen[-1] == (22, 22)
    assert seen == sorted(seen)


def test_broken_image_is_named_and_what_came_before_is_kept(
    backbone: Backbone, refs: list[ImageRef], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(refs[0].path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"broken\.png"):
        extract(backbone, [*refs[:8], ImageRef(broken)], cache=tmp_path, batch_size=4)
    assert _rows(tmp_path)["pooled"] == 8
    with pytest.raises(ImageError, match=r"gone\.png"):
        extract(backbone, [ImageRef(tmp_path / "gone.png")], cache=tmp_path)


def test_a_store_that_cannot_be_written_is_one_line(
    backbone: Backbone, refs: list[ImageRef], tmp_path: Path
) -> None:
    (tmp_path / "features").write_text("in the way")
    with pytest.raises(StorageError, match="feature store") as caught:
        extract(backbone, refs[:1], cache=tmp_path)
    assert "\n" not in str(caught.value)


def test_killed_in_the_middle_goes_on_with_the_same_values(
    backbone: Backbone, backbone_folder: Path, refs: list[ImageRef], tmp_path: Path
) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from gsco.cases import ImageRef
from gsco.specialists.backbones import load_backbone
from gsco.specialists.features import extract
refs = [ImageRef(Path(p)) for p in sys.argv[1:]]
def step(done, total):
    if done >= 12:
        os.kill(os.getpid(), signal.SIGKILL)
backbone = load_backbone({str(backbone_folder)!r}, size=48)
extract(backbone, refs, cache=Path({str(tmp_path)!r}), batch_size=4, progress=step)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *[str(ref.path) for ref in refs]],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert _rows(tmp_path)["pooled"] == 12
    resumed = extract(backbone, refs, cache=tmp_path)
    np.testing.assert_array_equal(resumed, extract(backbone, refs, cache=None))


def test_pixel_description_counts_colours_neighbours_and_cells() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    found = describe_pixels(image)
    assert found.shape == (98,)
    for channel in range(3):
        expected, _ = np.histogram(image[..., channel], bins=np.arange(0, 257, 16))
        np.testing.assert_allclose(found[16 * channel : 16 * channel + 16], expected / 480, atol=1e-6)
    grey = image.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])
    for start, step in ((48, 1), (57, 3)):
        counts = np.zeros(9)
        for y in range(step, 20 - step):
            for x in range(step, 24 - step):
                around = grey[y - step : y + step + 1 : step, x - step : x + step + 1 : step]
                counts[int((around > grey[y, x]).sum())] += 1
        np.testing.assert_allclose(found[start : start + 9], counts / counts.sum(), atol=1e-6)
    np.testing.assert_allclose(found[66], grey[:5, :6].mean() / 255, atol=1e-5)
    np.testing.assert_allclose(found[97], grey[15:, 18:].std() / 255, atol=1e-5)


def test_local_texture_does_not_notice_a_turn_by_a_quarter() -> None:
    image = np.random.default_rng(2).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    turned = np.ascontiguousarray(np.rot90(image))
    np.testing.assert_allclose(describe_pixels(turned)[:66], describe_pixels(image)[:66], atol=1e-6)
    assert not np.allclose(describe_pixels(turned)[66:], describe_pixels(image)[66:])
