from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsco.errors import StorageError
from gsco.specialists.heatmaps import Heatmap
from gsco.specialists.overlays import Panel, colours, figure, overlay, save_figure


def corner(side: int = 8) -> np.ndarray:
    values = np.zeros((side, side), dtype=np.float32)
    values[: side // 4, : side // 4] = 1
    return values


def test_the_colours_grow_lighter_evenly() -> None:
    """Perceptual lightness (CIE L*) rises in even steps, so that shades of grey tell the same."""
    rgb = colours(np.linspace(0, 1, 21, dtype=np.float32))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    steps = np.diff(lightness)
    assert steps.min() > 0
    assert steps.max() < 2 * steps.min()


def test_they_are_matplotlibs_viridis() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    at = np.linspace(0, 1, 50, dtype=np.float32)
    np.testing.assert_allclose(colours(at), matplotlib.colormaps["viridis"](at)[:, :3], atol=0.06)


def test_what_does_not_count_stays_as_it_was() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8))
    plain = np.asarray(overlay(image, np.zeros((8, 8), dtype=np.float32)))
    np.testing.assert_array_equal(plain, np.asarray(image))
    shown = np.asarray(overlay(image, corner())).astype(int)
    moved = np.abs(shown - np.asarray(image)).max(axis=-1)
    assert moved[:8, :12].mean() > 40
    assert not moved[32:, :].any()
    assert not moved[:, 48:].any()
    # what lies beneath is still told: dark places stay darker than light ones
    beneath = np.asarray(image.convert("L"))[:8, :12].ravel()
    above = np.asarray(Image.fromarray(shown.astype(np.uint8)).convert("L"))[:8, :12].ravel()
    assert np.corrcoef(beneath, above)[0, 1] > 0.9


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 2), (4, 4), (5, 3), (7, 4)])
def test_a_figure_has_rows_of_pictures(n: int, columns: int) -> None:
    panels = [Panel(Image.new("RGB", (30, 20)), (f"panel {i}", "a very long line " * 9)) for i in range(n)]
    sheet = figure(panels, side=60)
    assert sheet.width == 32 + 60 * columns + 14 * (columns - 1)
    assert np.asarray(sheet).min() == 0


def test_a_figure_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    found = Heatmap(corner(), "linear_probe", "a", 0.8, "cam")
    save_figure(tmp_path / "map.png", Image.new("RGB", (50, 30)), [found], title="x.png")
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.format == "PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["map.png"]
    with pytest.raises(StorageError, match="cannot be written"):
        save_figure(tmp_path / "no" / "map.png", Image.new("RGB", (5, 5)), [found], title="x.png")
