"""What a preset chooses for the data and the machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gsco.cases import Dataset
from gsco.errors import ModelError
from gsco.specialists.machine import ONE_CPU, Machine
from gsco.specialists.presets import plan
from gsco.specialists.registry import find_recipe

GPU = Machine(device="cuda", precision="bf16")


def times(dataset: Dataset, n: int) -> Dataset:
    """The same cases so many times, each copy with patients of its own."""
    copies = [
        replace(case, id=f"{case.id}-{i}", patient_id=f"{case.patient_id}-{i}")
        for i in range(n)
        for case in dataset
    ]
    return replace(dataset, cases=tuple(copies))


@pytest.mark.parametrize("preset", ["quick", "balanced", "best"])
@pytest.mark.parametrize("machine", [ONE_CPU, GPU])
def test_every_plan_names_recipes_that_there_are_and_says_why(
    preset: str, machine: Machine, dataset: Dataset
) -> None:
    found = plan(dataset, preset, machine)
    assert found.recipes
    for recipe in found.recipes:
        assert find_recipe(recipe.partition(":")[0]).name == recipe.partition(":")[0]
    assert all(reason.endswith(".") for reason in found.reasons)
    assert found.folds == (3 if preset == "best" else 0)


def test_networks_are_trained_where_there_is_enough_and_not_too_much(dataset: Dataset) -> None:
    few, enough, many = dataset, times(dataset, 10), times(dataset, 600)  # 36, 360, 21,600 to learn from
    heads = ("linear_probe", "knn", "texture_probe")
    assert plan(few, "best", ONE_CPU).recipes == (*heads, "finetuned")
    assert plan(enough, "best", ONE_CPU).recipes == (*heads, "finetuned", "small_cnn")
    assert plan(many, "best", ONE_CPU).recipes == heads
    assert plan(many, "best", GPU).recipes == (*heads, "endToEnd:densenet121", "small_cnn")
    assert "would take hours" in " ".join(plan(many, "best", ONE_CPU).reasons)


def test_what_cannot_be_dealt_into_folds_is_trained_once(dataset: Dataset) -> None:
    one = replace(dataset, cases=tuple(replace(case, patient_id="p") for case in dataset))
    found = plan(one, "best", ONE_CPU)
    assert found.folds == 0
    assert "1 patients or groups cannot be dealt into 3 folds" in found.reasons[-1]


def test_no_such_preset(dataset: Dataset) -> None:
    with pytest.raises(ModelError, match="no preset 'fastest'"):
        plan(dataset, "fastest", ONE_CPU)
