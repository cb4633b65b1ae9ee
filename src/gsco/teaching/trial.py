"""Does a generalist hear evidence, or copy it? A trial made for that question.

Every prompt asks about options whose true one is known, with evidence written for the occasion:

``unanimous_right``   four specialists agree on the true option
``one_of_four_wrong`` three say the true option, one is sure of another
``unseen_names``      evidence of able specialists and similar cases, option names from no training record
``neighbours_right``  no specialists; most similar cases carry the true option
``unanimous_wrong``   four specialists of stated low reliability agree on a wrong option, and the image is
                      there to be looked at: a copy is always wrong here (needs a dataset)

The first four use label sets from `UNSEEN`, half of the prompts with an image where a dataset is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gsco.cases import Case, Dataset, Option, Task
from gsco.collaboration import Evidence
from gsco.collaboration.templates import get_template
from gsco.errors import DatasetError
from gsco.generalist import Generalist, Request
from gsco.progress import Count
from gsco.retrieval import Neighbour
from gsco.specialists import Opinion
from gsco.teaching.simulate import simulate_evidence

UNSEEN: dict[str, tuple[str, ...]] = {
    "dermatoscopy": (
        "melanoma", "melanocytic naevus", "basal cell carcinoma", "actinic keratosis", "dermatofibroma",
        "vascular lesion", "seborrhoeic keratosis",
    ),
    "lung histopathology": (
        "adenocarcinoma", "squamous cell carcinoma", "benign lung tissue", "small cell carcinoma",
    ),
    "corneal photograph": ("keratoconus", "pterygium", "corneal ulcer", "arcus senilis", "clear cornea"),
    "capsule endoscopy": (
        "angiectasia", "lymphangiectasia", "erosion", "foreign body", "reduced view", "ileocaecal valve",
    ),
    "prostate MRI": ("PI-RADS 1", "PI-RADS 2", "PI-RADS 3", "PI-RADS 4", "PI-RADS 5"),
    "hip radiograph": (
        "dysplasia", "avascular necrosis", "femoral neck break", "prosthesis loosening", "coxa vara",
    ),
    "nailfold capillaroscopy": (
        "early scleroderma", "active scleroderma", "late scleroderma", "regular capillaries",
    ),
    "karyotype image": ("trisomy 21", "monosomy X", "translocation", "euploid"),
}  # fmt: skip
"""Label sets that stand in no training record (a test checks it)."""

MEANING = {
    "unanimous_right": "four specialists agree, rightly",
    "one_of_four_wrong": "one specialist of four is wrong",
    "unseen_names": "able specialists and similar cases, unseen option names",
    "neighbours_right": "similar cases only, most of them right",
    "unanimous_wrong": "four unreliable specialists agree, wrongly; the image is there",
}
CONDITIONS = tuple(MEANING)


@dataclass(frozen=True, slots=True)
class TrialItem:
    """One prompt of the trial, with what a copy of the evidence would answer."""

    condition: str
    request: Request
    truth: int
    copied: int


@dataclass(frozen=True, slots=True)
class TrialResult:
    """Outcome of one condition: how many prompts, the share answered truly, and that of a mere copy."""

    condition: str
    n: int
    accuracy: float
    copy_accuracy: float


def _opinion(
    rng: np.random.Generator,
    name: str,
    choice: int,
    n: int,
    reliability: float,
    confidence: tuple[float, float],
) -> Opinion:
    top = float(rng.uniform(*confidence))
    rest = rng.dirichlet(np.ones(n - 1)) * (1 - top) if n > 1 else np.empty(0)
    rest = np.minimum(rest, top * 0.9)  # the named option stays the most probable one
    p = np.insert(rest, choice, top)
    return Opinion(name, tuple((p / p.sum()).tolist()), reliability)


def _team(
    rng: np.random.Generator, choices: Sequence[int], n: int, reliability: tuple[float, float]
) -> tuple[Opinion, ...]:
    return tuple(
        _opinion(
            rng, f"specialist {i + 1}", c, n, float(rng.uniform(*reliability)), (max(0.5, 1.2 / n), 0.98)
        )
        for i, c in enumerate(choices)
    )


def _neighbours(rng: np.random.Generator, truth: int, keys: tuple[str, ...]) -> tuple[Neighbour, ...]:
    right = int(rng.integers(6, 11))
    others = [k for i, k in enumerate(keys) if i != truth]
    labels = [keys[truth]] * right + [str(rng.choice(others)) for _ in range(10 - right)]
    return tuple(
        Neighbour(f"case {i}", 0.9 - 0.01 * i, (label,), "trial", "trial")
        for i, label in enumerate(rng.permutation(labels).tolist())
    )


def _foreign_item(rng: np.random.Generator, condition: str, case: Case | None, template: str) -> TrialItem:
    modality = str(rng.choice(sorted(UNSEEN)))
    n = int(rng.integers(2, len(UNSEEN[modality]) + 1))
    names = [str(x) for x in rng.choice(UNSEEN[modality], size=n, replace=False)]
    task = Task("diagnosis", modality, tuple(Option(name, name) for name in names))
    truth = int(rng.integers(n))
    wrong = int(rng.choice([i for i in range(n) if i != truth]))
    if condition == "unanimous_right":
        evidence = Evidence(_team(rng, [truth] * 4, n, (0.6, 0.95)))
    elif condition == "one_of_four_wrong":
        choices = rng.permutation([truth, truth, truth, wrong]).tolist()
        evidence = Evidence(_team(rng, choices, n, (0.6, 0.95)))
    elif condition == "neighbours_right":
        evidence = Evidence((), _neighbours(rng, truth, task.keys), float(rng.uniform(0.6, 0.95)))
    else:
        evidence = simulate_evidence(rng, truth, task.keys, skill=(3.0, 5.0))
    prompt = get_template(template).render(task, evidence)
    copied = evidence.majority(n) if evidence.opinions else evidence.neighbour_choice(task.keys)
    request = Request(prompt.text, case.image if case else None, prompt.choices)
    return TrialItem(condition, request, truth, copied)


def _wrong_item(rng: np.random.Generator, dataset: Dataset, case: Case, template: str) -> TrialItem:
    task = dataset.task
    n = len(task.options)
    truth = task.index(case.labels[0])
    wrong = int(rng.choice([i for i in range(n) if i != truth]))
    chance = 1 / n
    evidence = Evidence(_team(rng, [wrong] * 4, n, (chance * 0.8, chance * 1.1)))
    prompt = get_template(template).render(task, evidence)
    return TrialItem("unanimous_wrong", Request(prompt.text, case.image, prompt.choices), truth, wrong)


def make_trial(
    *, n: int = 200, seed: int = 0, dataset: Dataset | None = None, template: str = "evidence"
) -> list[TrialItem]:
    """Draw `n` prompts of each condition; ``unanimous_wrong`` only with a dataset, from its test split."""
    rng = np.random.default_rng(seed)
    cases = dataset.split("test") if dataset is not None else ()
    if dataset is not None and (dataset.task.kind != "diagnosis" or not cases or not cases[0].labels):
        raise DatasetError(
            "is no diagnosis set with labelled test cases",
            where=str(dataset.root),
            remedy="Name one that is, or leave it out.",
        )
    items = []
    for condition in CONDITIONS[:-1]:
        for i in range(n):
            case = cases[int(rng.integers(len(cases)))] if cases and i % 2 else None
            items.append(_foreign_item(rng, condition, case, template))
    if dataset is not None:
        drawn = rng.integers(len(cases), size=n)
        items.extend(_wrong_item(rng, dataset, cases[int(i)], template) for i in drawn)
    return items


def run_trial(
    generalist: Generalist,
    items: Sequence[TrialItem],
    *,
    batch_size: int = 16,
    progress: Count | None = None,
) -> list[TrialResult]:
    """Ask a generalist every prompt by option scoring, and count."""
    chosen: list[int] = []
    for start in range(0, len(items), batch_size):
        part = items[start : start + batch_size]
        chosen += [score.choice for score in generalist.score_options([item.request for item in part])]
        if progress:
            progress(len(chosen), len(items))
    out = []
    for condition in CONDITIONS:
        rows = [i for i, item in enumerate(items) if item.condition == condition]
        if rows:
            right = sum(chosen[i] == items[i].truth for i in rows)
            copied = sum(items[i].copied == items[i].truth for i in rows)
            out.append(TrialResult(condition, len(rows), right / len(rows), copied / len(rows)))
    return out
