"""What specialists cannot be made of, or asked: one line that names the thing, exit code 2, no traceback."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gsco.cli import main

Refused = Callable[..., str]
SHADES = {"dark": 40, "grey": 110, "light": 190}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, feature_cache: Path) -> None:
    monkeypatch.setenv("GSCO_CACHE", str(feature_cache))


def dataset(folder: Path, counts: dict[str, dict[str, int]]) -> Path:
    """Even pictures with noise; how many of each label, by split."""
    (folder / "images").mkdir(parents=True)
    rows, rng = ["image,label,split"], np.random.default_rng(0)
    for split, labels in counts.items():
        for label, n in labels.items():
            for i in range(n):
                name = f"images/{split}-{label}-{i}.png"
                pixels = rng.normal(SHADES[label], 15, (24, 24)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / name)
                rows.append(f"{name},{label},{split}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def two(tmp_path: Path) -> Path:
    both = {"dark": 4, "light": 4}
    return dataset(tmp_path / "two", {"train": both, "val": both, "test": both})


@pytest.fixture(scope="module")
def specialist(tmp_path_factory: pytest.TempPathFactory, feature_cache: Path) -> Path:
    from gsco.cases import load_dataset
    from gsco.specialists import train_specialist

    folder = tmp_path_factory.mktemp("specialist")
    both = {"dark": 4, "light": 4}
    data = load_dataset(dataset(folder / "data", {"train": both, "val": both, "test": both}))
    train_specialist("small_cnn", data, cache=feature_cache, out=folder / "small", quick=True, size=16)
    return folder / "small"


TRAIN = ("specialist", "train", "--recipe", "small_cnn", "--size", "16", "--quick", "--data")
EVIDENCE = ("evidence", "build", "--specialists", "linear_probe", "--data")


@pytest.mark.parametrize("command", [TRAIN, EVIDENCE])
@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"train": {"dark": 4}, "val": {"dark": 2}, "test": {"dark": 2}}, "fewer than two options (dark)"),
        ({"train": {"dark": 4}, "val": {"light": 2}}, "the training split has fewer than two labels"),
        ({"train": {"dark": 2, "light": 1}}, "3 training cases are too few to learn from"),
    ],
)
def test_data_with_nothing_to_learn(
    command: tuple[str, ...], counts: dict[str, dict[str, int]], words: str, refused: Refused, tmp_path: Path
) -> None:
    line = refused(*command, dataset(tmp_path / "data", counts), "--out", tmp_path / "out")
    assert words in line
    assert "Give" in line or "give" in line
    assert not (tmp_path / "out").exists()


def trained(data: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, object]]:
    """Train a small network on it; what stderr says, and the config of what came of it."""
    with pytest.raises(SystemExit) as left:
        main([*TRAIN, str(data), "--out", str(out)])
    shown = capsys.readouterr().err
    assert left.value.code == 0, shown
    return shown, json.loads((out / "config.json").read_text())


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("val", "no validation case of light: not calibrated"),
        ("test", "no test case of light: not judged"),
    ],
)
def test_a_class_that_a_split_lacks_is_named(
    split: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = {"dark": 4, "light": 4}
    counts = {"train": both, "val": both, "test": both} | {split: {"dark": 4}}
    shown, config = trained(dataset(tmp_path / "data", counts), tmp_path / "out", capsys)
    assert words in shown
    figures = config["val_metrics"]
    assert isinstance(figures, dict)
    assert (figures["auc"] is None) is (split == "val")


def test_no_validation_case_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = {"dark": 4, "light": 4}
    shown, config = trained(
        dataset(tmp_path / "data", {"train": both, "test": both}), tmp_path / "out", capsys
    )
    assert "no validation cases: not calibrated" in shown
    assert (config["temperature"], config["reliability"]) == (1.0, None)


def test_a_broken_image_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = {"dark": 12, "light": 12}
    data = dataset(tmp_path / "data", {"train": many, "val": many, "test": many})
    (data / "images" / "train-dark-3.png").write_bytes(b"")
    shown, config = trained(data, tmp_path / "out", capsys)
    assert "skipped: images/train-dark-3.png: is an empty file" in shown
    details = config["details"]
    assert isinstance(details, dict)
    assert details["n_train"] == 23


def test_a_size_that_a_network_cannot_take(refused: Refused, two: Path, tmp_path: Path) -> None:
    arguments = ("--arch", "alexnet", "--size", "16", "--pad", "0", "--quick", "--out", tmp_path / "out")
    line = refused("specialist", "train", "--data", two, *arguments)
    assert "network 'alexnet' cannot take pictures of 16 x 16 pixels" in line
    assert "Give a larger size" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there(device: str, refused: Refused, two: Path) -> None:
    assert f"device '{device}' is not there. Take --device cpu" in refused(*TRAIN, two, "--device", device)


def _state(classes: int) -> dict[str, torch.Tensor]:
    import timm

    state: dict[str, torch.Tensor] = timm.create_model("resnet18", num_classes=classes).state_dict()
    return state


def test_a_checkpoint_of_other_classes(refused: Refused, two: Path, tmp_path: Path) -> None:
    path = tmp_path / "two_24_endToEnd_resnet18_s1_best.pth"
    torch.save(_state(5), path)
    line = refused("specialist", "import", path, "--data", two, "--out", tmp_path / "out")
    assert f"{path}: has 5 classes, and the dataset has 2 options. Give the dataset" in line
    assert not (tmp_path / "out").exists()


def test_a_pickle_that_is_no_state_dict(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "breastmnist_28_endToEnd_resnet18_s1_best.pth"
    path.write_bytes(pickle.dumps({"epoch": 3, "model": print}))
    line = refused("specialist", "import", path, "--out", tmp_path / "out")
    assert f"{path}: is not a state dict" in line
    assert "Save one with torch.save(model.state_dict(), path)" in line


def test_nothing_to_judge(refused: Refused, specialist: Path, tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", {"train": {"dark": 4, "light": 4}})
    assert "has no labelled case in split 'test'" in refused(
        "specialist", "evaluate", specialist, "--data", data
    )
    other = dataset(tmp_path / "other", {"test": {"dark": 2, "grey": 2}})
    line = refused("specialist", "evaluate", specialist, "--data", other)
    assert "chooses among dark, light, but other has dark, grey" in line


def test_a_heat_map_that_cannot_be_written(
    refused: Refused, specialist: Path, two: Path, tmp_path: Path
) -> None:
    picture = two / "images" / "test-dark-0.png"
    line = refused("specialist", "explain", specialist, picture, "--out", tmp_path / "no" / "map.png")
    assert "no/map.png: cannot be written (No such file or directory). Name another file" in line


def test_a_place_that_cannot_be_written_is_told_before_the_work(
    refused: Refused, specialist: Path, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gsco.cases.load_dataset", lambda *_, **__: pytest.fail("the data were read"))
    monkeypatch.setattr(
        "gsco.evaluation.comparison.compare_specialists", lambda *_, **__: pytest.fail("they were compared")
    )
    file = tmp_path / "thesis.txt"
    file.touch()
    for command in ((*TRAIN, two), ("specialist", "compare", specialist, "--data", two)):
        line = refused(*command, "--out", file / "inner" / "made")
        assert "thesis.txt/inner: cannot be made (Not a directory). Name another place." in line


def test_evidence_under_a_file(refused: Refused, two: Path, tmp_path: Path) -> None:
    file = tmp_path / "thesis.txt"
    file.touch()
    line = refused(*EVIDENCE, two, "--out", file / "evidence")
    assert "cannot be made (Not a directory)" in line
