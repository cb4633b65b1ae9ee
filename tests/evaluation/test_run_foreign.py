"""Foreign images in a real small run: the file, the log, the page, `gsco diagnose`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import gsco
from gsco.cases.phantoms import generate_phantoms
from gsco.cli import main
from gsco.evaluation.foreign import foreign_note, percent_nearer, warning
from gsco.evaluation.run import rerender
from gsco.retrieval import CaseIndex, Foreignness, ForeignSign


@pytest.fixture(scope="module")
def cat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph of a cat where scikit-image brings one, else a drawn cat."""
    path = tmp_path_factory.mktemp("photographs") / "cat.png"
    try:
        from skimage.data import chelsea
    except ImportError:
        drawn = Image.new("RGB", (300, 300), (90, 140, 60))
        draw = ImageDraw.Draw(drawn)
        draw.polygon([(90, 120), (80, 40), (140, 90)], fill=(200, 120, 50))
        draw.polygon([(210, 120), (220, 40), (160, 90)], fill=(200, 120, 50))
        draw.ellipse((80, 80, 220, 220), fill=(220, 140, 60))
        draw.ellipse((110, 120, 135, 150), fill=(40, 160, 60))
        draw.ellipse((165, 120, 190, 150), fill=(40, 160, 60))
        drawn.save(path)
    else:
        Image.fromarray(chelsea()).save(path)
    return path


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "cases.jsonl").read_text().splitlines()]


def test_a_cat_is_foreign_to_phantoms(cat: Path, finished_run: Path, feature_cache: Path) -> None:
    said = gsco.diagnose(cat, run=finished_run, cache=feature_cache)
    assert said.foreignness is not None
    assert said.foreignness.is_foreign
    assert said.foreignness.nearer == 1.0
    assert said.foreign == (
        "This image does not look like any of the known cases (farther from them than 100 % of them are "
        "from each other): do not trust the answer."
    )


def test_new_phantoms_mostly_are_not(tmp_path: Path, finished_run: Path, feature_cache: Path) -> None:
    from gsco.specialists.backbones import load_backbone
    from gsco.specialists.features import extract

    generate_phantoms(tmp_path / "p", n=30, seed=77, size=64)
    images = [case.image for case in gsco.load_dataset(tmp_path / "p")]
    index = CaseIndex.from_pretrained(finished_run / "index")
    sign = ForeignSign.from_dict(json.loads((finished_run / "foreign.json").read_text()))
    found = sign.judge(index, extract(load_backbone(), images, cache=feature_cache))
    # the run has 9 validation cases, so one in ten may be called foreign
    assert sum(one.is_foreign for one in found) <= 6


def test_the_log_holds_what_the_sign_says(
    finished_run: Path, phantom_folder: Path, feature_cache: Path
) -> None:
    lines = [line for line in lines_of(finished_run) if line["evidence"]]
    for line in lines:
        found = line["evidence"]["foreignness"]
        assert set(found) == {"score", "nearer", "p_value", "is_foreign"}
        assert 0 < found["score"] < 2
        assert 0 <= found["nearer"] <= 1
        assert 0 < found["p_value"] <= 1
        assert 0 <= line["evidence"]["disagreement"] <= 1
    said = gsco.diagnose(phantom_folder / lines[0]["case_id"], run=finished_run, cache=feature_cache)
    assert said.foreignness is not None
    assert said.foreignness.score == pytest.approx(lines[0]["evidence"]["foreignness"]["score"], abs=1e-7)
    assert said.disagreement == pytest.approx(lines[0]["evidence"]["disagreement"])


def test_the_sign_is_fitted_on_training_and_validation(finished_run: Path, phantom_folder: Path) -> None:
    stored = json.loads((finished_run / "foreign.json").read_text())
    dataset = gsco.load_dataset(phantom_folder)
    index = CaseIndex.from_pretrained(finished_run / "index")
    assert stored["index_version"] == index.version
    assert len(stored["known"]) == len(index)
    assert len(stored["validation"]) == len(dataset.split("val"))
    assert stored["rate"] == pytest.approx(1 / (len(dataset.split("val")) + 1))


