"""Which cases the page shows, and what stands on each card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from gsco.evaluation.arm_words import arm_name, arm_rank, fullest_arm
from gsco.evaluation.foreign import percent_nearer
from gsco.evaluation.report.heat import Look, Stored, looks_at
from gsco.evaluation.report.thumbnails import LARGE, MEDIUM, SMALL, Thumbnail, data_uri, shrink
from gsco.evaluation.report.wording import number

SHOWN_NEIGHBOURS = 6
KINDS = ("repaired", "broken", "wrong")


@dataclass(frozen=True, slots=True)
class Voice:
    """One arm that gave an answer, with the probability it gave to it."""

    arm: str
    name: str
    probability: str


@dataclass(frozen=True, slots=True)
class AnswerGroup:
    """One answer and the arms that gave it."""

    answer: str
    right: bool
    parsed: bool
    voices: tuple[Voice, ...]


@dataclass(frozen=True, slots=True)
class OpinionRow:
    """One specialist's probabilities, as text and as percent for the bars."""

    name: str
    reliability: str
    cells: tuple[tuple[str, float, bool], ...]  # text, percent, highest?
    trust: str  # how often it is right on validation when it says this
    abstains: bool


@dataclass(frozen=True, slots=True)
class NeighbourItem:
    """One similar known case."""

    case_id: str
    label: str
    similarity: str
    agrees: bool
    picture: str | None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one arm was asked and what it said, word for word; known cases that it was shown, with answers."""

    name: str
    prompt: str
    raw: str | None
    shown: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """One case."""

    case_id: str
    reference: str
    tags: tuple[str, ...]
    answers: tuple[AnswerGroup, ...]
    opinions: tuple[OpinionRow, ...]
    neighbours: tuple[NeighbourItem, ...]
    neighbour_count: int
    neighbour_reliability: str
    index_version: str
    prompts: tuple[Prompt, ...]
    picture: str | None = None
    distance: str = ""
    foreign: bool = False
    disagreement: str = ""
    looks: tuple[Look, ...] = ()
    small_picture: str | None = None


@dataclass(slots=True)
class Cards:
    """The cards shown, and how many there were to show.

    Attributes:
        shown: the cards.
        total: cases where arms disagree.
        counts: of the cards shown, by tag, and ``all``.
        focus: the arm that tags speak of.
        mapped: cards with heat maps.
    """

    shown: list[Card] = field(default_factory=list)
    total: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    focus: str | None = None
    mapped: int = 0


class Pictures:
    """Pictures as data URIs, each asked for once."""

    def __init__(self, thumbnail: Thumbnail | None) -> None:
        self._thumbnail = thumbnail
        self._known: dict[tuple[str, int], str | None] = {}

    def get(self, ref: str | None, side: int) -> str | None:
        """A ``data:`` URI of at most `side` pixels, or None where there is no such picture."""
        if not ref or self._thumbnail is None:
            return None
        if (ref, side) not in self._known:
            content = self._thumbnail(ref)
            if content is not None and data_uri(content) is not None:
                content = shrink(content, side)
            self._known[ref, side] = data_uri(content) if content else None
        return self._known[ref, side]


def by_case(lines: Sequence[Mapping[str, Any]], split: str) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Lines of one split as case id → arm → line, sorted by case id."""
    cases: dict[str, dict[str, Mapping[str, Any]]] = {}
    for line in lines:
        if line.get("split") == split:
            cases.setdefault(str(line["case_id"]), {}).setdefault(str(line["arm"]), line)
    return dict(sorted(cases.items()))


def tags_of(answers: Mapping[str, Mapping[str, Any]], focus: str | None) -> tuple[str, ...]:
    """``wrong``, and ``repaired`` or ``broken`` against the specialists' majority."""
    mine = answers.get(focus or "")
    if mine is None:
        return ()
    right = mine["prediction"] == mine["reference"]
    majority = answers.get("majority_vote")
    tags = () if right else ("wrong",)
    if majority is None or mine["kind"] != "generalist":
        return tags
    before = majority["prediction"] == majority["reference"]
    if right and not before:
        return ("repaired", *tags)
    return ("broken", *tags) if before and not right else tags


def disagreements(
    lines: Sequence[Mapping[str, Any]], split: str
) -> tuple[dict[str, tuple[str, ...]], str | None]:
    """Cases where arms disagree, single specialists apart, with their tags; and the arm that tags speak of.

    Repaired and broken cases come first, in turn, then other wrong ones.
    """
    cases = by_case(lines, split)
    focus = fullest_arm(sorted({arm for answers in cases.values() for arm in answers}))
    piles: dict[str, list[str]] = {"repaired": [], "broken": [], "wrong": [], "other": []}
    tagged: dict[str, tuple[str, ...]] = {}
    for case_id, answers in cases.items():
        said = {line["prediction"] for arm, line in answers.items() if not arm.startswith("specialist:")}
        if len(said) < 2:
            continue
        tagged[case_id] = tags_of(answers, focus)
        piles[tagged[case_id][0] if tagged[case_id] else "other"].append(case_id)
    pairs = zip_longest(piles["repaired"], piles["broken"])
    order = [case_id for pair in pairs for case_id in pair if case_id is not None]
    return {case_id: tagged[case_id] for case_id in [*order, *piles["wrong"], *piles["other"]]}, focus


