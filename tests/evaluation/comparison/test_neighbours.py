"""Precision among neighbours and average precision, against scikit-learn and by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from gsco.cases import Case, ImageRef
from gsco.evaluation.comparison.neighbours import find_alike, summary


def case(i: int, label: str, patient: str | None = None) -> Case:
    return Case(f"c{i}", (ImageRef(Path(f"{i}.png")),), (label,), patient_id=patient)


def test_it_is_scikit_learns_average_precision() -> None:
    rng = np.random.default_rng(0)
    rows, queries = rng.normal(size=(40, 5)).astype("f4"), rng.normal(size=(70, 5)).astype("f4")
    known = [case(i, "ab"[i % 2]) for i in range(40)]
    asked = [case(100 + i, "ab"[i % 2]) for i in range(70)]
    found = find_alike(queries, asked, rows, known)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    similarity = unit(queries) @ unit(rows).T
    for i in range(70):
        same = np.asarray([one.label == asked[i].label for one in known])
        assert found.average_precision[i] == pytest.approx(average_precision_score(same, similarity[i]))
        assert found.precision[i] == pytest.approx(same[np.argsort(-similarity[i])[:10]].mean())
    assert np.allclose(found.chance, 0.5)


def test_neither_itself_nor_its_patient_is_found() -> None:
    rows = np.eye(4, dtype="f4")
    cases = [case(0, "a", "p"), case(1, "a", "p"), case(2, "a", "q"), case(3, "b", "r")]
    rows[1] = rows[0]
    found = find_alike(rows, cases, rows, cases, k=1)
    # without the patient's other image nothing is alike, so the first of the rest comes first
    assert found.precision[0] == 1.0
    assert found.chance[0] == pytest.approx(0.5)
    assert np.isnan(found.precision[3]), "the only b is the query"


def test_maps_are_compared_position_by_position() -> None:
    maps = np.zeros((3, 2, 2, 2), dtype="f4")
    maps[0, 0, 0, 0] = maps[1, 0, 0, 0] = maps[2, 0, 1, 1] = 1
    cases = [case(0, "a"), case(1, "a"), case(2, "b")]
    found = find_alike(maps[:1], cases[:1], maps[1:], cases[1:], k=1)
    assert found.precision[0] == found.average_precision[0] == 1.0


def test_the_summary_leaves_out_what_could_not_be_found() -> None:
    rows = np.eye(3, dtype="f4")
    cases = [case(0, "a"), case(1, "a"), case(2, "b")]
    figures = summary(find_alike(rows, cases, rows, cases), cases, n_resamples=50, seed=0)
    assert figures["precision_at_10"]["value"] == pytest.approx(0.5)
    assert figures["chance"] == pytest.approx(0.5)


def test_of_several_labels_one_that_is_shared_is_enough() -> None:
    known = [
        replace(case(0, "a"), labels=("a", "b")),
        replace(case(1, "c"), labels=("c",)),
        replace(case(2, "a"), labels=()),
    ]
    asked = [replace(case(3, "b"), labels=("b", "d")), replace(case(4, "a"), labels=())]
    rows = np.eye(3, dtype="f4")
    found = find_alike(rows[[0, 2]], asked, rows, known, k=1)
    assert found.precision.tolist() == [1, 1]
    assert found.chance == pytest.approx([1 / 3, 1 / 3])
