"""Answer parsing: a table of tricky answers, and what must hold for any text and any names."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gsco.evaluation.parsing import parse_option, parse_options

# A loaded machine is no failure.

TABLE = json.loads((Path(__file__).parent / "parsing_table.json").read_text(encoding="utf-8"))["rows"]


@pytest.mark.parametrize(("names", "text", "expected"), TABLE, ids=[repr(row[1])[:60] for row in TABLE])
def test_table(names: list[str], text: str, expected: str | None) -> None:
    position = parse_option(text, names)
    assert (None if position is None else names[position]) == expected


def test_letters_can_be_switched_off() -> None:
    assert parse_option("B", ["benign", "malignant"], letters=False) is None
    assert parse_option("Answer: B", ["benign", "malignant"], letters=False) is None
    assert parse_option("B. malignant", ["benign", "malignant"], letters=False) == 1


def test_none_is_unparsed() -> None:
    assert parse_option(None, ["benign"]) is None
    assert parse_options(None, ["benign"]) is None


FINDINGS = ["effusion", "pneumothorax", "nodule"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("effusion", (0,)),
        ("effusion, nodule", (0, 2)),
        ("Nodule and effusion.", (0, 2)),
        ("A, C", (0, 2)),
        ("A and C", (0, 2)),
        ("Answer: A, C", (0, 2)),
        ("(A) effusion (C) nodule", (0, 2)),
        ("effusion, no pneumothorax", (0,)),
        ("no effusion, pneumothorax or nodule", ()),
        ("no effusion", None),
        ("none", ()),
        ("None of the above.", ()),
        ("Answer: none", ()),
        ("effusion ... no effusion", None),
        ('{"labels": ["effusion", "nodule"]}', (0, 2)),
        ("cardiomegaly", None),
        ("", None),
    ],
)
def test_several_labels(text: str, expected: tuple[int, ...] | None) -> None:
    assert parse_options(text, FINDINGS) == expected


word = st.text(alphabet=st.characters(categories=("L", "Nd")), min_size=2, max_size=9)
name = st.lists(word, min_size=1, max_size=4).map(" ".join)


@given(st.lists(name, min_size=1, max_size=8, unique_by=lambda n: tuple(n.casefold().split())), st.data())
def test_a_name_alone_is_itself(names: list[str], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(names) - 1))
    assert parse_option(names[position], names) == position


ascii_word = st.text(alphabet=string.ascii_lowercase, min_size=2, max_size=9)
ascii_name = st.lists(ascii_word, min_size=1, max_size=4).map(" ".join)
padding = st.text(alphabet=" \t.!*\"'()[]-_:,;", max_size=4)


@given(
    st.lists(ascii_name, min_size=1, max_size=8, unique=True),
    padding,
    padding,
    st.sampled_from([str.upper, str.lower, str.title, str.swapcase]),
    st.data(),
)
def test_case_space_and_punctuation_change_nothing(names, before, after, recase, data) -> None:
    position = data.draw(st.integers(0, len(names) - 1))
    spoken = recase(names[position]).replace(" ", data.draw(st.sampled_from([" ", "  ", "-", "_", "\n"])))
    assert parse_option(before + spoken + after, names) == position
    assert parse_options(before + spoken + after, names) == (position,)


@given(st.text(max_size=300), st.lists(st.text(max_size=20), max_size=6), st.booleans())
def test_never_raises_and_stays_in_range(text: str, names: list[str], letters: bool) -> None:
    position = parse_option(text, names, letters=letters)
    assert position is None or 0 <= position < len(names)
    several = parse_options(text, names, letters=letters)
    assert several is None or all(0 <= p < len(names) for p in several)


clue = st.sampled_from(
    [
        "benign",
        "malignant",
        "not",
        "no",
        "or",
        ",",
        ".",
        "\n",
        "Answer:",
        "B",
        "(A)",
        "is",
        "?",
        "final answer",
        "a",
    ]
)


@given(st.lists(clue, max_size=14).map(" ".join))
def test_what_is_named_is_among_what_stands_there(text: str) -> None:
    position = parse_option(text, ["benign", "malignant"])
    assume(position is not None)
    letter = ("A", "B")[position]
    assert ("benign", "malignant")[position] in text or letter in text.upper().replace("(A)", "A").split()


@given(
    st.permutations(["benign", "malignant", "normal tissue", "fibrous mastopathy"]), st.sampled_from(TABLE)
)
def test_order_of_options_does_not_matter_without_letters(names: list[str], row: list) -> None:
    text = row[1]
    here = parse_option(text, names, letters=False)
    there = parse_option(text, sorted(names), letters=False)
    assert (here is None) == (there is None)
    if here is not None and there is not None:
        assert names[here] == sorted(names)[there]


def test_long_text_is_quick_enough_to_read() -> None:
    text = "no " * 4000 + "benign, " * 4000 + "answer: " * 500
    assert parse_option(text, ["benign", "malignant"]) in (None, 0)
