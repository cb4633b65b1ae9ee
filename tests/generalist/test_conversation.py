"""What a person hears of a generalist: an answer, without its loops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsco.generalist import Request
from gsco.generalist.conversation import LOOPED, Conversation, without_loop
from gsco.generalist.scripted import ScriptedGeneralist


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("A fine example of the fruit of the fruit of the fruit of the fr", "A fine example of the fruit"),
        ("The lung is clear. Bai-Bai-Bai-Bai-", "The lung is clear. Bai-"),
        ("no no no", "no"),
        ("One. Two. One. Two. One. Two.", "One. Two."),
    ],
)
def test_a_loop_is_said_once(said: str, kept: str) -> None:
    assert without_loop(said) == f"{kept} {LOOPED}"


@pytest.mark.parametrize(
    "said",
    ["", "no", "no no", "It is clear. It is clear.", "Wait ...", "| --- | --- |\n| 1 | 2 |", "1. 2. 3. 4."],
)
def test_what_is_no_loop_stays(said: str) -> None:
    assert without_loop(said) == said


@given(
    st.lists(st.sampled_from(["left", "right", "lung", "clear", "."]), max_size=8),
    st.lists(st.sampled_from(["a", "b", "c", ","]), min_size=1, max_size=6),
    st.integers(3, 40),
)
def test_however_often_it_is_said_it_ends_the_same(start: list[str], phrase: list[str], n: int) -> None:
    if not any(word.isalpha() for word in phrase):
        return
    three = without_loop(" ".join([*start, *phrase * 3]))
    assert three.endswith(LOOPED)
    assert without_loop(" ".join([*start, *phrase * n])) == three


def test_a_conversation_goes_on_from_what_was_shown() -> None:
    class Looping(ScriptedGeneralist):
        def generate(self, requests, *, max_new_tokens=64):  # type: ignore[no-untyped-def]
            heard.extend(requests)
            return ["of the fruit " * 50 for _ in requests]

    heard: list[Request] = []
    talk = Conversation(Looping(), None)
    assert talk.ask("What is it?") == f"of the fruit {LOOPED}"
    talk.ask("And now?")
    assert heard[1].history == (("What is it?", f"of the fruit {LOOPED}"),)
