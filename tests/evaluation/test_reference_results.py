"""The reference's results JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from gsco.cases import load_dataset
from gsco.errors import DatasetError, ModelError
from gsco.evaluation.reference_results import read_results, reference_results, write_results
from gsco.specialists import train_specialist


def test_it_holds_what_the_references_script_would_compute(phantom_folder: Path, tmp_path: Path) -> None:
    """Neighbours against scikit-learn on un-pooled maps, figures against medmnist."""
    from medmnist.evaluator import getACC, getAUC

    dataset = load_dataset(phantom_folder)
    made = train_specialist("endToEnd:resnet18", dataset, cache=tmp_path, size=32, pad=0, quick=True)
    results = reference_results(made, dataset, cache=tmp_path, checkpoint="a.pth", top_n=4)
    train, test = dataset.split("train"), dataset.split("test")
    maps = made.network.maps  # type: ignore[attr-defined]
    from gsco.cases import load_image

    known = normalize(maps([load_image(case.image) for case in train]).reshape(len(train), -1))
    asked = normalize(maps([load_image(case.image) for case in test]).reshape(len(test), -1))
    distances, rows = NearestNeighbors(n_neighbors=4, metric="cosine").fit(known).kneighbors(asked)
    np.testing.assert_allclose(results.distances, distances, atol=1e-5)
    np.testing.assert_array_equal(results.train_rows, rows)
    labels = np.asarray(dataset.targets(train))
    np.testing.assert_array_equal(results.train_labels, labels[rows])
    truth = np.asarray(dataset.targets(test))
    assert results.accuracy == pytest.approx(getACC(truth[:, None], results.probabilities, "multi-class"))
    present = np.unique(truth)
    if len(present) == len(dataset.task.options):
        assert results.auc == pytest.approx(getAUC(truth[:, None], results.probabilities, "multi-class"))
    path = tmp_path / "results.json"
    write_results(results, path)
    assert set(json.loads(path.read_text())) == {
        "ACC", "AUC", "per_class_AUC", "checkpoint_file", "y_true", "y_pred", "y_logits",
        "all_search_sims", "all_search_train_ids", "all_search_train_labels",
    }  # fmt: skip
    again = read_results(path)
    for name in ("reference", "prediction", "logits", "distances", "train_rows", "train_labels"):
        np.testing.assert_array_equal(getattr(again, name), getattr(results, name))
    assert (again.accuracy, again.checkpoint) == (results.accuracy, "a.pth")


def test_other_options_or_no_test_case_are_one_line(phantom_folder: Path, tmp_path: Path) -> None:
    dataset = load_dataset(phantom_folder)
    made = train_specialist("medmnist", dataset, cache=tmp_path, size=16, quick=True)
    turned = replace(dataset, task=replace(dataset.task, options=dataset.task.options[::-1]))
    with pytest.raises(ModelError, match="in this order, while") as caught:
        reference_results(made, turned, cache=tmp_path)
    assert "\n" not in str(caught.value)
    untested = replace(dataset, cases=dataset.split("train"))
    with pytest.raises(DatasetError, match="has no labelled test case"):
        reference_results(made, untested, cache=tmp_path)


def _valid() -> dict[str, object]:
    return {"ACC": 0.5, "AUC": None, "y_true": [0, 1], "y_pred": [0, 0], "y_logits": [[1, 0], [2, 0]]}


def test_one_without_similar_cases_is_read_and_missing_areas_are_nan(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(_valid()))
    results = read_results(tmp_path / "r.json")
    assert results.distances.size == 0
    assert np.isnan(results.auc)
    np.testing.assert_allclose(results.probabilities.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_true": None}, "not numbers"),
        ({"y_pred": [0]}, "unlike lengths"),
        ({"y_logits": [["a", "b"], [0, 1]]}, "not numbers"),
        ({"y_logits": [0, 1]}, "unlike lengths"),
        (
            {"all_search_sims": [[0.1]], "all_search_train_ids": [[0]], "all_search_train_labels": [[0]]},
            "unlike",
        ),
    ],
)
def test_a_file_that_is_not_one_is_one_line(change: dict[str, object], words: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(_valid() | change))
    with pytest.raises(ModelError, match=words) as caught:
        read_results(tmp_path / "r.json")
    assert "\n" not in str(caught.value)


def test_other_files_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(ModelError, match="not a results file"):
        read_results(tmp_path / "r.json")
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        read_results(tmp_path / "r.json")
    with pytest.raises(ModelError, match="no such file"):
        read_results(tmp_path / "gone.json")
