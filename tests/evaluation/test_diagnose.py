from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import gsco
from gsco.cases import Option
from gsco.cases.phantoms import generate_phantoms
from gsco.cli import main
from gsco.cli.tables import show_diagnosis
from gsco.errors import ModelError, RunError
from gsco.evaluation.config import RunConfig
from gsco.generalist.scripted import ScriptedGeneralist


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom that no run has seen."""
    folder = tmp_path_factory.mktemp("strangers") / "p"
    generate_phantoms(folder, n=3, seed=99, size=64)
    return folder / "images" / "phantom_00002.png"


def test_the_answer_and_all_that_led_to_it(stranger: Path, finished_run: Path, feature_cache: Path) -> None:
    said = gsco.diagnose(stranger, run=finished_run, cache=feature_cache)
    keys = tuple(option.key for option in said.options)
    assert said.label in keys
    assert said.probabilities is not None
    assert sum(said.probabilities.values()) == pytest.approx(1)
    assert max(said.probabilities, key=said.probabilities.__getitem__) == said.label
    kinds = [voice.kind for voice in said.voices]
    assert kinds == ["generalist"] * 2 + ["pool"] + ["specialist"] * 2 + ["control"] * 3
    assert [voice.name.removesuffix(" (best)") for voice in said.voices[3:5]] == ["linear_probe", "knn"]
    assert sum("(best)" in voice.name for voice in said.voices) == 1
    for voice in said.voices[3:5]:
        assert voice.probabilities is not None
        assert keys[int(np.argmax(voice.probabilities))] == voice.choice
        assert voice.reliability is not None
        assert voice.trust is not None
        assert voice.abstains is not None
        assert voice.weight is not None
    assert len(said.neighbours) == 3
    vote = next(voice for voice in said.voices if voice.name == "neighbour_vote")
    chosen = json.loads((finished_run / "specialists.json").read_text())
    assert vote.reliability == chosen["neighbours"]["reliability"]
    assert said.known_case is None
    assert said.prompt is not None
    assert "Specialists" in said.prompt


def test_it_says_what_the_run_said(finished_run: Path, phantom_folder: Path, feature_cache: Path) -> None:
    lines = [json.loads(line) for line in (finished_run / "cases.jsonl").read_text().splitlines()]
    line = next(line for line in lines if line["arm"] == "gsco")
    said = gsco.diagnose(phantom_folder / line["case_id"], run=finished_run, cache=feature_cache)
    assert said.label == line["prediction"]
    assert said.prompt == line["prompt"]
    assert said.probabilities == pytest.approx(line["probabilities"])


def test_it_pools_as_the_run_pooled(finished_run: Path, phantom_folder: Path, feature_cache: Path) -> None:
    lines = [json.loads(line) for line in (finished_run / "cases.jsonl").read_text().splitlines()]
    line = next(line for line in lines if line["arm"] == "gsco_calibrated")
    image = phantom_folder / line["case_id"]
    said = gsco.diagnose(image, run=finished_run, arm="gsco_calibrated", cache=feature_cache)
    assert said.label == line["prediction"]
    assert said.probabilities == pytest.approx(line["probabilities"], abs=1e-5)
    assert list(said.label_set or ()) == line["label_set"]
    assert said.abstains == line["abstains"]
    assert [voice.name for voice in said.voices[:2]] == ["gsco_calibrated", "generalist"]
    fitted = json.loads((finished_run / "pool.json").read_text())
    assert said.coverage == fitted["sets"]["coverage"]
    told = {
        voice.name.removesuffix(" (best)"): voice.weight for voice in said.voices if voice.weight is not None
    }
    assert told == {voice.removeprefix("specialist:"): weight for voice, weight in fitted["weights"].items()}
    out = Console(file=io.StringIO(), width=120)
    show_diagnosis(out, said)
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    assert f"{100 * fitted['sets']['coverage']:.0f} % label set (GSCo calibrated): " in shown
    assert "weight" in shown


def test_another_generalist_is_not_pooled(
    stranger: Path, finished_run: Path, feature_cache: Path, tmp_path: Path
) -> None:
    other = ScriptedGeneralist("first")
    said = gsco.diagnose(stranger, run=finished_run, generalist=other, cache=feature_cache)
    assert (said.label_set, said.coverage, said.abstains) == (None, None, None)
    assert "pool" not in {voice.kind for voice in said.voices}
    with pytest.raises(RunError, match="no arm gsco_calibrated was fitted for this generalist"):
        gsco.diagnose(
            stranger, run=finished_run, arm="gsco_calibrated", generalist=other, cache=feature_cache
        )


def test_a_training_case_is_told_apart_even_when_saved_anew(
    finished_run: Path, phantom_folder: Path, feature_cache: Path, tmp_path: Path
) -> None:
    known = gsco.load_dataset(phantom_folder).split("train")[4]
    said = gsco.diagnose(known.image.path, run=finished_run, cache=feature_cache)
    assert said.known_case is not None
    assert known.id in said.known_case
    Image.open(known.image.path).save(tmp_path / "copy.jpg", quality=95)
    said = gsco.diagnose(tmp_path / "copy.jpg", run=finished_run, cache=feature_cache)
    assert said.known_case is not None
    assert known.id in said.known_case


def test_a_training_case_is_told_even_where_the_data_are_gone(
    finished_run: Path, phantom_folder: Path, feature_cache: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    config = RunConfig.from_yaml(copy / "config.yaml").with_changes({"data": tmp_path / "gone"})
    (copy / "config.yaml").write_text(config.to_yaml())
    known = gsco.load_dataset(phantom_folder).split("train")[4]
    said = gsco.diagnose(known.image.path, run=copy, cache=feature_cache)
    assert said.known_case is not None
    assert known.id in said.known_case


def test_another_arm_and_another_generalist(stranger: Path, finished_run: Path, feature_cache: Path) -> None:
    said = gsco.diagnose(
        stranger,
        run=finished_run,
        arm="generalist",
        generalist=ScriptedGeneralist("first"),
        cache=feature_cache,
    )
    assert said.label == said.options[0].key
    assert said.generalist == "scripted:first"
    assert [voice.name for voice in said.voices if voice.kind == "generalist"] == ["generalist"]
    with pytest.raises(RunError, match=r"no arm 'oracle'\. Choose one of: generalist, moed"):
        gsco.diagnose(stranger, run=finished_run, arm="oracle", cache=feature_cache)


def test_the_fullest_arm_answers_and_an_uncalibrated_one_says_so(
    stranger: Path, phantom_folder: Path, feature_cache: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    config = RunConfig.parse({"data": phantom_folder, **quick, "arms": ("generalist", "moed")})
    gsco.run(config, tmp_path / "run", cache=feature_cache)
    said = gsco.diagnose(stranger, run=tmp_path / "run", cache=feature_cache)
    assert (said.arm, said.word) == ("moed", None)
    assert said.uncalibrated is not None
    said = gsco.diagnose(stranger, run=tmp_path / "run", arm="gsco", cache=feature_cache)
    assert said.uncalibrated is None
    assert said.word == "Not calibrated: the run did not ask this arm."
    other = ScriptedGeneralist("first")
    said = gsco.diagnose(stranger, run=tmp_path / "run", generalist=other, cache=feature_cache)
    assert said.word == "Not calibrated: the run calibrated another generalist."


def test_names_are_never_read_as_markup(stranger: Path, finished_run: Path, feature_cache: Path) -> None:
    said = gsco.diagnose(stranger, run=finished_run, cache=feature_cache)
    odd = tuple(Option(o.key, f"cyst [/{i}] [simple]") for i, o in enumerate(said.options))
    console = Console(width=200, file=io.StringIO())
    show_diagnosis(console, replace(said, options=odd, image="[/x].png"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(text.count(option.name) >= 1 for option in odd)


def test_a_run_without_its_parts(stranger: Path, finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    shutil.rmtree(copy / "index")
    with pytest.raises(RunError, match="parts are not finished"):
        gsco.diagnose(stranger, run=copy)


def test_a_damaged_specialist(stranger: Path, finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    (copy / "specialists" / "knn" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="incomplete"):
        gsco.diagnose(stranger, run=copy, cache=tmp_path)


class TestCommand:
    def test_json_is_all_there_is_on_stdout(
        self, stranger: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            main(["diagnose", str(stranger), "--run", str(finished_run), "--json"])
        said = json.loads(capsys.readouterr().out)
        assert said["notice"] == "Research use only, not a medical device."
        assert said["image"] == str(stranger)
        kinds = {voice["kind"] for voice in said["voices"]}
        assert kinds == {"generalist", "pool", "specialist", "control"}

    def test_a_person_reads_answer_voices_and_similar_cases(
        self, stranger: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            main(["diagnose", str(stranger), "--run", str(finished_run)])
        shown = capsys.readouterr().out
        for word in (
            "GSCo (both)",
            "linear_probe",
            "majority vote",
            "Similar known cases",
            "not a medical device",
        ):
            assert word in shown
