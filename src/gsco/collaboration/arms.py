"""Arms and controls: the ways to answer a case from the same evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, ImageRef, Task
from gsco.collaboration.answer import Answer, ShownCase
from gsco.collaboration.evidence import Evidence
from gsco.collaboration.templates import Template
from gsco.errors import ModelError, RequestsFailedError, RunError
from gsco.generalist import Example, Generalist, Request, takes_examples

STANDARD_ARMS: tuple[str, ...] = ("generalist", "moed", "rad", "gsco")
"""The published ones, which every generalist can answer."""

SHOWN_ARM = "rad_images"
"""``rad``, and the most similar known cases are shown, too, each as a question with its answer."""

GENERALIST_ARMS: tuple[str, ...] = (*STANDARD_ARMS, SHOWN_ARM)
CONTROLS: tuple[str, ...] = ("best_specialist", "majority_vote", "mean_probability", "neighbour_vote")
Mode = Literal["score", "generate"]


def restrict(evidence: Evidence, arm: str) -> Evidence:
    """The part of the evidence that an arm may hear; ValueError for an unknown arm."""
    if arm not in GENERALIST_ARMS:
        raise ValueError(f"{arm!r} is not one of {GENERALIST_ARMS}")
    similar = arm in ("rad", "gsco", SHOWN_ARM)
    return Evidence(
        opinions=evidence.opinions if arm in ("moed", "gsco") else (),
        neighbours=evidence.neighbours if similar else (),
        neighbour_reliability=evidence.neighbour_reliability if similar else None,
    )


def check_arms(arms: Sequence[str], generalist: Generalist) -> None:
    """Refuse an arm that a generalist cannot answer.

    Raises:
        ModelError: the similar cases are to be shown, and it takes one image only.
    """
    if SHOWN_ARM in arms and not takes_examples(generalist):
        raise ModelError(
            f"takes one image, arm {SHOWN_ARM} shows several",
            where=generalist.name,
            remedy="Leave the arm out, or take a model that reads several images.",
        )


@dataclass(frozen=True, slots=True)
class Collaboration:
    """Evidence + prompt template + generalist -> answers.

    Attributes:
        generalist: who makes the final call.
        template: how the evidence is put into words.
        mode: ``score`` (probability of each option; always a valid answer) or ``generate``
            (free text, read by `parse`).
        parse: free text and option names -> position of the option, or None when it cannot be read;
            needed for ``generate`` only.
        known_images: image of each case that the index holds, by its id; needed for ``rad_images`` only.
        examples: so many of the similar cases are shown there, at most.
    """

    generalist: Generalist
    template: Template
    mode: Mode = "score"
    parse: Callable[[str, Sequence[str]], int | None] | None = None
    known_images: Mapping[str, ImageRef] | None = None
    examples: int = 4

    def answer(
        self,
        cases: Sequence[Case],
        task: Task,
        evidence: Sequence[Evidence],
        arms: Sequence[str] = STANDARD_ARMS,
    ) -> list[Answer]:
        """Answer each case in each arm, all arms of a case one after the other.

        The order lets a generalist encode an image, and what the prompts share, once.

        Args:
            cases: n cases.
            task: a closed, single-label task.
            evidence: n pieces of evidence, aligned with `cases`.
            arms: which of `GENERALIST_ARMS`.

        Returns:
            n x len(arms) answers, by case, then by arm; one that the generalist failed to give says so.

        Raises:
            ModelError: see `check_arms`.
            RunError: a similar case that is to be shown is not among `known_images`.
        """
        check_arms(arms, self.generalist)
        if len(cases) != len(evidence):
            raise ValueError(f"{len(cases)} cases but {len(evidence)} pieces of evidence")
        keyed = [(case, arm) for case in cases for arm in arms]
        prompts = [self.template.render(task, restrict(known, arm)) for known in evidence for arm in arms]
        shown = [self._shown(task, known) if arm == SHOWN_ARM else () for known in evidence for arm in arms]
        requests = [
            Request(prompt.text, case.image, prompt.choices, examples=tuple(each.example for each in before))
            for (case, _), prompt, before in zip(keyed, prompts, shown, strict=True)
        ]
        ask = self.generalist.score_options if self.mode == "score" else self.generalist.generate
        if self.mode == "generate" and self.parse is None:
            raise ValueError("free generation needs a parser")
        said: Sequence[Any]  # scores or text, or None where the request failed
        reasons: Sequence[str | None] = [None] * len(requests)
        try:
            said = ask(requests)
        except RequestsFailedError as error:
            said, reasons = error.results, error.reasons
        answers = []
        for (case, arm), prompt, before, found, reason in zip(
            keyed, prompts, shown, said, reasons, strict=True
        ):
            if found is None:
                answer = self._answer(case, arm, prompt.text, task, None, None, None)
                answer = replace(answer, failed=reason or "no answer")
            elif isinstance(found, str):
                position = None if self.parse is None else self.parse(found, task.names)
                answer = self._answer(case, arm, prompt.text, task, position, None, found)
            else:
                p = found.probabilities
                answer = self._answer(case, arm, prompt.text, task, found.choice, p, None)
            answers.append(replace(answer, shown=before))
        return answers

    def _shown(self, task: Task, evidence: Evidence) -> tuple[ShownCase, ...]:
        """The most similar known cases as questions with answers, the most similar one last."""
        question = self.template.render(task, Evidence())
        out = []
        for neighbour in reversed(evidence.neighbours[: self.examples]):
            position = next((task.index(label) for label in neighbour.labels if label in task.keys), None)
            if position is None:
                continue
            image = (self.known_images or {}).get(neighbour.case_id)
            if image is None:
                raise RunError(
                    f"the image of the known case {neighbour.case_id} is not at hand",
                    remedy=f"Put the dataset back, or leave arm {SHOWN_ARM} out.",
                )
            out.append(
                ShownCase(neighbour.case_id, Example(question.text, image, question.choices[position]))
            )
        return tuple(out)

    def _answer(
        self,
        case: Case,
        arm: str,
        prompt: str,
        task: Task,
        position: int | None,
        probabilities: NDArray[np.float64] | None,
        raw: str | None,
    ) -> Answer:
        return Answer(
            case_id=case.id,
            arm=arm,
            prediction=None if position is None else task.keys[position],
            probabilities=_by_key(task, probabilities),
            prompt=prompt,
            raw=raw,
            template=self.template.name,
        )


def _by_key(task: Task, probabilities: NDArray[np.float64] | None) -> dict[str, float] | None:
    if probabilities is None:
        return None
    return {key: float(p) for key, p in zip(task.keys, probabilities, strict=True)}


def controls(case: Case, task: Task, evidence: Evidence, *, best: str | None = None) -> list[Answer]:
    """What the same evidence says without a generalist.

    Each specialist alone (``specialist:<name>``), the best one by validation, majority vote (ties to
    the higher mean probability; its probabilities are vote shares), mean probability, and the vote of
    the neighbours (ties to the larger summed similarity; its probabilities are vote shares).

    Args:
        case: the case.
        task: a closed, single-label task.
        evidence: opinions and neighbours of this case; a control without its evidence is left out.
        best: name of the specialist that was best on validation.
    """
    n = len(task.options)
    out: list[Answer] = []

    def add(arm: str, position: int, probabilities: NDArray[np.float64]) -> None:
        out.append(
            Answer(
                case_id=case.id,
                arm=arm,
                prediction=task.keys[position],
                probabilities=_by_key(task, probabilities),
            )
        )

    for opinion in evidence.opinions:
        add(f"specialist:{opinion.specialist}", opinion.choice, np.asarray(opinion.probabilities))
    for opinion in evidence.opinions:
        if opinion.specialist == best:
            add("best_specialist", opinion.choice, np.asarray(opinion.probabilities))
    if evidence.opinions:
        add("majority_vote", evidence.majority(n), evidence.votes(n) / len(evidence.opinions))
        mean = evidence.mean_probability()
        add("mean_probability", int(np.argmax(mean)), mean)
    if evidence.neighbours:
        votes = evidence.neighbour_votes(task.keys)
        if votes.sum():
            add("neighbour_vote", evidence.neighbour_choice(task.keys), votes / votes.sum())
    return out
