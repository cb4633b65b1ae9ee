from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gsco
from gsco.cli import main
from gsco.errors import ModelError
from gsco.evaluation.config import RunConfig
from gsco.evaluation.heatmaps import SIDE, stored_heatmap
from gsco.evaluation.report.heat import MOST, StoredHeatmap, looks_at
from gsco.evaluation.run import rerender


@pytest.fixture
def copied(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_the_page_shows_where_specialists_looked(finished_run: Path) -> None:
    files = sorted((finished_run / "heatmaps").iterdir())
    page = (finished_run / "report.html").read_text(encoding="utf-8")
    shown = len(re.findall(r'<ul class="looks"', page))
    assert 0 < shown <= 24
    assert len(files) == 2 * shown
    assert "and no proof of a good reason" in page
    for path in files:
        with Image.open(path) as picture:
            assert picture.mode == "L"
            assert max(picture.size) == SIDE
            text: dict[str, str] = picture.text  # type: ignore[attr-defined]
        found = stored_heatmap(finished_run / "heatmaps", text["case"], text["specialist"])
        assert found is not None
        assert found.values.dtype == np.float32
        assert found.values.max() in {0.0, 1.0}
        assert found.method == {"linear_probe": "cam", "knn": "similarity"}[text["specialist"]]
        assert f"Heat map of {text['specialist']} for" in page


def test_the_page_needs_no_model_again(copied: Path) -> None:
    before = (copied / "report.html").read_bytes()
    shutil.rmtree(copied / "specialists")
    rerender(copied)
    assert (copied / "report.html").read_bytes() == before


def test_without_maps_the_page_is_without_them(copied: Path) -> None:
    maps = sorted((copied / "heatmaps").iterdir())
    maps[0].write_bytes(maps[0].read_bytes()[:40])
    maps[1].write_bytes(b"")
    rerender(copied)
    broken = (copied / "report.html").read_text(encoding="utf-8")
    assert broken.count('<span class="eye">') == len(maps) - 2
    shutil.rmtree(copied / "heatmaps")
    rerender(copied)
    page = (copied / "report.html").read_text(encoding="utf-8")
    assert '<span class="eye">' not in page
    assert "Heat maps" not in page


def test_a_resumed_run_makes_what_is_missing(
    copied: Path, feature_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gsco.specialists.heatmaps import Explainer

    whole = {path.name: path.read_bytes() for path in (copied / "heatmaps").iterdir()}
    page = (copied / "report.html").read_bytes()
    for name in sorted(whole)[:3]:
        (copied / "heatmaps" / name).unlink()
    asked: list[Any] = []
    explain = Explainer.explain
    monkeypatch.setattr(Explainer, "explain", lambda *a, **k: asked.append(a) or explain(*a, **k))
    gsco.resume(copied, cache=feature_cache)
    assert len(asked) == 3
    assert {path.name: path.read_bytes() for path in (copied / "heatmaps").iterdir()} == whole
    assert (copied / "report.html").read_bytes() == page


def test_a_run_can_do_without(
    phantom_folder: Path, feature_cache: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    gsco.run(
        RunConfig(data=phantom_folder, heatmaps=0, limit=6, **quick), tmp_path / "run", cache=feature_cache
    )
    assert not (tmp_path / "run" / "heatmaps").exists()


def test_a_map_of_another_case_is_not_taken(finished_run: Path, tmp_path: Path) -> None:
    path = next((finished_run / "heatmaps").glob("*.knn.png"))
    shutil.copy(path, tmp_path / path.name.replace(".knn.", ".linear_probe."))
    with Image.open(path) as picture:
        case = picture.text["case"]  # type: ignore[attr-defined]
    assert stored_heatmap(finished_run / "heatmaps", case, "knn") is not None
    assert stored_heatmap(tmp_path, case, "linear_probe") is None
    assert stored_heatmap(tmp_path, "other", "knn") is None


def test_a_card_shows_no_more_than_it_can() -> None:
    opinions = [{"specialist": f"s{i}", "probabilities": [0.25, 0.75]} for i in range(9)]
    values = np.zeros((4, 4), dtype=np.float32)

    def stored(_case: str, specialist: str) -> StoredHeatmap | None:
        return (
            None
            if specialist == "s0"
            else StoredHeatmap(values, "b" if specialist != "s1" else "gone", "cam")
        )

    looks = looks_at("x", opinions, {"a": "first", "b": "second"}, stored)
    assert [look.name for look in looks] == [f"s{i}" for i in range(2, 2 + MOST)]
    assert {(look.option, look.probability, look.picture) for look in looks} == {("second", ".75", None)}


# one image -----------------------------------------------------------------------------------------


def test_diagnose_says_where_specialists_looked(
    finished_run: Path, phantom_folder: Path, feature_cache: Path
) -> None:
    image = phantom_folder / "images" / "phantom_00003.png"
    said = gsco.diagnose(image, run=finished_run, cache=feature_cache, heatmaps=True)
    assert [found.specialist for found in said.heatmaps] == ["linear_probe", "knn"]
    voices = {voice.name.removesuffix(" (best)"): voice for voice in said.voices}
    for found in said.heatmaps:
        assert found.values.shape == (64, 64)
        assert found.option == voices[found.specialist].choice
    told = json.loads(json.dumps(said.to_dict()))["heatmaps"]
    assert [row["method"] for row in told] == ["cam", "similarity"]
    assert gsco.diagnose(image, run=finished_run, cache=feature_cache).heatmaps == ()


def test_diagnose_draws_one_figure(
    finished_run: Path, phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = phantom_folder / "images" / "phantom_00003.png"
    with pytest.raises(SystemExit) as left:
        main(["diagnose", str(image), "--run", str(finished_run), "--heatmap", str(tmp_path / "maps.png")])
    assert not left.value.code
    assert f"heat maps: {tmp_path / 'maps.png'}" in capsys.readouterr().out
    with Image.open(tmp_path / "maps.png") as figure:
        assert figure.width > 3 * 320


def test_that_one_has_no_heat_map_is_said_once(
    copied: Path, feature_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gsco.specialists import heatmaps

    explainer = heatmaps.explainer

    def none_of_knn(specialist: Any) -> Any:
        if specialist.name == "knn":
            raise ModelError("specialist 'knn' has no heat map")
        return explainer(specialist)

    monkeypatch.setattr(heatmaps, "explainer", none_of_knn)
    for path in (copied / "heatmaps").glob("*.knn.png"):
        path.unlink()
    said = []
    for _ in range(2):
        with pytest.raises(SystemExit):
            main(["run", "--resume", str(copied), "--cache", str(feature_cache)])
        shown = capsys.readouterr()
        said.append((shown.out + shown.err).count("has no heat map"))
    assert said == [1, 0]
