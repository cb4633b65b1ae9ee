"""`diagnose`: one new image, answered with the parts of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsco.cases import Case, ImageRef, Option, Task
from gsco.cases.paths import expanded
from gsco.collaboration import (
    CALIBRATED,
    GENERALIST_ARMS,
    SHOWN_ARM,
    Answer,
    Arbiter,
    Collaboration,
    Evidence,
    Temperature,
    controls,
    get_template,
    voices_of,
)
from gsco.collaboration.pool import GENERALIST
from gsco.embedded import cache_home
from gsco.errors import DatasetError, ModelError, RunError
from gsco.evaluation.answering import answer_mode, calibrated
from gsco.evaluation.arm_words import fullest_arm
from gsco.evaluation.calibrating import read_calibrations
from gsco.evaluation.config import RunConfig
from gsco.evaluation.data import read_record
from gsco.evaluation.environment import set_threads
from gsco.evaluation.foreign import read_sign, warning
from gsco.evaluation.heatmaps import explainers
from gsco.evaluation.logline import kind_of
from gsco.evaluation.parsing import parse_option
from gsco.evaluation.parts import load_encoder
from gsco.evaluation.pooling import read_arbiter
from gsco.evaluation.progress import Reporter, Silent
from gsco.evaluation.runfolder import RunFolder
from gsco.retrieval import Foreignness, Neighbour
from gsco.specialists import opinion_of
from gsco.specialists.registry import safe_name

if TYPE_CHECKING:
    from gsco.generalist import Generalist
    from gsco.specialists import Specialist
    from gsco.specialists.heatmaps import Heatmap

NOTICE = "Research use only, not a medical device."
SAME_IMAGE = 0.985
"""Cosine similarity of pooled features from which an image counts as one that the index holds, where the
images themselves are gone. In public sets different patients stay below .98; copies lie above."""


@dataclass(frozen=True, slots=True)
class Voice:
    """What one of those asked says.

    Attributes:
        name: an arm, a control, or a specialist's name.
        kind: ``generalist``, ``specialist`` or ``control``.
        choice: option key; None where a free text could not be read.
        probabilities: in the options' order; None where there are none.
        reliability: balanced accuracy on validation, for specialists.
        trust: how often it is right on validation when it says this option, for specialists, where known.
        abstains: whether it would rather not answer; None for who always answers.
        weight: what it is worth in the pool, where the run has one and it is heard there.
    """

    name: str
    kind: str
    choice: str | None
    probabilities: tuple[float, ...] | None
    reliability: float | None = None
    trust: float | None = None
    abstains: bool | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The answer to one image and all that led to it. Research use only, not a medical device.

    Attributes:
        image: the file.
        arm: which arm answered.
        generalist: its name.
        label: option key of the answer; None where a free text could not be read.
        options: the closed options, in order.
        probabilities: option key → probability, calibrated as the run was; None in ``generate`` mode.
        uncalibrated: what the generalist said before that; None where nothing was calibrated.
        label_set: option keys of the conformal set of ``gsco_calibrated``, most probable first; None where
            the run has no such arm, or another generalist answers.
        coverage: share of cases whose set is to hold the true option; None without a set.
        abstains: whether ``gsco_calibrated`` would rather not answer; None likewise.
        voices: the arm asked for, ``gsco_calibrated``, the generalist alone, the controls, each specialist.
        neighbours: the most similar known cases.
        disagreement: of the specialists, in [0, 1] (`Evidence.disagreement`); None with fewer than two.
        foreignness: how far the image is from all known cases.
        foreign: a warning where the image does not look like any of them; else None.
        word: why the answer is the generalist's own word, where the run calibrated others; else None.
        known_case: a warning where the image is, or nearly is, a case the parts were made from; else None.
        prompt: the exact prompt of the arm.
        raw: what the generalist wrote (``generate`` mode).
        heatmaps: where the specialists looked, where that was asked for and they can tell.
    """

    image: str
    arm: str
    generalist: str
    label: str | None
    options: tuple[Option, ...]
    probabilities: dict[str, float] | None
    uncalibrated: dict[str, float] | None
    label_set: tuple[str, ...] | None
    coverage: float | None
    abstains: bool | None
    voices: tuple[Voice, ...]
    neighbours: tuple[Neighbour, ...]
    disagreement: float | None
    foreignness: Foreignness | None
    foreign: str | None
    known_case: str | None
    word: str | None
    prompt: str | None
    raw: str | None
    heatmaps: tuple[Heatmap, ...] = ()

    @property
    def label_name(self) -> str:
        """The answer as a person reads it."""
        names = {option.key: option.name for option in self.options}
        return "no answer could be read" if self.label is None else names[self.label]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        shown = asdict(replace(self, heatmaps=()))
        shown["heatmaps"] = [found.to_dict() for found in self.heatmaps]
        return {"schema": 1, "notice": NOTICE, "label_name": self.label_name, **shown}


