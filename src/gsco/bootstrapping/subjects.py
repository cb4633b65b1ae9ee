"""The images that a round reports, what is told and known of each, and what the round is made with."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gsco.bootstrapping.checks import Known
from gsco.bootstrapping.prompts import Told, check_template
from gsco.bootstrapping.vocabulary import Vocabulary, vocabulary
from gsco.cases.case import Case, Dataset, Option, Split, Task
from gsco.errors import DatasetError, UserError

POSITION_COLUMNS = ("position", "finding_side")
_NOTHING = Option("no finding", "no finding")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a round is made with.

    Attributes:
        generalists: how each generator is named to `gsco.generalist.load_generalist`.
        template: of the prompts.
        drafts: prompts of each generator for each image, differently worded.
        agreement: generators that must say the same (drafts, where there is one generator).
        keep: accepted reports of one image.
        seed: of the wording, and of what is drawn.
        temperature: of drawing the drafts' words (`gsco.generalist.Sampling`); 0 writes the most probable.
        split: whose cases; reports of test cases would teach what is to be tested.
        limit: at most so many images, spread over the labels.
        max_new_tokens: of one report.
        position_column: column of ``labels.csv`` with the finding's place.
        keep_copies: report images, too, that (nearly) copy one of a later split.
    """

    generalists: tuple[str, ...]
    template: str = "guided"
    drafts: int = 1
    agreement: int = 1
    keep: int = 1
    seed: int = 0
    temperature: float = 0.0
    split: Split = "train"
    limit: int | None = None
    max_new_tokens: int = 192
    position_column: str | None = None
    keep_copies: bool = False

    def __post_init__(self) -> None:
        check_template(self.template)
        voices = len(set(self.generalists)) if len(self.generalists) > 1 else self.drafts
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature:g}", remedy="0 is greedy; 0.7 is usual.")
        if not self.generalists:
            raise UserError("no generator", remedy="Name one: --generalist nano.")
        if len(set(self.generalists)) < len(self.generalists):
            raise UserError("a generator is named twice", remedy="Use --drafts for several drafts of one.")
        if not 1 <= self.agreement <= voices:
            raise UserError(
                f"agreement of {self.agreement} among {voices} cannot be reached",
                remedy="Name more generators, ask for more --drafts, or lower --agreement.",
            )


@dataclass(frozen=True, slots=True)
class Subject:
    """An image to be reported, with what is told and known of it."""

    case: Case
    told: Told
    known: Known


def subjects(
    dataset: Dataset, settings: Settings, *, without: Collection[str] = ()
) -> tuple[list[Subject], Vocabulary, int]:
    """The images of a round, the words of the task, and how many cases were left out for want of a label.

    Args:
        dataset: labelled images.
        settings: of the round.
        without: ids of cases to leave out.

    Raises:
        DatasetError: the data are no diagnosis task, or no case of the split has a label and may stay.
    """
    if dataset.task.kind != "diagnosis" or not dataset.task.options:
        raise DatasetError(
            f"is a {dataset.task.kind!r} task; bootstrapping needs labels",
            where=str(dataset.root),
            remedy="Give a dataset with labels.csv, or task=diagnosis.",
        )
    task, multi = dataset.task, dataset.task.multi_label
    words = vocabulary(task)
    if multi and not any(option.normal for option in words.options):
        task = Task(task.kind, task.modality, (*task.options, _NOTHING), True)
        words = vocabulary(task)
    normal = next((option.key for option in words.options if option.normal), None)
    columns = (settings.position_column,) if settings.position_column else POSITION_COLUMNS
    out, unlabelled = [], 0
    for case in dataset.split(settings.split):
        if case.id in without:
            continue
        labels = case.labels or ((normal,) if multi and normal else ())
        if not labels:
            unlabelled += 1
            continue
        terms = [words.of(key) for key in labels]
        place = next((case.extra[c] for c in columns if case.extra.get(c)), "")
        here = {labels[0]: place} if place and len(labels) == 1 and not terms[0].normal else {}
        told = Told(
            task.modality,
            tuple(term.name for term in terms),
            {words.of(key).name: where for key, where in here.items()},
            all(term.normal for term in terms),
        )
        out.append(Subject(case, told, Known(tuple(labels), here)))
    if not out:
        besides = " but copies of cases of later splits" if without else ""
        raise DatasetError(f"has no labelled {settings.split} case{besides}", where=str(dataset.root))
    return _limited(out, settings.limit), words, unlabelled


def _limited(found: list[Subject], limit: int | None) -> list[Subject]:
    """The first `limit` cases in turn of their labels, in their old order."""
    if limit is None or limit >= len(found):
        return found
    queues: dict[tuple[str, ...], list[int]] = {}
    for place, subject in enumerate(found):
        queues.setdefault(subject.known.labels, []).append(place)
    taken: list[int] = []
    while len(taken) < limit:
        for queue in queues.values():
            if queue and len(taken) < limit:
                taken.append(queue.pop(0))
    return [found[place] for place in sorted(taken)]