def test_a_run_of_an_earlier_version_judges_by_its_known_cases(
    cat: Path, finished_run: Path, feature_cache: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(finished_run, old)
    (old / "foreign.json").unlink()
    lines = lines_of(old)
    for line in lines:
        if line["evidence"]:
            del line["evidence"]["foreignness"], line["evidence"]["disagreement"]
    (old / "cases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = gsco.diagnose(cat, run=old, cache=feature_cache)
    assert said.foreign is not None
    assert not (old / "foreign.json").exists()
    assert not any("foreign" in note for note in rerender(old).notes)
    assert "foreign" not in (old / "report.html").read_text().split("<main>")[1]


def test_the_page_and_the_summary_name_foreign_cases(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    lines = lines_of(run)
    split = sorted({line["case_id"] for line in lines if line["arm"] == "majority_vote"})
    differs = next(
        case_id
        for case_id in split
        if len({x["prediction"] for x in lines if x["case_id"] == case_id and x["kind"] != "specialist"}) > 1
    )
    for line in lines:
        if line["evidence"]:
            line["evidence"]["foreignness"]["is_foreign"] = line["case_id"] == differs
    (run / "cases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = rerender(run)
    note = f"1 of {len(split)} cases looks foreign to the training cases (foreign.json): {differs}."
    assert note in result.notes
    page = result.report.read_text()
    assert note in page
    assert page.count(">looks foreign<") == 1
    rate = json.loads((run / "foreign.json").read_text())["rate"]
    assert f"Promised rate of false alarms: {100 * rate:.2g}&nbsp;%" in page


class TestWords:
    def test_never_rounded_up_to_all(self) -> None:
        assert [percent_nearer(x) for x in (1.0, 0.9999, 0.996, 0.5, 0.0)] == [
            *("100 %", "99.9 %", "99.6 %", "50 %", "0 %")
        ]

    def test_no_warning_where_there_is_nothing_to_warn_of(self) -> None:
        found = Foreignness(0.2, 0.97, 0.03, is_foreign=False)
        assert warning(None) is None
        assert warning(found) is None
        assert "97 %" in (warning(replace(found, is_foreign=True)) or "")

    @pytest.mark.parametrize(
        ("foreign", "words"),
        [
            (0, "None of 9 cases looks foreign to the training cases (foreign.json)."),
            (1, "1 of 9 cases looks foreign to the training cases (foreign.json): c0."),
            (
                7,
                "7 of 9 cases look foreign to the training cases (foreign.json): "
                "c0, c1, c2, c3, c4 and 2 more.",
            ),
        ],
    )
    def test_the_note_counts_cases_not_lines(self, foreign: int, words: str) -> None:
        lines = [
            {"case_id": f"c{i}", "arm": arm, "evidence": {"foreignness": {"is_foreign": i < foreign}}}
            for i in range(9)
            for arm in ("rad", "gsco")
        ]
        assert foreign_note([*lines, {"case_id": "c0", "evidence": None}]) == words

    def test_an_older_log_says_nothing(self) -> None:
        assert foreign_note([{"case_id": "a", "evidence": {"opinions": []}}]) is None


class TestCommand:
    def test_the_warning_stands_before_the_answer(
        self, cat: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            main(["diagnose", str(cat), "--run", str(finished_run)])
        shown = " ".join(capsys.readouterr().out.split())
        assert shown.startswith("This image does not look like any of the known cases (farther")
        assert "disagreement of the specialists" in shown

    def test_json(self, cat: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["diagnose", str(cat), "--run", str(finished_run), "--json"])
        said = json.loads(capsys.readouterr().out)
        assert said["foreignness"]["is_foreign"] is True
        assert said["foreign"].startswith("This image does not look like")
        assert np.isfinite(said["foreignness"]["score"])
