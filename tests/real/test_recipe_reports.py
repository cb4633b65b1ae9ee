"""The reports that come with nano's recipe are about training cases, and say these cases' labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsco.bootstrapping.checks import Known, judge
from gsco.bootstrapping.vocabulary import vocabulary
from gsco.cases import load_dataset
from gsco.cases.reports import parse_report
from gsco.teaching.recipe import given_records, read_recipe, recipe_file

pytestmark = pytest.mark.real


@pytest.mark.parametrize("name", ["busi", "cxr_nih"])
def test_reports_are_of_training_cases_and_fit_their_labels(shared_data: Path, name: str) -> None:
    dataset = load_dataset(shared_data / name)
    case_of = {case.image.path.resolve(): case for case in dataset}
    words = vocabulary(dataset.task)
    (source,) = (s for s in read_recipe(recipe_file("nano")).sources if s.records and s.path == name)
    for record in given_records(source, root=shared_data):
        assert record.image is not None
        case = case_of[record.image.path.resolve()]
        assert case.split == "train"
        assert not judge(parse_report(record.answer), Known(case.labels), words), record.answer
