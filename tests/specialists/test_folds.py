from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gsco.cases import Dataset, load_dataset
from gsco.errors import DatasetError
from gsco.specialists import out_of_fold
from gsco.specialists.folds import grouped_folds
from gsco.specialists.registry import fit_specialist, training_job


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 15)), min_size=12, max_size=80),
    st.integers(2, 4),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_a_group_is_never_divided_and_every_case_has_one_fold(
    rows: list[tuple[int, int]], folds: int, seed: int
) -> None:
    targets, groups = [label for label, _ in rows], [f"patient {group}" for _, group in rows]
    if len(set(groups)) < folds or max(Counter(targets).values()) < folds:
        with pytest.raises(DatasetError, match="folds"):
            grouped_folds(targets, groups, folds=folds, seed=seed)
        return
    assigned = grouped_folds(targets, groups, folds=folds, seed=seed)
    assert set(assigned) <= set(range(folds))
    assert all(len({f for f, g in zip(assigned, groups, strict=True) if g == group}) == 1 for group in groups)
    np.testing.assert_array_equal(assigned, grouped_folds(targets, groups, folds=folds, seed=seed))


def test_classes_are_spread_evenly() -> None:
    targets = [0] * 60 + [1] * 12
    assigned = grouped_folds(targets, [str(i) for i in range(72)], folds=3)
    assert Counter(zip(targets, assigned.tolist(), strict=True)) == {(0, f): 20 for f in range(3)} | {
        (1, f): 4 for f in range(3)
    }


def test_no_specialist_speaks_about_a_case_it_was_trained_on(
    dataset: Dataset, backbone_folder: Path, tmp_path: Path
) -> None:
    """Each fold's rows are those of a specialist fitted by hand on the other folds."""
    recipe = f"knn:{backbone_folder}"
    found = out_of_fold(recipe, dataset, folds=3, seed=4, cache=tmp_path)
    job = training_job(dataset, cache=tmp_path, seed=4)
    assigned = grouped_folds(job.train_targets, [case.cluster for case in job.train], folds=3, seed=4)
    for number in range(3):
        rest = tuple(c for c, f in zip(job.train, assigned, strict=True) if f != number)
        held = [c.image for c, f in zip(job.train, assigned, strict=True) if f == number]
        assert not {c.patient_id for c in rest} & {
            c.patient_id for c, f in zip(job.train, assigned, strict=True) if f == number
        }
        expected = fit_specialist(recipe, job.with_train(rest)).predict(held)
        np.testing.assert_array_equal(found[assigned == number], expected)
    np.testing.assert_allclose(found.sum(1), 1)
    with_all = fit_specialist(recipe, job).predict([case.image for case in job.train])
    assert not np.allclose(with_all, found)


def test_finished_folds_are_not_repeated(dataset: Dataset, backbone_folder: Path, tmp_path: Path) -> None:
    recipe = f"linear_probe:{backbone_folder}"
    first = out_of_fold(recipe, dataset, folds=2, cache=tmp_path)
    kept = sorted((tmp_path / "folds").glob("*.npy"))
    assert len(kept) == 2
    before = [path.stat().st_mtime_ns for path in kept]
    np.testing.assert_array_equal(out_of_fold(recipe, dataset, folds=2, cache=tmp_path), first)
    assert [path.stat().st_mtime_ns for path in kept] == before
    kept[0].write_bytes(b"cut short")  # damage costs time, not correctness
    np.testing.assert_array_equal(out_of_fold(recipe, dataset, folds=2, cache=tmp_path), first)
    out_of_fold(recipe, dataset, folds=2, seed=1, cache=tmp_path)  # another seed is another question
    assert len(list((tmp_path / "folds").glob("*.npy"))) == 4
    torch.set_num_threads(2)  # and so are other last digits
    try:
        out_of_fold(recipe, dataset, folds=2, cache=tmp_path)
    finally:
        torch.set_num_threads(1)
    assert len(list((tmp_path / "folds").glob("*.npy"))) == 6


def test_another_picture_under_the_same_name_is_asked_about_again(
    dataset: Dataset, backbone_folder: Path, tmp_path: Path
) -> None:
    recipe = f"knn:{backbone_folder}"
    moved = load_dataset(shutil.copytree(dataset.root, tmp_path / "data"))
    out_of_fold(recipe, moved, folds=2, cache=tmp_path / "kept")
    first = moved.split("train")[0].image.path
    Image.fromarray(255 - np.asarray(Image.open(first))).save(first)
    again = out_of_fold(recipe, moved, folds=2, cache=tmp_path / "kept")
    np.testing.assert_array_equal(again, out_of_fold(recipe, moved, folds=2, cache=tmp_path / "new"))


def test_a_recipe_that_goes_on_without_weights_does_so_in_folds(dataset: Dataset, tmp_path: Path) -> None:
    found = out_of_fold("kNN:resnet18", dataset, folds=2, cache=tmp_path, size=32, pad=0)
    np.testing.assert_allclose(found.sum(1), 1)