def diagnose(
    image: Path | str,
    *,
    run: Path | str,
    arm: str | None = None,
    generalist: Generalist | str | None = None,
    heatmaps: bool = False,
    cache: Path | None = None,
    progress: Reporter | None = None,
) -> Diagnosis:
    """Answer one new image with the specialists, the index and the generalist of a run.

    Research use only, not a medical device.

    Args:
        image: an image or DICOM file.
        run: the run folder whose parts are used.
        arm: ``generalist``, ``moed``, ``rad``, ``gsco``, ``rad_images`` (where the generalist reads several
            images and the dataset is still there) or, where the run has it, ``gsco_calibrated``; the fullest
            that the run asked when None.
        generalist: another one than the run's, then taken at its word: an object, or what
            `gsco.load_generalist` takes.
        heatmaps: whether to draw where each specialist looked.
        cache: where features are kept; ``$GSCO_CACHE`` or ``~/.cache/gsco`` by default.
        progress: where progress goes; nowhere by default.

    Raises:
        ImageError: the image cannot be read.
        RunError: the folder holds no run, or one whose parts are not finished.
        ModelError: a part is damaged, or heat maps are asked for and no specialist has any.
    """
    from gsco.cases import load_image

    if arm is not None and arm not in (*GENERALIST_ARMS, CALIBRATED):
        known = ", ".join((*GENERALIST_ARMS, CALIBRATED))
        raise RunError(f"no arm {arm!r}", remedy=f"Choose one of: {known}.")
    ref = ImageRef(expanded(image))
    load_image(ref)  # a broken image is told before anything is loaded for it
    folder, say = RunFolder(Path(run)), progress or Silent()
    config = RunConfig.from_yaml(folder.config)
    arm = arm or fullest_arm(config.arms) or "gsco"
    record, chosen = read_record(folder), folder.read_json("specialists.json")
    if chosen is None or not folder.index.is_dir():
        raise RunError(
            "its parts are not finished",
            where=str(run),
            remedy=f"Continue it with `gsco run --resume {run}`.",
        )
    set_threads(config.threads)
    task = Task(
        record["task"]["kind"],
        record["task"]["modality"],
        tuple(Option(option["key"], option["name"]) for option in record["task"]["options"]),
    )
    case = Case(id=str(image), images=(ref,))
    with say.stage("specialists and similar cases"):
        vote = chosen.get("neighbours", {}).get("reliability")
        specialists = _specialists(folder, config, cache_home(cache))
        evidence = _evidence(folder, config, ref, cache_home(cache), specialists, vote)
    maps: tuple[Heatmap, ...] = ()
    if heatmaps:
        with say.stage("heat maps"):
            maps = tuple(each.explain(ref) for each in explainers(specialists, say, needed=True))
    with say.stage("generalist"):
        model = _generalist(generalist or config.generalist)
        fits, asked = read_calibrations(folder), folder.read_json("generalist.json")
        fitted = asked is not None and asked["fingerprint"] == model.fingerprint
        arbiter, heard = (read_arbiter(folder) if fitted else None) or (None, "generalist")
        if arm == CALIBRATED and arbiter is None:
            raise RunError(
                f"no arm {CALIBRATED} was fitted for this generalist",
                where=str(run),
                remedy=f"Resume the run (`gsco run --resume {run}`), or choose another --arm.",
            )
        wanted = dict.fromkeys(heard if each == CALIBRATED else each for each in (arm, heard, "generalist"))
        answers = Collaboration(
            model,
            get_template(config.template),
            answer_mode(config.mode, model),
            parse_option,
            known_images=_known_images(config) if SHOWN_ARM in wanted else None,
            examples=config.examples,
        ).answer([case], task, [evidence], tuple(wanted))
    failed = next((each.failed for each in answers if each.failed), None)
    if failed:
        raise ModelError(f"gives no answer ({failed})", where=model.name, remedy="Ask again.")
    best = str(chosen["best"])
    if fitted:
        answers = [calibrated(each, fits) for each in answers]
    pooled = None
    if arbiter is not None:
        scores = next(each.probabilities for each in answers if each.arm == heard) or {}
        said = voices_of(evidence, task.keys, tuple(scores.values()))
        pooled = arbiter.answer(case.id, task.keys, said)
    spoken = list(answers)
    if pooled is not None:
        spoken.insert(0 if arm == CALIBRATED else len(spoken), pooled)
    answer = spoken[0]
    voices = [*spoken, *controls(case, task, evidence, best=best)]
    weights = {} if arbiter is None else _weights(arbiter, heard)
    return Diagnosis(
        image=str(image),
        arm=arm,
        generalist=model.name,
        label=answer.prediction,
        options=task.options,
        probabilities=answer.probabilities,
        uncalibrated=answer.uncalibrated,
        label_set=None if pooled is None else pooled.label_set,
        coverage=None if arbiter is None else arbiter.sets.coverage,
        abstains=None if pooled is None else pooled.abstains,
        voices=tuple(
            _voice(each, evidence, best, weights) for each in voices if each.arm != "best_specialist"
        ),
        neighbours=evidence.neighbours,
        disagreement=evidence.disagreement(),
        foreignness=evidence.foreignness,
        foreign=warning(evidence.foreignness),
        known_case=_known(case, evidence, config, folder),
        word=_word(fits, arm, fitted=fitted),
        prompt=answers[0].prompt,
        raw=answers[0].raw,
        heatmaps=maps,
    )


