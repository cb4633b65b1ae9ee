"""Specialists trained in folds: the mean of their members, who are also asked about what they never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gsco.cases import Dataset
from gsco.errors import DatasetError
from gsco.specialists import embed, load_specialist, out_of_fold, train_specialist
from gsco.specialists.bagged import BaggedSpecialist
from gsco.specialists.chosen import mark_of
from gsco.specialists.export import PARITY, export_specialist
from gsco.specialists.heatmaps import explainer
from gsco.specialists.randomisation import randomisation_test
from gsco.specialists.registry import fit_specialist, training_job

FOLDS = 2
NETWORK: dict[str, Any] = {"size": 32, "pad": 0, "quick": True}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def probe(dataset: Dataset, backbone_folder: Path, cache: Path) -> BaggedSpecialist:
    made = train_specialist(f"linear_probe:{backbone_folder}", dataset, cache=cache, folds=FOLDS)
    assert isinstance(made, BaggedSpecialist)
    return made


@pytest.fixture(scope="module")
def network(dataset: Dataset, backbone_folder: Path, cache: Path) -> BaggedSpecialist:
    made = train_specialist(f"finetuned:{backbone_folder}", dataset, cache=cache, folds=FOLDS, **NETWORK)
    assert isinstance(made, BaggedSpecialist)
    return made


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> list[Any]:
    return [case.image for case in dataset.split("test")]


def test_it_answers_by_the_mean_of_all_its_trainings(
    dataset: Dataset, backbone_folder: Path, tmp_path: Path, probe: BaggedSpecialist, images: list[Any]
) -> None:
    recipe = f"linear_probe:{backbone_folder}"
    alone = train_specialist(recipe, dataset, cache=tmp_path)
    assert len(probe.members) == FOLDS + 1
    np.testing.assert_array_equal(probe.members[0].predict(images), alone.predict(images))
    mean = np.mean([member.predict(images) for member in probe.members], axis=0)
    probe_at_1 = np.exp(probe.logits(images))
    np.testing.assert_allclose(probe_at_1, mean, rtol=1e-6)
    warmed = mean ** (1 / probe.temperature)
    np.testing.assert_allclose(probe.predict(images), warmed / warmed.sum(1, keepdims=True), rtol=1e-6)
    assert probe.name == alone.name
    assert probe.reliability is not None
    assert probe.details["folds"] == FOLDS


def test_its_members_are_those_who_speak_out_of_fold(
    dataset: Dataset, backbone_folder: Path, cache: Path, network: BaggedSpecialist
) -> None:
    recipe = f"finetuned:{backbone_folder}"
    kept = {path: path.stat().st_mtime_ns for path in (cache / "folds").glob("*/config.json")}
    found = out_of_fold(recipe, dataset, folds=FOLDS, cache=cache, **NETWORK)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    train = [case.image for case in dataset.split("train")]
    of_members = [member.predict(train) for member in network.members[1:]]
    rows = np.stack([np.isclose(found, said).all(axis=1) for said in of_members])
    assert rows.any(axis=0).all()
    assert rows.sum(axis=1).min() >= len(train) // FOLDS - 2
    fresh = fit_specialist(recipe, training_job(dataset, cache=cache, **NETWORK)).predict(train)
    np.testing.assert_allclose(network.members[0].predict(train), fresh)


def test_a_folder_gives_it_back(
    probe: BaggedSpecialist, network: BaggedSpecialist, images: list[Any], tmp_path: Path
) -> None:
    for made in (probe, network):
        made.save_pretrained(tmp_path / made.name)
        read = load_specialist(tmp_path / made.name)
        assert isinstance(read, BaggedSpecialist)
        np.testing.assert_array_equal(read.predict(images), made.predict(images))
        assert mark_of(read) == mark_of(made)
        assert (read.reliability, read.conformal) == (made.reliability, made.conformal)
    card = (tmp_path / network.name / "README.md").read_text(encoding="utf-8")
    assert "| members | 3 |" in card
    assert "| folds | 2 |" in card
    assert "val_metrics" not in card


def test_what_is_finished_is_not_trained_again(
    dataset: Dataset, backbone_folder: Path, tmp_path: Path, probe: BaggedSpecialist, images: list[Any]
) -> None:
    recipe = f"linear_probe:{backbone_folder}"

    def until_the_last(what: str, _done: int, _total: int) -> None:
        if f"fold {FOLDS}/{FOLDS}" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_specialist(recipe, dataset, cache=tmp_path, folds=FOLDS, progress=until_the_last)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "folds").glob("*/config.json")}
    assert len(kept) == FOLDS
    said = train_specialist(recipe, dataset, cache=tmp_path, folds=FOLDS).predict(images)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    np.testing.assert_array_equal(said, probe.predict(images))
    damaged = next(iter(kept)).with_name("model.safetensors")
    damaged.write_bytes(b"cut short")
    again = train_specialist(recipe, dataset, cache=tmp_path, folds=FOLDS)
    np.testing.assert_array_equal(again.predict(images), said)


@pytest.mark.parametrize("which", ["probe", "network"])
def test_one_graph_holds_all_members(
    which: str, request: pytest.FixtureRequest, dataset: Dataset, images: list[Any], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    source = request.getfixturevalue(which)
    made = export_specialist(source, tmp_path / "out", dataset=dataset)
    np.testing.assert_allclose(made.predict(images), source.predict(images), rtol=0, atol=PARITY)
    assert made.reliability == source.reliability


@pytest.mark.parametrize("which", ["probe", "network"])
def test_its_heat_map_is_the_mean_of_its_members(
    which: str, request: pytest.FixtureRequest, images: list[Any]
) -> None:
    source = request.getfixturevalue(which)
    found = explainer(source)
    each = [explainer(member) for member in source.members]
    mean = np.mean([one.evidence(images[0], 1) for one in each], axis=0)
    np.testing.assert_allclose(found.evidence(images[0], 1), mean)
    heat = found.explain(images[0])
    assert heat.method == each[0].method
    assert heat.probability == source.predict(images[:1]).max()
    steps = randomisation_test(source, images[:2], cascade=False)
    assert [abs(step.correlation) < 0.95 for step in steps] == [True]


def test_its_embedding_is_that_of_the_member_who_saw_all(
    network: BaggedSpecialist, images: list[Any]
) -> None:
    np.testing.assert_array_equal(embed(network, images), embed(network.members[0], images))


def test_what_cannot_be_is_said(dataset: Dataset, backbone_folder: Path, cache: Path) -> None:
    with pytest.raises(DatasetError, match="one fold leaves nothing"):
        train_specialist(f"knn:{backbone_folder}", dataset, cache=cache, folds=1)
    with pytest.raises(DatasetError, match="cannot be dealt into 40 folds"):
        train_specialist(f"knn:{backbone_folder}", dataset, cache=cache, folds=40)
