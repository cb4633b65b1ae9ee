"""Splits: drawn by class and group, and refused where they leak."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsco.cases import Case, Dataset, Task, check_splits, draw_splits, require_splits, units_of
from gsco.errors import DatasetError, SplitLeakError

units = st.none() | st.sampled_from([f"u{k}" for k in range(8)])
case_lists = st.lists(st.tuples(st.sampled_from("xyz"), units, units), max_size=40).map(
    lambda rows: [
        Case(f"c{k}", (), (label,), patient_id=patient, group=group)
        for k, (label, patient, group) in enumerate(rows)
    ]
)


@settings(max_examples=150, deadline=None)
@given(case_lists, st.integers(0, 3))
def test_a_drawn_split_never_leaks(cases: list[Case], seed: int) -> None:
    drawn = draw_splits(cases, seed=seed)
    check_splits(drawn)
    assert [case.id for case in drawn] == [case.id for case in cases]
    assert drawn == draw_splits(cases, seed=seed)
    moved = {case.id: case.split for case in draw_splits(cases[::-1], seed=seed)}
    if not any(case.patient_id or case.group for case in cases):
        assert moved == {case.id: case.split for case in drawn}


@pytest.mark.parametrize("n", [3, 10, 97, 1000])
def test_shares_and_strata(n: int) -> None:
    cases = [Case(f"{label}{k}", (), (label,)) for label in "abc" for k in range(n)]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for case in draw_splits(cases):
        counts[case.labels[0]][case.split] += 1
    for label in "abc":
        assert counts[label]["test"] == max(1, round(0.2 * n))
        assert counts[label]["val"] == max(1, round(0.1 * n))
        assert counts[label]["train"] >= 1


def test_few_cases_go_to_training() -> None:
    assert [case.split for case in draw_splits([Case("a", (), ("x",))])] == ["train"]
    assert draw_splits([]) == ()


def test_other_shares() -> None:
    cases = [Case(str(k), (), ("x",)) for k in range(80)]
    counts = Counter(case.split for case in draw_splits(cases, shares=(0.875, 0.125, 0.0)))
    assert counts == {"train": 70, "val": 10}


def test_leaks_are_counted() -> None:
    cases = [Case(f"{k}-{split}", (), ("x",), split, f"p{k}") for k in range(5) for split in ("train", "val")]
    with pytest.raises(SplitLeakError, match=r"5 patients stand .* 0-train \(train\) and 0-val \(val\)"):
        check_splits(cases)


def test_needed_splits() -> None:
    cases = tuple(Case(str(k), (), ("x",), split) for k, split in enumerate(("train", "test")))
    dataset = Dataset("d", Task("diagnosis", "m"), cases, Path("d"))
    require_splits(dataset, ["train", "test"])
    with pytest.raises(DatasetError, match="no case in split val"):
        require_splits(dataset)


def test_a_large_unit_does_not_fill_a_small_split() -> None:
    cases = [Case(f"{i}", (), ("a",), patient_id="big" if i < 90 else f"p{i}") for i in range(100)]
    for seed in range(12):
        count = Counter(case.split for case in draw_splits(cases, seed=seed))
        assert count["train"] >= 90
        assert min(count["val"], count["test"]) >= 1


def test_units_join_patients_and_groups() -> None:
    def case(name: str, patient: str | None, group: str | None) -> Case:
        return Case(name, (), ("a",), patient_id=patient, group=group)

    cases = [case("1", "p", "g"), case("2", "q", "g"), case("3", "q", None), case("4", None, None)]
    units = units_of(cases)
    assert len(set(units[:3])) == 1
    assert units[3] not in units[:3]
    assert units_of([case("1", "p", None), case("2", None, "g")]) == ["p", "g"]
