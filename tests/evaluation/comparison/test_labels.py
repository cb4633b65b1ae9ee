"""Labels of one set as options of a specialist of another: by name, by hand, or refused in one line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsco.cases import Option
from gsco.errors import LabelError
from gsco.evaluation.comparison.labels import map_labels, means_else, option_names, plain


def of(dataset: str, *own: str, **said: str) -> Any:
    """A specialist as it was trained on a dataset, with the names that it keeps itself, if any."""
    return SimpleNamespace(options=own, details={"dataset": dataset}, names=said or None)


def options(**names: str) -> list[Option]:
    return [Option(key, name) for key, name in names.items()]


def test_keys_and_readable_names_match_whatever_the_spelling() -> None:
    labels = options(BCC="Basal-cell  carcinoma", mel="melanoma", nv="nevus")
    found = map_labels(labels, ("melanoma", "basal_cell_carcinoma", "df"))
    assert dict(found.pairs) == {"BCC": "basal_cell_carcinoma", "mel": "melanoma"}
    assert found.options == ("melanoma", "basal_cell_carcinoma")
    assert found.dropped_labels == ("nv",)
    assert found.dropped_options == ("df",)


def test_the_catalogue_knows_the_names_of_a_public_set() -> None:
    labels = options(m="melanoma", v="Vascular Lesion")
    names = option_names(of("ham10000", "mel", "vasc"))
    assert dict(map_labels(labels, ("mel", "vasc"), names=names).pairs) == {"m": "mel", "v": "vasc"}
    with pytest.raises(LabelError):
        map_labels(labels, ("mel", "vasc"))


def test_a_number_means_something_else_in_every_set() -> None:
    breast = [Option("0", "malignant"), Option("1", "normal or benign")]
    names = option_names(of("pneumoniamnist_64", "0", "1"))
    with pytest.raises(
        LabelError, match=r"none of the specialist's options \(0 \(normal\), 1 \(pneumonia\)\)"
    ):
        map_labels(breast, ("0", "1"), names=names)
    assert "'0' is normal" in str(means_else(breast, names))
    assert means_else([Option("0", "normal"), Option("1", "pneumonia")], names) is None
    unknown = option_names(of("mine", "0", "1"))
    assert means_else([Option("0", "class 0"), Option("1", "class 1")], unknown) is None
    assert means_else([Option("0", "class 0")], {"0": "0"}) is None  # trained on bare numbers
    assert dict(map_labels(breast, ("0", "1"), given=["malignant=0", "1=1"]).pairs) == {"0": "0", "1": "1"}


def test_medmnists_numbers_have_names() -> None:
    nih = options(no_finding="no finding", pneumonia="pneumonia")
    names = option_names(of("pneumoniamnist", "0", "1"))
    found = map_labels(nih, ("0", "1"), names=names, given=["no_finding=normal"])
    assert dict(found.pairs) == {"no_finding": "0", "pneumonia": "1"}


def test_what_a_specialist_says_of_its_options_comes_before_the_catalogue() -> None:
    assert option_names(of("ham10000", "mel", "nv", mel="dark one")) == {"mel": "dark one"}


def test_what_no_name_tells_is_given_by_hand() -> None:
    labels = options(no_finding="no finding", pneumonia="pneumonia")
    found = map_labels(labels, ("normal", "pneumonia"), given=["No Finding=normal"])
    assert dict(found.pairs) == {"no_finding": "normal", "pneumonia": "pneumonia"}
    assert found.dropped_labels == found.dropped_options == ()


def test_several_labels_may_mean_one_option() -> None:
    labels = options(covid="COVID-19", sars="SARS", normal="normal")
    found = map_labels(labels, ("normal", "pneumonia"), given=["covid=pneumonia", "sars=pneumonia"])
    assert found.options == ("normal", "pneumonia")
    assert set(found.pairs) == {"covid", "sars", "normal"}


@pytest.mark.parametrize(
    ("given_pairs", "told"),
    [
        ((), r"1 of the specialist's options \(normal, pneumonia\) is found .*two are needed.*--map"),
        (("no_finding",), "it is no LABEL=OPTION"),
        (("healthy=normal",), "the data have no label 'healthy'.*Labels: no_finding, pneumonia"),
        (("no_finding=benign",), "the specialist has no option 'benign'"),
        (("no_finding=normal", "no finding=pneumonia"), "twice"),
    ],
)
def test_too_little_is_one_line(given_pairs: tuple[str, ...], told: str) -> None:
    labels = options(no_finding="no finding", pneumonia="pneumonia")
    with pytest.raises(LabelError, match=told):
        map_labels(labels, ("normal", "pneumonia"), given=given_pairs)


def test_probabilities_are_those_given_that_a_mapped_option_is_right() -> None:
    found = map_labels(options(c="c", a="a"), ("a", "b", "c"))
    p = np.array([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(found.restrict(p, ("a", "b", "c")), [[0.4, 0.6], [0.5, 0.5]])


@given(st.text(min_size=1))
def test_plain_is_stable_and_blind_to_case_and_blanks(text: str) -> None:
    once = plain(text)
    assert plain(once) == once
    assert plain(f" {text}_") == once or not any(c.isalnum() for c in once)
    assert once
