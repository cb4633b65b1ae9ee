"""Tasks where a case may have several labels or none, and grades."""

from __future__ import annotations

import csv
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import cohen_kappa_score, f1_score, log_loss

from gsco.cases import Dataset, load_dataset
from gsco.specialists import RECIPES, load_specialist, out_of_fold, train_specialist
from gsco.specialists import calibration as c
from gsco.specialists.bagged import BaggedSpecialist
from gsco.specialists.export import PARITY, export_specialist
from gsco.specialists.registry import training_job


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Pictures with a bright left half, a bright top, both or neither; the findings stand in a column."""
    folder = tmp_path_factory.mktemp("marks")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(80):
        left, top = i % 2 == 0, i % 4 < 2
        grey = rng.normal(60, 15, (32, 32))
        grey[:, :16] += 80 * left
        grey[:16] += 60 * top
        name = f"images/{i}.png"
        Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(folder / name)
        found = "|".join([*(["Left"] if left else []), *(["Top"] if top else [])]) or "No Finding"
        rows.append([name, "any", ("train", "train", "val", "test")[i // 20], found, f"p{i}"])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "label", "split", "findings", "patient_id"], *rows])
    return load_dataset(folder, label_column="findings")


def test_a_column_of_findings_is_read(marks: Dataset) -> None:
    assert marks.task.multi_label
    assert marks.task.keys == ("Left", "Top")
    assert {case.labels for case in marks} == {(), ("Left",), ("Top",), ("Left", "Top")}


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_learns_labels_that_stand_together(
    name: str, marks: Dataset, backbone_folder: Path, tmp_path: Path
) -> None:
    backbone = {"medmnist": ":test_resnet", "small_cnn": ""}.get(name, f":{backbone_folder}")
    made = train_specialist(
        f"{name}{backbone}", marks, cache=tmp_path, out=tmp_path / "out", size=32, pad=0, quick=True
    )
    test = marks.split("test")
    images = [case.image for case in test]
    found = made.predict(images)
    assert found.shape == (20, 2)
    assert ((found > 0) & (found < 1)).all()
    loaded = load_specialist(tmp_path / "out")
    np.testing.assert_array_equal(loaded.predict(images), found)
    assert loaded.said(found) == made.said(found)
    assert set(made.val_metrics) == {"n", "accuracy", "balanced_accuracy", "macro_f1", "auc", "log_loss"}
    if name in {"linear_probe", "texture_probe", "knn"}:  # enough for so few cases and steps
        right = [set(said) == set(case.labels) for said, case in zip(made.said(found), test, strict=True)]
        assert np.mean(right) >= 0.7


def test_trained_in_folds_each_label_has_a_mean_of_its_own(
    marks: Dataset, backbone_folder: Path, tmp_path: Path
) -> None:
    recipe = f"linear_probe:{backbone_folder}"
    made = train_specialist(recipe, marks, cache=tmp_path, out=tmp_path / "out", size=32, folds=2)
    assert isinstance(made, BaggedSpecialist)
    images = [case.image for case in marks.split("test")]
    mean = np.mean([member.predict(images) for member in made.members], axis=0)
    np.testing.assert_allclose(1 / (1 + np.exp(-made.logits(images))), mean, rtol=1e-6)
    np.testing.assert_array_equal(load_specialist(tmp_path / "out").predict(images), made.predict(images))
    if importlib.util.find_spec("onnxruntime"):
        exported = export_specialist(made, tmp_path / "onnx", dataset=marks)
        np.testing.assert_allclose(exported.predict(images), made.predict(images), rtol=0, atol=PARITY)


def test_out_of_fold_predictions_come_by_label(marks: Dataset, backbone_folder: Path, tmp_path: Path) -> None:
    found = out_of_fold(f"linear_probe:{backbone_folder}", marks, folds=2, cache=tmp_path, size=32)
    truth = np.asarray([[key in case.labels for key in ("Left", "Top")] for case in marks.split("train")])
    assert ((found > 0.5) == truth).mean() > 0.7


def test_another_second_label_is_another_job(marks: Dataset, tmp_path: Path) -> None:
    """Or a killed training would go on from a checkpoint that learned other labels."""
    job = training_job(marks, cache=tmp_path)
    both = next(case for case in job.train if len(case.labels) == 2)
    cases = tuple(replace(case, labels=case.labels[:1]) if case is both else case for case in marks)
    assert training_job(replace(marks, cases=cases), cache=tmp_path).key() != job.key()
    assert training_job(replace(marks), cache=tmp_path).key() == job.key()


def test_a_label_nobody_has_is_unlikely_and_keeps_its_threshold(
    marks: Dataset, backbone_folder: Path, tmp_path: Path
) -> None:
    from gsco.cases import Option

    task = replace(marks.task, options=(*marks.task.options, Option("Never", "never")))
    made = train_specialist(
        f"linear_probe:{backbone_folder}", replace(marks, task=task), cache=tmp_path, size=32
    )
    found = made.predict([case.image for case in marks.split("test")])
    assert (found[:, 2] < 0.05).all()
    assert made.thresholds[2] == 0.5


@given(st.lists(st.tuples(st.floats(0.001, 0.999), st.booleans()), min_size=2, max_size=30))
def test_thresholds_have_nearly_the_best_expected_f1(pairs: list[tuple[float, bool]]) -> None:
    score, truth = np.asarray([p for p, _ in pairs]), np.asarray([t for _, t in pairs])
    (threshold,) = c.fit_thresholds(score[:, None], truth[:, None].astype(np.int64))
    weight = truth.sum() / (truth.sum() + 20)
    expected = weight * truth + (1 - weight) * score
    if truth.all() or expected.sum() < 0.5:
        assert threshold == 0.5
        return

    def f1(at: float) -> float:
        said = score > at
        return float(2 * expected[said].sum() / (said.sum() + expected.sum()))

    assert f1(threshold) >= 0.99 * max(f1(at) for at in [0.0, *score.tolist()]) - 1e-9


def test_many_labels_outvote_wrong_probabilities_and_few_do_not() -> None:
    rng = np.random.default_rng(0)
    truth = np.tile([1, 0], 500)
    shy = np.clip(np.where(truth, 0.2, 0.1) + rng.uniform(-0.04, 0.04, 1000), 0, 1)  # each far below .5
    (threshold,) = c.fit_thresholds(shy[:, None], truth[:, None])
    assert f1_score(truth, shy > threshold) > 0.98
    few, sure = np.array([1, 0, 0, 0, 0, 0]), np.array([0.05, 0.9, 0.9, 0.9, 0.1, 0.1])
    (threshold,) = c.fit_thresholds(sure[:, None], few[:, None])
    assert threshold > 0.1, "one case does not make all six positive"


@given(st.integers(1, 20), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_loss_by_label_is_scikit_learns(n: int, labels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, truth = rng.uniform(0.01, 0.99, (n, labels)), rng.integers(0, 2, (n, labels))
    peer = np.mean([log_loss(truth[:, k], probabilities[:, k], labels=[0, 1]) for k in range(labels)])
    assert c.log_loss(probabilities, truth) == pytest.approx(peer)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30), st.integers(0, 2**32 - 1))
def test_grades_are_judged_by_kappa(truth: list[int], seed: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(5), len(truth))
    figures = c.judge(probabilities, truth, ordinal=True)
    said = probabilities.argmax(axis=1)
    if len({*truth, *said.tolist()}) > 1:
        peer = cohen_kappa_score(truth, said, labels=range(5), weights="quadratic")
        assert figures["quadratic_kappa"] == pytest.approx(peer, nan_ok=True)
    assert "quadratic_kappa" not in c.judge(probabilities, truth)


def test_a_set_of_grades_says_so(tmp_path: Path, dataset: Dataset, backbone_folder: Path) -> None:
    graded = replace(dataset, task=replace(dataset.task, ordinal=True))
    made = train_specialist(f"knn:{backbone_folder}", graded, cache=tmp_path, size=32)
    assert 0.5 < made.val_metrics["quadratic_kappa"] <= 1
