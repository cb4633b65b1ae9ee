"""Specialists of other packages: found by entry point, trained, saved, read; a broken one breaks no other."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from gsco.cases import Dataset
from gsco.errors import ModelError
from gsco.specialists import RECIPES, load_specialist, out_of_fold, train_specialist
from gsco.specialists.conformance import assert_conformant
from gsco.specialists.registry import all_recipes, find_recipe

from .packages import install

FOREST = """
from sklearn.ensemble import RandomForestClassifier
from gsco.specialists.wrapped import SklearnSpecialist

class Forest(SklearnSpecialist):
    kind = "tiny_forest"
    def make_estimator(self):
        return RandomForestClassifier(n_estimators=5, random_state=0)

def make(job, name, recipe, backbone):
    "a small forest"
    return Forest(name=name, recipe=recipe, options=job.options, backbone_name=backbone or "embedded",
                  cache=job.cache).fit(job)

def wrong_name(job, name, recipe, backbone):
    return Forest(name="other", recipe=recipe, options=job.options, backbone_name=backbone).fit(job)

def not_one(job, name, recipe, backbone):
    return "a text"
"""
ENTRIES = {
    "gsco.specialists": {
        "tiny_forest": "forest_package:make",
        "wrong_name": "forest_package:wrong_name",
        "not_one": "forest_package:not_one",
        "knn": "forest_package:make",
    },
    "gsco.specialist_kinds": {"tiny_forest": "forest_package:Forest", "misnamed": "forest_package:Forest"},
}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", monkeypatch, "forest_package", FOREST, ENTRIES)
    broken = {"gsco.specialists": {"broken": "broken_package:make", "absent": "no_such_module:make"}}
    install(tmp_path / "site", monkeypatch, "broken_package", "raise RuntimeError('out of order')", broken)
    for name in ("forest_package", "broken_package"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("packages")
def test_a_plugin_is_trained_saved_read_and_speaks_out_of_fold(
    dataset: Dataset, backbone_folder: Path, feature_cache: Path, tmp_path: Path
) -> None:
    recipe = f"tiny_forest:{backbone_folder}"
    out = tmp_path / "saved"
    made = train_specialist(recipe, dataset, cache=feature_cache, out=out)
    images = [case.image for case in dataset.split("test")]
    np.testing.assert_allclose(load_specialist(out).predict(images), made.predict(images), atol=1e-9)
    val = dataset.split("val")
    (tmp_path / "check").mkdir()
    assert_conformant(
        made, [case.image for case in val], targets=dataset.targets(val), folder=tmp_path / "check"
    )
    about_training = out_of_fold(recipe, dataset, folds=2, cache=feature_cache)
    assert about_training.shape == (36, 3)


@pytest.mark.usefixtures("packages")
def test_the_list_says_where_each_comes_from_and_replaces_none_of_ours() -> None:
    known = all_recipes()
    assert known["tiny_forest"].origin == "forest_package 1.2"
    assert known["knn"] == RECIPES["knn"]
    assert find_recipe("knn").origin == "gsco"


@pytest.mark.usefixtures("packages")
def test_the_command_lists_them_and_says_which_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    from gsco.cli.specialist.recipes import recipes

    recipes(json=True)
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["tiny_forest"]["summary"] == "a small forest"
    assert listed["tiny_forest"]["package"] == "forest_package 1.2"
    assert "out of order" in listed["broken"]["fault"]
    assert listed["linear_probe"] == {
        "name": "linear_probe",
        "summary": RECIPES["linear_probe"].summary,
        "package": "gsco",
        "fault": None,
    }


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("broken", r"'broken' of broken_package 1\.2 cannot be loaded \(RuntimeError: out of order\)"),
        ("absent", "ModuleNotFoundError"),
        ("wrong_name", "named 'other'"),
        ("not_one", "made str, not a TrainedSpecialist"),
        ("nowhere", "no recipe 'nowhere'.*tiny_forest"),
    ],
)
def test_a_broken_plugin_is_named_in_one_line(
    recipe: str, message: str, dataset: Dataset, backbone_folder: Path, feature_cache: Path
) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        train_specialist(f"{recipe}:{backbone_folder}", dataset, cache=feature_cache)
    assert "\n" not in str(raised.value)
    assert train_specialist(f"knn:{backbone_folder}", dataset, cache=feature_cache).name.startswith("knn")


@pytest.mark.usefixtures("packages")
def test_two_packages_with_one_name_are_both_named(
    dataset: Dataset, feature_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = {"gsco.specialists": {"tiny_forest": "rival_package:make"}}
    install(tmp_path / "site", monkeypatch, "rival_package", "def make(*_): ...", rival)
    with pytest.raises(
        ModelError, match=r"forest_package 1\.2 and rival_package 1\.2 both bring 'tiny_forest'"
    ):
        train_specialist("tiny_forest", dataset, cache=feature_cache)


def test_a_folder_of_a_kind_nobody_brings_is_refused_in_one_line(
    dataset: Dataset, backbone_folder: Path, feature_cache: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        install(tmp_path / "site", patch, "forest_package", FOREST, ENTRIES)
        out = tmp_path / "saved"
        train_specialist(f"tiny_forest:{backbone_folder}", dataset, cache=feature_cache, out=out)
        config = out / "config.json"
        plain = config.read_text()
        config.write_text(plain.replace('"kind": "tiny_forest"', '"kind": "misnamed"'))
        with pytest.raises(ModelError, match=r"'misnamed' of forest_package 1\.2 has the kind 'tiny_forest'"):
            load_specialist(out)
        config.write_text(plain)
    with pytest.raises(ModelError, match=r"unknown kind 'tiny_forest'.*install the package"):
        load_specialist(out)
