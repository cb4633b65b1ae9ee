"""Copies between splits: purged, refused or allowed by name, and never counted on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import lines_of, small_dataset

import gsco
from gsco.errors import LeakageError
from gsco.evaluation.config import RunConfig


class TestLeakage:
    @pytest.fixture
    def leaking(self, tmp_path: Path) -> tuple[Path, str]:
        """A dataset with a test image that is, pixel for pixel, a training image."""
        folder = small_dataset(tmp_path / "data")
        dataset = gsco.load_dataset(folder)
        train, test = dataset.split("train")[0], dataset.split("test")[0]
        shutil.copy(train.image.path, test.image.path)
        return folder, train.id

    @pytest.mark.parametrize("leakage", ["purge", "purge_all"])
    def test_is_purged_and_named(
        self,
        leakage: str,
        leaking: tuple[Path, str],
        feature_cache: Path,
        tmp_path: Path,
        quick: dict[str, Any],
    ) -> None:
        folder, copied = leaking
        config = RunConfig.parse({"data": folder, **quick, "leakage": leakage})
        result = gsco.run(config, tmp_path / "run", cache=feature_cache)
        purged = json.loads((tmp_path / "run" / "leakage.json").read_text())["purged"]
        assert copied in purged
        assert any("(near) copies" in note for note in result.notes)
        found = [
            n for line in lines_of(tmp_path / "run") for n in (line["evidence"] or {}).get("neighbours", [])
        ]
        assert found
        assert copied not in {neighbour["case_id"] for neighbour in found}
        card = json.loads((tmp_path / "run" / "specialists" / "knn" / "config.json").read_text())
        n_train = len(gsco.load_dataset(folder).split("train"))
        assert card["details"]["n_train"] == n_train - (len(purged) if leakage == "purge_all" else 0)

    def test_a_purged_training_case_is_still_known_when_asked_about(
        self, leaking: tuple[Path, str], feature_cache: Path, tmp_path: Path, quick: dict[str, Any]
    ) -> None:
        folder, copied = leaking
        gsco.run(RunConfig(data=folder, **quick), tmp_path / "run", cache=feature_cache)
        said = gsco.diagnose(folder / copied, run=tmp_path / "run", cache=feature_cache)
        assert said.known_case is not None
        assert copied in said.known_case

    def test_copies_count_for_nothing_in_validation(
        self, tmp_path: Path, feature_cache: Path, quick: dict[str, Any]
    ) -> None:
        """One validation image is a training image, another one is to be answered."""
        folder = small_dataset(tmp_path / "data", n=36)
        dataset = gsco.load_dataset(folder)
        by_label = {
            label: [c for c in dataset.split("val") if c.label == label] for label in dataset.task.keys
        }
        first, second = (cases[0] for cases in list(by_label.values())[:2])
        shutil.copy(dataset.split("train")[0].image.path, first.image.path)
        shutil.copy(dataset.split("test")[0].image.path, second.image.path)
        result = gsco.run(RunConfig(data=folder, **quick), tmp_path / "run", cache=feature_cache)
        found = json.loads((tmp_path / "run" / "leakage.json").read_text())["validation"]
        assert first.id in found["copies_of_training"]
        assert second.id in found["copies_of_answered"]
        assert set(found["left_out"]) == {*found["copies_of_training"], *found["copies_of_answered"]}
        log = (tmp_path / "run" / "calibration.jsonl").read_text().splitlines()
        assert {json.loads(line)["case_id"] for line in log}.isdisjoint(found["left_out"])
        with np.load(tmp_path / "run" / "predictions" / "knn.val.npz") as stored:
            assert set(stored["ids"]).isdisjoint(found["left_out"])
        assert any("judged" in note for note in result.notes)

    def test_is_refused_on_request(
        self, leaking: tuple[Path, str], feature_cache: Path, tmp_path: Path, quick: dict[str, Any]
    ) -> None:
        folder, copied = leaking
        config = RunConfig(data=folder, **quick, leakage="refuse")
        with pytest.raises(LeakageError, match=copied):
            gsco.run(config, tmp_path / "run", cache=feature_cache)

    def test_is_allowed_by_name_and_said(
        self, leaking: tuple[Path, str], feature_cache: Path, tmp_path: Path, quick: dict[str, Any]
    ) -> None:
        folder, _ = leaking
        config = RunConfig(data=folder, **quick, allow_leakage=("pixels", "near_duplicates"))
        result = gsco.run(config, tmp_path / "run", cache=feature_cache)
        assert any("Leakage allowed by name" in note for note in result.notes)
