"""``gsco specialist export`` as a person or a program meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gsco.cli import main
from gsco.evaluation.reference_results import read_results
from gsco.specialists.checkpoints import CheckpointName

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


def called(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as left:
        main(["specialist", "export", *map(str, arguments)])
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def specialist(tmp_path_factory: pytest.TempPathFactory, phantom_folder: Path, feature_cache: Path) -> Path:
    from gsco.cases import load_dataset
    from gsco.specialists import train_specialist

    out = tmp_path_factory.mktemp("cli-export") / "small"
    data = load_dataset(phantom_folder)
    train_specialist("small_cnn", data, cache=feature_cache, out=out, quick=True, size=16)
    return out


def test_json_says_what_was_measured(
    specialist: Path, phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gsco.specialists import load_specialist

    out = tmp_path / "out"
    assert called(specialist, "--to", "onnx", "--data", phantom_folder, "--out", out, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["folder"], said["agreement"]) == (str(out), 1.0)
    assert said["accuracy"] == said["accuracy of the original"]
    assert load_specialist(out).options == load_specialist(specialist).options


def test_a_table_for_people(specialist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(specialist, "--out", tmp_path / "out") == 0
    shown = capsys.readouterr()
    assert "largest difference of a probability" in shown.out
    assert "phantoms" in shown.out


def test_the_fastest_answers_from_then_on(
    specialist: Path, phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gsco.specialists import load_specialist
    from gsco.specialists.chosen import runtime_of

    folder = tmp_path / "small"
    load_specialist(specialist).save_pretrained(folder)
    assert called(folder, "--to", "auto", "--data", phantom_folder) == 0
    shown = capsys.readouterr().out
    kept = runtime_of(load_specialist(folder))
    assert f"{kept} answers from now on: the fastest here" in shown
    for heading in ("batch 1", "batch 16", "accuracy", "largest Δp", "pytorch", "onnx fp32"):
        assert heading in shown


def test_the_references_files(
    phantom_folder: Path, feature_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gsco.cases import load_dataset
    from gsco.specialists import train_specialist

    out, specialist = tmp_path / "out", tmp_path / "head"
    data = load_dataset(phantom_folder)
    train_specialist("linearProbing:test_resnet", data, cache=feature_cache, out=specialist, size=16)
    assert called(specialist, "--to", "reference", "--data", phantom_folder, "--out", out) == 0
    checkpoint, results = map(Path, capsys.readouterr().out.split())
    assert CheckpointName.parse(checkpoint.name).dataset == "phantom_cxr"
    assert read_results(results).checkpoint == checkpoint.name


def test_mistakes_are_one_line(
    specialist: Path, phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, told in (
        ([tmp_path], "holds no config.json"),
        ([specialist, "--to", "tflite"], "no export target 'tflite'"),
        ([specialist, "--to", "auto"], "the fastest runtime is chosen on validation cases"),
        ([specialist, "--to", "auto", "--out", tmp_path], "writes into the specialist's own folder"),
        ([specialist, "--precision", "int8"], "precision int8 is checked on labelled validation cases"),
    ):
        assert called(*arguments) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        lines = [line for line in shown.err.splitlines() if line.startswith("gsco: ")]
        assert len(lines) == 1, shown.err
        assert told in lines[0]
    assert [path.name for path in specialist.parent.iterdir()] == ["small"]
