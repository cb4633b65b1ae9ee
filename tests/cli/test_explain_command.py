"""``gsco specialist explain``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from gsco.cli import main


@pytest.fixture
def image(phantom_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(phantom_folder / "images" / "phantom_00003.png", tmp_path / "scan.png"))


def call(*arguments: Path | str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["specialist", "explain", *map(str, arguments)])
    return int(left.value.code or 0)


def test_it_draws_beside_the_image(
    finished_run: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(finished_run / "specialists" / "linear_probe", image) == 0
    shown = capsys.readouterr().out
    assert "linear_probe: " in shown
    assert "(cam)" in shown
    assert "Research use only" in shown
    with Image.open(image.with_name("scan.png.heat.png")) as figure:
        assert figure.width > 2 * 320


def test_json_names_what_is_explained(
    finished_run: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "map.png"
    folder = finished_run / "specialists" / "knn"
    assert call(folder, image, "--option", "nodule", "--out", out, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["map"] == str(out)
    assert (told["specialist"], told["option"], told["method"]) == ("knn", "nodule", "similarity")
    assert (told["height"], told["width"]) == (64, 64)
    assert 0 <= told["probability"] <= 1
    assert out.is_file()
    assert not image.with_name("scan.png.heat.png").exists()


def test_a_numbered_option_of_medmnist_is_called_by_its_name(
    finished_run: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(finished_run / "specialists" / "linear_probe", tmp_path / "of_medmnist"))
    card = json.loads((folder / "config.json").read_text())
    card["names"] = None
    card["options"] = [str(i) for i in range(len(card["options"]))]
    card["details"]["dataset"] = "pneumoniamnist"
    (folder / "config.json").write_text(json.dumps(card))
    assert call(folder, image, "--option", "pneumonia") == 0
    assert "linear_probe: pneumonia, " in capsys.readouterr().out


def test_dicom_is_explained_as_well(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pydicom = pytest.importorskip("pydicom")
    source = pydicom.data.get_testdata_file("CT_small.dcm")
    scan = Path(shutil.copy(source, tmp_path / "ct.dcm"))
    assert call(finished_run / "specialists" / "linear_probe", scan) == 0
    assert (tmp_path / "ct.dcm.heat.png").is_file()
    assert "heat map: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("linear_probe", "scan.png", "--option", "cat"), "has no option 'cat'. Choose one of: "),
        (("linear_probe", "missing.png"), "missing.png: there is no such file"),
        (("nowhere", "scan.png"), "nowhere: there is no such folder"),
        (("linear_probe", "scan.png", "--out", "no/such/map.png"), "map.png: cannot be written"),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[str, ...], told: str, finished_run: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, name, *rest = arguments
    assert call(finished_run / "specialists" / folder, image.with_name(name), *rest) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = [line for line in shown.err.splitlines() if line.startswith("gsco: ")]
    assert told in line