def _known_images(config: RunConfig) -> dict[str, ImageRef]:
    """Images of the training cases; DatasetError where the data are gone."""
    from gsco.cases import load_dataset

    dataset = load_dataset(config.data, max_broken=1.0, seed=config.seed)
    return {case.id: case.image for case in dataset.split("train")}


def _weights(arbiter: Arbiter, heard: str) -> dict[str, float]:
    """Weight in the pool by arm: the generalist's is that of the arm which is heard there."""
    weights = dict(zip(arbiter.pool.voices, arbiter.pool.weights, strict=True))
    return {heard if voice == GENERALIST else voice: weight for voice, weight in weights.items()}


def _specialists(folder: RunFolder, config: RunConfig, cache: Path) -> list[Specialist]:
    from gsco.specialists.loading import load_specialist

    names = [safe_name(recipe) for recipe in config.specialists]
    return [load_specialist(folder.specialists / name, cache=cache, runtime="pytorch") for name in names]


def _evidence(
    folder: RunFolder,
    config: RunConfig,
    ref: ImageRef,
    cache: Path,
    specialists: Sequence[Specialist],
    vote_reliability: float | None,
) -> Evidence:
    from gsco.retrieval import CaseIndex, ForeignSign
    from gsco.specialists.features import extract

    opinions = [
        opinion_of(specialist, specialist.predict([ref])[0], specialist.options) for specialist in specialists
    ]
    encoder = load_encoder(config.backbone)
    index = CaseIndex.from_pretrained(folder.index, expect_encoder=encoder.fingerprint)
    features = extract(encoder, [ref], cache=cache)
    # a run of an earlier version judges by the known cases alone
    sign = read_sign(folder, index) or ForeignSign.fit(index)
    return Evidence(
        tuple(opinions),
        index.search(features, config.neighbours)[0],
        vote_reliability,
        sign.judge(index, features)[0],
    )


def _generalist(given: Generalist | str) -> Generalist:
    if not isinstance(given, str):
        return given
    from gsco.generalist import load_generalist

    return load_generalist(given)


def _voice(answer: Answer, evidence: Evidence, best: str, weights: Mapping[str, float]) -> Voice:
    opinion = next((o for o in evidence.opinions if answer.arm == f"specialist:{o.specialist}"), None)
    name = answer.arm.removeprefix("specialist:")
    return Voice(
        name=name + (" (best)" if answer.arm == f"specialist:{best}" else ""),
        kind=kind_of(answer.arm),
        choice=answer.prediction,
        probabilities=None if answer.probabilities is None else tuple(answer.probabilities.values()),
        reliability=evidence.neighbour_reliability
        if answer.arm == "neighbour_vote"
        else (None if opinion is None else opinion.reliability),
        trust=None if opinion is None else opinion.trust,
        abstains=answer.abstains if opinion is None else opinion.abstains,
        weight=weights.get(answer.arm),
    )


def _word(fits: Mapping[str, Temperature], arm: str, *, fitted: bool) -> str | None:
    if not fits or (fitted and arm in (*fits, CALIBRATED)):
        return None
    why = "the run did not ask this arm" if fitted else "the run calibrated another generalist"
    return f"Not calibrated: {why}."


def _known(case: Case, evidence: Evidence, config: RunConfig, folder: RunFolder) -> str | None:
    """A warning where one of the similar training cases looks like the very image that is asked about."""
    copy = _copied(case, evidence, config, folder)
    if copy is None:
        return None
    return (
        f"This image is, or nearly is, the training case {copy}: the parts have learned from it, "
        "so the answer says nothing about how well they would do."
    )


def _copied(case: Case, evidence: Evidence, config: RunConfig, folder: RunFolder) -> str | None:
    """Id of the training case: by pixels and thumbnails where the data are still there, else by features."""
    from gsco.cases import load_dataset
    from gsco.retrieval import check_leakage

    similar = {neighbour.case_id for neighbour in evidence.neighbours}
    # What was purged from the index cannot be found there, but the specialists may have learned from it.
    similar.update((folder.read_json("leakage.json") or {}).get("purged", ()))
    try:
        dataset = load_dataset(config.data, max_broken=1.0, seed=config.seed)
    except DatasetError:
        near = [n.case_id for n in evidence.neighbours if n.similarity >= SAME_IMAGE]
        return near[0] if near else None
    report = check_leakage([known for known in dataset.split("train") if known.id in similar], [case])
    pairs = (*report.pixels, *sorted(report.near_duplicates, key=lambda pair: -pair.correlation))
    return pairs[0].indexed if pairs else None
