"""Requests that fail for good: named, counted as wrong, shown, and asked again on resume."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from small_runs import lines_of

import gsco
from gsco.errors import ModelError, RequestsFailedError
from gsco.evaluation.config import RunConfig
from gsco.generalist import OptionScores, Request
from gsco.generalist.scripted import ScriptedGeneralist


class Flaky(ScriptedGeneralist):
    """Fails for good about the images named."""

    def __init__(self, bad: Sequence[str], *, scores: bool = True) -> None:
        super().__init__("percent")
        self.bad = tuple(bad)
        self.can_score = scores
        self.remark = "" if scores else "It only writes."

    def score_options(self, requests: Sequence[Request]) -> list[OptionScores]:
        assert self.can_score
        return self.settled(requests, super().score_options(requests))

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 64) -> list[str]:
        return self.settled(requests, super().generate(requests))

    def settled(self, requests: Sequence[Request], results: list[Any]) -> list[Any]:
        fails = [any(name in str(r.image) for name in self.bad) for r in requests]
        if not any(fails):
            return results
        raise RequestsFailedError(
            "some failed",
            results=[None if f else r for f, r in zip(fails, results, strict=True)],
            reasons=["HTTP 500: out of memory" if f else None for f in fails],
        )


def test_failed_answers_are_named_and_asked_again(
    phantom_folder: Path, tmp_path: Path, feature_cache: Path, quick: dict[str, Any]
) -> None:
    config = RunConfig(data=phantom_folder, **quick)
    whole = gsco.run(config, tmp_path / "whole", generalist=Flaky(()), cache=feature_cache)
    images = sorted({Path(line["image"]).name for line in lines_of(whole.folder)})
    out = tmp_path / "flaky"
    first = gsco.run(config, out, generalist=Flaky(images[:2]), cache=feature_cache)
    lines = lines_of(out)
    failed = [line for line in lines if line.get("failed")]
    assert {Path(line["image"]).name for line in failed} == set(images[:2])
    assert {line["arm"] for line in failed} == {"generalist", "moed", "rad", "gsco"} and len(failed) == 8
    assert all(line["prediction"] is None and "out of memory" in line["failed"] for line in failed)
    assert (
        len(lines) == len({(line["case_id"], line["arm"]) for line in lines}) == len(lines_of(whole.folder))
    )
    arm = first.metrics["arms"]["gsco"]
    assert arm["failed"] == arm["unparsed"] == 2 and arm["n"] == len(images) and arm["auc"]
    assert "failed" not in first.metrics["arms"]["gsco_calibrated"]  # the other voices spoke
    assert any("8 answers" in note and "--resume" in note for note in first.notes)
    page = first.report.read_text()
    assert "2 failed" in page and "request failed" in page

    again = gsco.resume(out, generalist=Flaky(()), cache=feature_cache)
    assert json.dumps(again.metrics) == json.dumps(whole.metrics)
    key = ("case_id", "arm")
    asked_again = sorted(lines_of(out), key=lambda line: [line[k] for k in key])
    assert asked_again == sorted(lines_of(whole.folder), key=lambda line: [line[k] for k in key])


def test_a_failure_on_validation_is_left_out_of_the_fit(
    phantom_folder: Path, tmp_path: Path, feature_cache: Path, quick: dict[str, Any]
) -> None:
    config = RunConfig(data=phantom_folder, **{**quick, "limit": 4})
    out = tmp_path / "run"
    gsco.run(config, out, generalist=Flaky(()), cache=feature_cache)
    asked = [json.loads(line) for line in (out / "calibration.jsonl").read_text().splitlines()]
    bad = [Path(asked[0]["image"]).name]
    gsco.run(config, tmp_path / "flaky", generalist=Flaky(bad), cache=feature_cache)
    fits = json.loads((tmp_path / "flaky" / "calibration.json").read_text())["arms"]
    assert {fit["n"] for fit in fits.values()} == {3}


def test_a_generalist_that_only_writes_is_asked_for_text(
    phantom_folder: Path, tmp_path: Path, feature_cache: Path, quick: dict[str, Any]
) -> None:
    config = RunConfig(data=phantom_folder, **{**quick, "limit": 4})
    result = gsco.run(config, tmp_path / "run", generalist=Flaky((), scores=False), cache=feature_cache)
    lines = [line for line in lines_of(tmp_path / "run") if line["kind"] == "generalist"]
    assert lines and all(line["raw"] and line["probabilities"] is None for line in lines)
    assert any("It only writes." in note for note in result.notes)
    assert json.loads((tmp_path / "run" / "generalist.json").read_text())["remark"] == "It only writes."
    assert not (tmp_path / "run" / "calibration.json").exists()


def test_a_key_in_the_address_is_in_no_file(
    phantom_folder: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    for address in ("http://me:sk-secret@127.0.0.1:9/v1#m", "http://127.0.0.1:9/v1?key=sk-secret#m"):
        config = RunConfig(data=phantom_folder, **{**quick, "generalist": f"openai:{address}"})
        with pytest.raises(ModelError, match="GSCO_OPENAI_API_KEY") as caught:
            gsco.run(config, tmp_path / "run")
        assert "sk-secret" not in str(caught.value)
        assert not (tmp_path / "run").exists()
