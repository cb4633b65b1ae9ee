"""Prompts say what the evidence holds, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsco.cases import Case, ImageRef, Option, Task
from gsco.collaboration import (
    SHOWN_ARM,
    STANDARD_ARMS,
    TEMPLATES,
    Collaboration,
    Evidence,
    controls,
    get_template,
    restrict,
)
from gsco.errors import ModelError, RunError, UserError
from gsco.generalist import OptionScores, Request
from gsco.generalist.scripted import ScriptedGeneralist
from gsco.retrieval import Neighbour
from gsco.specialists import Opinion

TASK = Task(
    "diagnosis", "breast ultrasound", (Option("b", "benign"), Option("m", "malignant"), Option("n", "normal"))
)
EVIDENCE = Evidence(
    (
        Opinion("knn", (0.6, 0.3, 0.1), 0.74),
        Opinion("linear_probe", (0.2, 0.7, 0.1), 0.8),
        Opinion("cnn", (0.5, 0.4, 0.1), None),
    ),
    tuple(
        Neighbour(f"c{i}", 0.9 - i / 10, (label,), "busi", "v")
        for i, label in enumerate(["m", "m", "b", "m"])
    ),
    neighbour_reliability=0.664,
)
CASE = Case("x.png", (ImageRef(Path("x.png")),), ("m",), "test")


def test_paper_template_word_for_word() -> None:
    prompt = get_template("paper").render(TASK, EVIDENCE)
    assert prompt.choices == ("benign", "malignant", "normal")
    assert prompt.text == (
        "You are a helpful medical assistant.\n"
        "Your task is disease diagnosis.\n"
        "The image modality is breast ultrasound.\n"
        "The possible diagnoses are: benign, malignant, normal.\n"
        "The most similar known cases were diagnosed as: malignant, malignant, benign, malignant.\n"
        "The specialist models diagnose this image as: benign, malignant, benign.\n"
        "Answer with exactly one of the possible diagnoses."
    )


def test_evidence_template_word_for_word() -> None:
    prompt = get_template("evidence").render(TASK, EVIDENCE)
    assert prompt.choices == ("benign", "malignant", "normal")
    assert prompt.text == (
        "Diagnose this image (breast ultrasound).\n"
        "Options:\n"
        "- benign\n"
        "- malignant\n"
        "- normal\n"
        "Most similar known cases (reliability 66%), share of 4: malignant 75%, benign 25%.\n"
        "Specialists (reliability): benign (74%), malignant (80%), benign. They disagree.\n"
        "Specialists' mean probability: malignant 47%, benign 43%, normal 10%.\n"
        "Answer with one option."
    )
    unjudged = get_template("evidence").render(TASK, replace(EVIDENCE, neighbour_reliability=None))
    assert "\nMost similar known cases, share of 4: malignant 75%" in unjudged.text
    alone = get_template("evidence").render(TASK, Evidence())
    assert alone.text == (
        "Diagnose this image (breast ultrasound).\n"
        "Options:\n- benign\n- malignant\n- normal\nAnswer with one option."
    )


def test_letters_template_word_for_word() -> None:
    prompt = get_template("letters").render(TASK, EVIDENCE)
    assert prompt.choices == ("A", "B", "C")
    assert prompt.text == (
        "Diagnose this image (breast ultrasound).\n"
        "Options:\n"
        "A. benign\n"
        "B. malignant\n"
        "C. normal\n"
        "Most similar known cases (reliability 66%), share of 4: B 75%, A 25%.\n"
        "Specialists (reliability): A (74%), B (80%), A. They disagree.\n"
        "Specialists' mean probability: B 47%, A 43%, C 10%.\n"
        "Answer with one letter."
    )


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_an_arm_hears_only_its_evidence(name: str) -> None:
    template = get_template(name)
    said = {arm: template.render(TASK, restrict(EVIDENCE, arm)).text.lower() for arm in STANDARD_ARMS}
    assert len(set(said.values())) == 4
    for arm, text in said.items():
        assert ("specialist" in text) == (arm in ("moed", "gsco"))
        assert ("similar" in text) == (arm in ("rad", "gsco"))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="evidence, letters, paper"):
        get_template("papre")
    with pytest.raises(ValueError, match="gsco2"):
        restrict(EVIDENCE, "gsco2")
    with pytest.raises(ValueError, match="2 probabilities for 3 options"):
        get_template("paper").render(TASK, Evidence((Opinion("x", (0.5, 0.5)),)))


def test_controls() -> None:
    by_arm = {a.arm: a for a in controls(CASE, TASK, EVIDENCE, best="linear_probe")}
    assert by_arm["majority_vote"].prediction == "b"
    assert by_arm["mean_probability"].prediction == "m"
    assert by_arm["neighbour_vote"].prediction == "m"
    assert by_arm["best_specialist"].prediction == by_arm["specialist:linear_probe"].prediction == "m"
    assert by_arm["neighbour_vote"].probabilities == {"b": 0.25, "m": 0.75, "n": 0.0}
    assert all(sum((a.probabilities or {}).values()) == pytest.approx(1) for a in by_arm.values())
    assert [a.arm for a in controls(CASE, TASK, Evidence())] == []


def test_a_tied_vote_goes_to_the_higher_mean_probability() -> None:
    tied = Evidence((Opinion("a", (0.6, 0.4, 0.0)), Opinion("b", (0.1, 0.9, 0.0))))
    assert tied.votes(3).tolist() == [1, 1, 0]
    assert tied.majority(3) == 1


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=1, max_size=6))
def test_mean_probability_is_a_distribution(rows: list[list[float]]) -> None:
    evidence = Evidence(tuple(Opinion(str(i), tuple(x / sum(r) for x in r)) for i, r in enumerate(rows)))
    mean = evidence.mean_probability()
    assert mean.sum() == pytest.approx(1)
    assert evidence.votes(3).sum() == len(rows)


class _Listening(ScriptedGeneralist):
    """Keeps the requests it was given, in order."""

    def __init__(self) -> None:
        super().__init__("percent")
        self.heard: list[Request] = []

    def score_options(self, requests):  # type: ignore[no-untyped-def]
        self.heard += requests
        result: list[OptionScores] = super().score_options(requests)
        return result


def test_all_arms_of_an_image_are_asked_together() -> None:
    listening = _Listening()
    other = Case("y.png", (ImageRef(Path("y.png")),), ("b",), "test")
    answers = Collaboration(listening, get_template("evidence")).answer(
        [CASE, other], TASK, [EVIDENCE, EVIDENCE]
    )
    assert [r.image for r in listening.heard] == [CASE.image] * 4 + [other.image] * 4
    assert [(a.case_id, a.arm) for a in answers] == [
        (c, arm) for c in ("x.png", "y.png") for arm in STANDARD_ARMS
    ]
    assert next(a for a in answers if a.arm == "gsco").prediction == "m"
    assert all(
        a.probabilities is not None and sum(a.probabilities.values()) == pytest.approx(1) for a in answers
    )


def test_similar_cases_are_shown_before_the_question() -> None:
    listening = _Listening()
    known = {f"c{i}": ImageRef(Path(f"known/{i}.png")) for i in range(4)}
    collaboration = Collaboration(listening, get_template("letters"), known_images=known, examples=3)
    answers = collaboration.answer([CASE], TASK, [EVIDENCE], arms=["rad", SHOWN_ARM])
    plain, shown = listening.heard
    assert (plain.prompt, plain.image, plain.examples) == (shown.prompt, shown.image, ())
    alone = get_template("letters").render(TASK, Evidence())
    # the most similar one stands next to the question
    assert [(e.image, e.prompt, e.answer) for e in shown.examples] == [
        (known[f"c{i}"], alone.text, letter) for i, letter in [(2, "A"), (1, "B"), (0, "B")]
    ]
    assert shown.images == (known["c2"], known["c1"], known["c0"], CASE.image)
    assert [case.case_id for case in answers[1].shown] == ["c2", "c1", "c0"]
    assert answers[0].shown == ()


def test_cases_that_cannot_be_shown_are_refused() -> None:
    class OneImage(ScriptedGeneralist):
        takes_examples = False

    with pytest.raises(ModelError, match="scripted:first: takes one image, arm rad_images shows several"):
        Collaboration(OneImage("first"), get_template("paper"), known_images={}).answer(
            [CASE], TASK, [EVIDENCE], arms=[SHOWN_ARM]
        )
    with pytest.raises(RunError, match="image of the known case c3 is not at hand"):
        Collaboration(ScriptedGeneralist("first"), get_template("paper")).answer(
            [CASE], TASK, [EVIDENCE], arms=[SHOWN_ARM]
        )


def test_free_generation_is_parsed_or_counted_as_unparsed() -> None:
    collaboration = Collaboration(
        ScriptedGeneralist("first"), get_template("paper"), mode="generate", parse=lambda text, names: None
    )
    (answer,) = collaboration.answer([CASE], TASK, [EVIDENCE], arms=["gsco"])
    assert answer.prediction is None
    assert answer.raw == "Answer: benign"
    with pytest.raises(ValueError, match="parser"):
        Collaboration(ScriptedGeneralist("first"), get_template("paper"), mode="generate").answer(
            [CASE], TASK, [EVIDENCE]
        )