def make_cards(
    lines: Sequence[Mapping[str, Any]],
    *,
    split: str,
    options: Sequence[Mapping[str, str]],
    images: Mapping[str, str],
    thumbnail: Thumbnail | None,
    limit: int,
    stored: Stored | None = None,
) -> Cards:
    """Cards of the first cases of `disagreements`.

    Args:
        lines: parsed lines of ``cases.jsonl``.
        split: the split that was evaluated.
        options: the closed options, ``{"key", "name"}``.
        images: image reference of known cases, for pictures of neighbours.
        thumbnail: gives the encoded picture of an image reference.
        limit: most cards to make.
        stored: gives the heat map of a case and specialist, where the run has one.
    """
    cases = by_case(lines, split)
    tagged, focus = disagreements(lines, split)
    names = {option["key"]: option["name"] for option in options}
    pictures = Pictures(thumbnail)
    shown = [
        _card(case_id, cases[case_id], tagged[case_id], names, images, pictures, focus, stored)
        for case_id in list(tagged)[:limit]
    ]
    counts = {kind: sum(kind in card.tags for card in shown) for kind in KINDS}
    mapped = sum(bool(card.looks and card.small_picture) for card in shown)
    return Cards(shown, len(tagged), {"all": len(shown), **counts}, focus, mapped)


def _card(
    case_id: str,
    answers: Mapping[str, Mapping[str, Any]],
    tags: tuple[str, ...],
    names: Mapping[str, str],
    images: Mapping[str, str],
    pictures: Pictures,
    focus: str | None,
    stored: Stored | None,
) -> Card:
    arms = sorted((arm for arm in answers if not arm.startswith("specialist:")), key=arm_rank)
    some = answers.get(focus or "") or answers[arms[0]]
    reference = some["reference"]
    told = next((answers[arm]["evidence"] for arm in arms if answers[arm].get("evidence")), None) or {}
    looks = looks_at(case_id, told.get("opinions") or [], names, stored)
    neighbours, reliability = told.get("neighbours") or [], told.get("neighbour_reliability")
    foreign, disagreement = told.get("foreignness"), told.get("disagreement")
    return Card(
        case_id=case_id,
        reference=names.get(reference, reference),
        tags=tags,
        answers=_groups([answers[arm] for arm in arms], names),
        opinions=tuple(_opinion(opinion) for opinion in told.get("opinions") or []),
        neighbours=tuple(
            NeighbourItem(
                case_id=str(n["case_id"]),
                label=", ".join(names.get(key, key) for key in n["labels"]) or "no label",
                similarity=number(n["similarity"], 2),
                agrees=reference in n["labels"],
                picture=pictures.get(images.get(str(n["case_id"])), SMALL),
            )
            for n in neighbours[:SHOWN_NEIGHBOURS]
        ),
        neighbour_count=len(neighbours),
        neighbour_reliability="" if reliability is None else number(reliability, 2),
        index_version=str(neighbours[0].get("index_version") or "") if neighbours else "",
        prompts=tuple(
            Prompt(
                arm_name(arm),
                str(answers[arm]["prompt"]),
                answers[arm].get("raw"),
                tuple((s["case_id"], s["answer"]) for s in answers[arm].get("shown") or ()),
            )
            for arm in arms
            if answers[arm].get("prompt")
        ),
        picture=pictures.get(some.get("image"), LARGE),
        distance="" if foreign is None else percent_nearer(foreign["nearer"]),
        foreign=foreign is not None and bool(foreign["is_foreign"]),
        disagreement="" if disagreement is None else number(disagreement, 2),
        looks=looks,
        small_picture=pictures.get(some.get("image"), MEDIUM) if looks else None,
    )


def _groups(lines: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> tuple[AnswerGroup, ...]:
    """Arms by what they answered: the right answer first, then by number of arms, the unparsed last."""
    said: dict[str | None, list[Voice]] = {}
    for line in lines:
        p = (line.get("probabilities") or {}).get(line["prediction"])
        sure = "" if p is None else number(p, 2) + (", would abstain" if line.get("abstains") else "")
        voice = Voice(line["arm"], arm_name(line["arm"]), "request failed" if line.get("failed") else sure)
        said.setdefault(line["prediction"], []).append(voice)
    reference = lines[0]["reference"]
    order = sorted(said, key=lambda key: (key != reference, key is None, -len(said[key]), str(key)))
    return tuple(
        AnswerGroup(
            "no answer could be read" if key is None else names.get(key, key),
            key == reference,
            key is not None,
            tuple(said[key]),
        )
        for key in order
    )


def _opinion(opinion: Mapping[str, Any]) -> OpinionRow:
    p = [float(x) for x in opinion["probabilities"]]
    best = max(range(len(p)), key=lambda i: p[i]) if p else -1
    reliability, shares = opinion.get("reliability"), opinion.get("class_reliability")
    return OpinionRow(
        name=str(opinion["specialist"]),
        reliability="" if reliability is None else number(reliability, 2),
        cells=tuple(
            (number(x, 2), round(100 * min(1.0, max(0.0, x)), 1), i == best) for i, x in enumerate(p)
        ),
        trust=number(shares[best], 2) if shares else "",
        abstains=bool(opinion.get("abstains")),
    )
