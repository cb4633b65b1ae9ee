"""Readable names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsco.cases import Option
from gsco.cases.names import CATALOGUE, known_set, make_options, prettify
from gsco.errors import LabelError


def test_prettify() -> None:
    assert prettify("lung_squamous_cell_carcinoma") == "lung squamous cell carcinoma"
    assert prettify("  a__b  c ") == "a b c"
    assert prettify("COVID-19") == "COVID-19"
    assert prettify("_") == "_"


@pytest.mark.parametrize("name", ["busi", "BUSI", "Busi-small", "busi_256"])
def test_known_sets_are_found_by_name(name: str) -> None:
    assert known_set(name) is CATALOGUE["busi"]


@pytest.mark.parametrize("name", ["busier", "my_busi", "", "ham"])
def test_other_names_are_not_known(name: str) -> None:
    assert known_set(name) is None


@pytest.mark.parametrize("name", CATALOGUE)
def test_catalogue_entries(name: str) -> None:
    entry = CATALOGUE[name]
    assert known_set(name) is entry
    assert entry.modality and entry.licence and entry.source
    assert len(set(entry.names.values())) == len(entry.names)
    assert not any("_" in readable for readable in entry.names.values())


def test_colliding_names_fall_back_to_keys() -> None:
    assert make_options(["a_b", "a b", "c_d"]) == (
        Option("a_b", "a_b"),
        Option("a b", "a b"),
        Option("c_d", "c d"),
    )


@pytest.mark.parametrize("pair", [("Benign", "benign"), ("tumour", " tumour"), ("ﬁbroma", "fibroma")])
def test_labels_that_differ_by_a_slip_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(LabelError, match="Write each label in one way"):
        make_options(pair)


def test_a_set_of_ones_own_has_not_the_origin_of_its_namesake() -> None:
    assert known_set("busi_hospital") is known_set("busi")
    assert known_set("busi_hospital", exact=True) is None
    assert known_set("BUSI", exact=True) is not None


keys = st.lists(st.text("ab_ ", min_size=1, max_size=4), unique=True, max_size=6)


@given(keys, st.dictionaries(st.text("ab_ ", min_size=1, max_size=4), st.text("ab_ ", max_size=3)))
def test_names_are_unique_and_keys_untouched(keys: list[str], names: dict[str, str]) -> None:
    if len({key.strip() for key in keys}) < len(keys):
        with pytest.raises(LabelError, match="differ by"):
            make_options(keys, names)
        return
    options = make_options(keys, names)
    assert [option.key for option in options] == keys
    assert len({option.name for option in options}) == len(keys)
    assert all(option.name for option in options)
