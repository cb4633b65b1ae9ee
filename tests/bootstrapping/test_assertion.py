"""Negation, doubt and sides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsco.bootstrapping.assertion import find_mentions
from gsco.bootstrapping.vocabulary import vocabulary_of

OPTIONS = ("Effusion", "Atelectasis", "Cardiomegaly", "Pneumonia", "Pneumothorax", "No Finding")
WORDS = vocabulary_of(OPTIONS)


def said(text: str) -> dict[str, str]:
    return {m.option: m.status for m in find_mentions(text, WORDS) if m.option in OPTIONS}


def sides(text: str) -> dict[str, frozenset[str]]:
    return {m.option: m.sides for m in find_mentions(text, WORDS) if m.option in OPTIONS}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Small pleural effusion.", "affirmed"),
        ("Findings consistent with effusion.", "affirmed"),
        ("No change in the effusion.", "affirmed"),
        ("No pneumothorax, but a small effusion.", "affirmed"),
        ("No pneumothorax. There is an effusion.", "affirmed"),
        ("No pneumothorax, there is an effusion.", "affirmed"),
        ("No evidence of focal consolidation, pneumothorax, or pleural effusion.", "denied"),
        ("Lungs are free of effusion.", "denied"),
        ("An effusion is not seen.", "denied"),
        ("Effusion: none.", "denied"),
        ("The effusion has resolved.", "denied"),
        ("Effusion is unlikely.", "denied"),
        ("Blunting may represent effusion.", "uncertain"),
        ("Effusion cannot be excluded.", "uncertain"),
        ("Cannot exclude effusion.", "uncertain"),
        ("Atelectasis versus effusion.", "uncertain"),
        ("Blunting suggestive of effusion.", "uncertain"),
        ("Question small right effusion.", "uncertain"),
        ("Opacities may be secondary to effusion.", "uncertain"),
        ("Effusion is less likely but not entirely excluded.", "uncertain"),
        ("CT could be done to identify a small effusion.", "uncertain"),
        ("Near-complete resolution of effusion.", "affirmed"),
        ("No acute abnormality, findings compatible with effusion.", "affirmed"),
    ],
)
def test_status(text: str, status: str) -> None:
    assert said(text)["Effusion"] == status


def test_a_heart_of_normal_size_is_no_cardiomegaly() -> None:
    assert said("The heart is normal in size.") == {"Cardiomegaly": "denied"}
    assert said("Heart size is mildly enlarged.") == {"Cardiomegaly": "affirmed"}


def test_one_clear_lung_says_nothing_of_the_other() -> None:
    assert said("The lungs are clear.") == {"Pneumonia": "denied"}
    assert said("The left lung is clear. The remainder of the lungs are clear.") == {}


def test_each_term_has_its_own_side() -> None:
    assert sides("Left pleural effusion and right basal atelectasis.") == {
        "Effusion": {"left"},
        "Atelectasis": {"right"},
    }
    assert sides("Effusion on the right.") == {"Effusion": {"right"}}
    assert sides("Bilateral effusions.") == {"Effusion": {"left", "right"}}
    assert sides("Left lower lobe scarring or atelectasis.") == {"Atelectasis": {"left"}}


@given(
    st.lists(
        st.sampled_from(["effusion", "pneumothorax", "atelectasis", "pneumonia"]), min_size=1, unique=True
    )
)
def test_a_denied_list_is_denied_to_its_end(terms: list[str]) -> None:
    assert set(said(f"There is no {', '.join(terms)}.").values()) == {"denied"}
    assert set(said(f"There is {', '.join(terms)}.").values()) == {"affirmed"}


@given(
    st.sampled_from(["left", "right"]),
    st.sampled_from(["{} effusion", "effusion on the {}", "Small {}-sided effusion"]),
)
def test_sides_mirror(side: str, form: str) -> None:
    other = {"left": "right", "right": "left"}[side]
    assert sides(form.format(side))["Effusion"] == {side}
    assert sides(form.format(other))["Effusion"] == {other}


@given(st.text())
def test_any_text_has_mentions_inside_it(text: str) -> None:
    for mention in find_mentions(text + " effusion", WORDS):
        assert 0 <= mention.start < mention.stop <= len(text) + len(" effusion")
