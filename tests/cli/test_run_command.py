from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gsco.cli import main


def call(*arguments: str | Path) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert not left.value.code


def test_a_run_by_flags_is_the_run_by_python(
    phantom_folder: Path,
    finished_run: Path,
    feature_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call(
        *("run", "--data", phantom_folder, "--out", tmp_path / "run", "--cache", feature_cache),
        *("--specialist", "linear_probe", "--specialist", "knn", "--generalist", "scripted:percent"),
        *("--template", "evidence", "-k", "3", "--batch-cases", "2", "--resamples", "200"),
        *("--threads", "1", "--seed", "5", "--json"),
    )
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads((finished_run / "metrics.json").read_text())
    for name in ("metrics.json", "cases.jsonl", "config.yaml"):
        assert (tmp_path / "run" / name).read_bytes() == (finished_run / name).read_bytes()
    stages = [line.removesuffix(" …") for line in shown.err.splitlines() if line.endswith(" …")]
    assert stages[:2] == ["loading libraries", "reading the dataset"]
    assert "specialist knn" in stages
    assert stages[-2:] == ["figures", "page"]


def test_the_end_of_a_run_shows_arms_verdict_and_page(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    call("report", copy)
    shown = capsys.readouterr().out
    for arm in ("gsco", "best_specialist", "majority_vote", "specialist:knn"):
        assert arm in shown
    for word in ("accuracy", "macro-F1", "AUC", "ECE", "By macro-F1, GSCo", "synthetic phantoms", "scripted"):
        assert word in shown
    assert str(copy / "report.html") in shown
    assert "not a medical device" in shown


def test_another_runs_config_repeats_it(
    finished_run: Path, feature_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = finished_run / "config.yaml"
    call("run", "--config", settings, "--out", tmp_path / "run", "--cache", feature_cache, "--quiet")
    assert (tmp_path / "run" / "metrics.json").read_bytes() == (finished_run / "metrics.json").read_bytes()
    assert capsys.readouterr().err == ""
