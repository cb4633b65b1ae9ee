"""The leakage check on the real sets: what is known to be duplicated is found, and every set may run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from gsco.cases import load_dataset
from gsco.retrieval import check_leakage

pytestmark = pytest.mark.real

# Pairs (same pixels, nearly the same image) between training and test cases.
KNOWN = {
    "medmnist/breastmnist.npz": (1, 50),
    "busi": (0, 37),
    "cxr_nih": (0, 0),
    "bccd": (0, 0),
    "wbc_tecom": (0, 0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_train_against_test(shared_data: Path, name: str) -> None:
    dataset = load_dataset(shared_data / name)
    report = check_leakage(dataset.split("train"), dataset.split("test"))
    report.raise_if()
    assert (report.counts["pixels"], report.counts["near_duplicates"]) == KNOWN[name]
    assert report.unreadable == ()


def test_busi_duplicate_groups_are_found(shared_data: Path) -> None:
    """The set's own column of near-duplicate groups was made by the same rule, on larger sources."""
    with (shared_data / "busi" / "labels.csv").open(newline="") as file:
        group = {row["image"]: row["dup_group"] for row in csv.DictReader(file)}
    dataset = load_dataset(shared_data / "busi")
    others = [case for case in dataset if case.split != "train"]
    report = check_leakage(dataset.split("train"), others)
    stated = {
        (a.id, b.id)
        for a in dataset.split("train")
        for b in others
        if group[a.id] and group[a.id] == group[b.id]
    }
    found = {(pair.indexed, pair.answered) for pair in (*report.pixels, *report.near_duplicates)}
    assert len(stated) == 59
    assert len(stated & found) >= 0.9 * len(stated)
    assert len(stated & found) >= 0.9 * len(found)
