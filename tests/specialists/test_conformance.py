"""Our own recipes conform; a specialist that breaks one promise is told which."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gsco.cases import Dataset, ImageRef
from gsco.specialists import RECIPES, train_specialist
from gsco.specialists.conformance import NotConformantError, assert_conformant, check_specialist


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_of_ours_conforms(
    name: str, dataset: Dataset, backbone_folder: Path, feature_cache: Path, tmp_path: Path
) -> None:
    recipe = f"{name}:{backbone_folder}" if RECIPES[name].backbone else name
    cases = tuple(case for case in dataset if case.split != "test")
    made = train_specialist(recipe, replace(dataset, cases=cases), cache=feature_cache, quick=True, size=32)
    val = dataset.split("val")
    images = [case.image for case in val]
    assert_conformant(made, images, targets=dataset.targets(val), folder=tmp_path)


class Good:
    """Answers by the brightness of a picture, and keeps every promise."""

    name = "good"
    options: Any = ("a", "b")
    reliability: Any = None

    def predict(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        grey = [np.asarray(Image.open(image.path).convert("L")).mean() / 255 for image in images]
        column = np.asarray(grey, dtype=np.float64).reshape(-1)
        return np.stack([column, 1 - column], axis=1)

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"name": self.name}))
        (folder / "README.md").write_text("# card\n")

    def load(self, folder: Path) -> Good:
        return type(self)()


class Unsafe(Good):
    name = "../good"


class OneOption(Good):
    options = ("a",)


class Overrated(Good):
    reliability = 1.5


class Float32(Good):
    def predict(self, images: Sequence[ImageRef]) -> Any:
        return super().predict(images).astype(np.float32)


class Wide(Good):
    def predict(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        return np.concatenate([super().predict(images)] * 2, axis=1)


class Infinite(Good):
    def predict(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        return super().predict(images) * np.nan


class Logits(Good):
    def predict(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        return super().predict(images) - 0.7


class Sigmoids(Good):
    def predict(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        return super().predict(images) * 0.9


class Raises(Good):
    def predict(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        raise RuntimeError("out of order")


class Consumes(Good):
    def predict(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        out = super().predict(images)
        images.clear()  # type: ignore[attr-defined]
        return out


class Moody(Good):
    calls = 0

    def predict(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        type(self).calls += 1
        out = super().predict(images)
        return np.stack([out[:, 0] * 0.999**self.calls, 1 - out[:, 0] * 0.999**self.calls], axis=1)


class Normalises(Good):
    """Divides by the brightest of the images that it is asked about."""

    def predict(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        out = super().predict(images)
        column = out[:, 0] / max(out[:, 0].max(initial=0), 1e-9)
        return np.stack([column, 1 - column], axis=1)


class First(Good):
    """Treats the first of a list otherwise."""

    def predict(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        out = super().predict(images)
        out[:1] = out[:1, ::-1] * 0.9 + 0.05
        return out


class NoneAtAll(Good):
    def predict(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        if not images:
            raise IndexError("list index out of range")
        return super().predict(images)


class Unsavable(Good):
    def save_pretrained(self, folder: Path) -> None:
        raise OSError("cannot")


class Pickles(Good):
    def save_pretrained(self, folder: Path) -> None:
        super().save_pretrained(folder)
        (folder / "model.pkl").write_bytes(b"")
        (folder / "README.md").unlink()


class Strays(Good):
    def save_pretrained(self, folder: Path) -> None:
        super().save_pretrained(folder)
        (folder.parent / "cache.json").write_text("{}")


class Forgets(Good):
    def load(self, folder: Path) -> Good:
        other = First()
        other.name = "other"
        return other


class Vanishes(Good):
    def load(self, folder: Path) -> Good:
        raise ValueError("no such thing")


BAD = [
    (Unsafe, "name", "not safe as a file name"),
    (OneOption, "options", "not at least two"),
    (Overrated, "reliability", "1.5 is neither None nor in"),
    (Float32, "type", "gives float32"),
    (Wide, "shape", r"gives \(4, 4\), not \(4, 2\)"),
    (Infinite, "finite", "not finite"),
    (Logits, "range", "from -0"),
    (Sigmoids, "sum", "sums to 0.9"),
    (Raises, "predict", "RuntimeError: out of order"),
    (Consumes, "predict", "changes the list"),
    (Moody, "determinism", "when it is asked again"),
    (First, "order", "order of the images"),
    (Normalises, "batch", "asked about together"),
    (First, "single", "image alone"),
    (First, "repeated", "stands twice"),
    (NoneAtAll, "empty", "IndexError"),
    (Unsavable, "save", "OSError: cannot"),
    (Pickles, "files", "may be a pickle: model.pkl"),
    (Pickles, "files", "has no README.md"),
    (Strays, "stray", "cache.json"),
    (Forgets, "load", "name was 'good' and is 'other'"),
    (Forgets, "load", "other numbers when it is read again"),
    (Vanishes, "load", "ValueError: no such thing"),
]


@pytest.fixture
def images(tmp_path: Path) -> list[ImageRef]:
    """Four pictures, the brightest one first."""
    paths = [tmp_path / f"{grey}.png" for grey in (200, 40, 90, 150)]
    for path in paths:
        Image.new("L", (8, 8), int(path.stem)).save(path)
    return [ImageRef(path) for path in paths]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return folder


def test_one_that_keeps_every_promise_has_no_finding(images: list[ImageRef], place: Path) -> None:
    assert check_specialist(Good(), images, folder=place, load=Good().load) == []


@pytest.mark.parametrize(("kind", "check", "message"), BAD, ids=[f"{k.__name__}-{c}" for k, c, _ in BAD])
def test_each_broken_promise_is_found_and_named(
    kind: Callable[[], Good], check: str, message: str, images: list[ImageRef], place: Path
) -> None:
    bad = kind()
    found = check_specialist(bad, images, folder=place, load=bad.load)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError("\n".join(str(finding) for finding in found if finding.check == check))


def test_what_is_no_specialist_at_all(images: list[ImageRef]) -> None:
    (found,) = check_specialist(object(), images)  # type: ignore[arg-type]
    assert (found.check, found.message) == (
        "protocol",
        "has no name, options, reliability, predict, save_pretrained",
    )
    with pytest.raises(NotConformantError, match="protocol: has no name"):
        assert_conformant(object(), images)  # type: ignore[arg-type]


def test_what_it_states_about_itself_is_held_against_its_validation_cases(images: list[ImageRef]) -> None:
    targets = [0, 1, 1, 0]
    fair = Good()
    fair.reliability = 1.0
    assert check_specialist(fair, images, targets=targets) == []
    fair.reliability = 0.75
    (found,) = check_specialist(fair, images, targets=targets)
    assert found.message == "states 0.75, while its balanced accuracy is 1"

    class Sure(Good):
        def predict(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
            column = np.where(super().predict(images)[:, 0] > 0.5, 1 - 1e-6, 1e-6)
            return np.stack([column, 1 - column], axis=1)

    sure = Sure()
    sure.reliability = 0.5
    (found,) = check_specialist(sure, images, targets=[0, 1, 0, 1])
    assert found.check == "calibration" and "a temperature of" in found.message


@pytest.mark.parametrize(("n", "targets"), [(2, None), (4, [0])])
def test_too_little_to_check_with(n: int, targets: list[int] | None, images: list[ImageRef]) -> None:
    with pytest.raises(ValueError, match=r"at least three|1 targets"):
        check_specialist(Good(), images[:n], targets=targets)
