"""`diagnose`: one new image, answered with the parts of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsco.cases import Case, ImageRef, Option, Task
from gsco.collaboration import (
    GENERALIST_ARMS,
    Answer,
    Collaboration,
    Evidence,
    Temperature,
    controls,
    get_template,
)
from gsco.embedded import cache_home
from gsco.errors import DatasetError, RunError
from gsco.evaluation.answering import calibrated
from gsco.evaluation.arm_words import fullest_arm
from gsco.evaluation.calibrating import read_calibrations
from gsco.evaluation.config import RunConfig
from gsco.evaluation.data import read_record
from gsco.evaluation.environment import set_threads
from gsco.evaluation.foreign import read_sign, warning
from gsco.evaluation.logline import kind_of
from gsco.evaluation.parsing import parse_option
from gsco.evaluation.parts import load_encoder
from gsco.evaluation.progress import Reporter, Silent
from gsco.evaluation.runfolder import RunFolder
from gsco.retrieval import Foreignness, Neighbour
from gsco.specialists import Opinion
from gsco.specialists.registry import safe_name

if TYPE_CHECKING:
    from gsco.generalist import Generalist

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
    """

    name: str
    kind: str
    choice: str | None
    probabilities: tuple[float, ...] | None
    reliability: float | None = None


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
        voices: the arm asked for, the generalist alone, the controls and each specialist.
        neighbours: the most similar known cases.
        disagreement: of the specialists, in [0, 1] (`Evidence.disagreement`); None with fewer than two.
        foreignness: how far the image is from all known cases.
        foreign: a warning where the image does not look like any of them; else None.
        word: why the answer is the generalist's own word, where the run calibrated others; else None.
        known_case: a warning where the image is, or nearly is, a case the parts were made from; else None.
        prompt: the exact prompt of the arm.
        raw: what the generalist wrote (``generate`` mode).
    """

    image: str
    arm: str
    generalist: str
    label: str | None
    options: tuple[Option, ...]
    probabilities: dict[str, float] | None
    uncalibrated: dict[str, float] | None
    voices: tuple[Voice, ...]
    neighbours: tuple[Neighbour, ...]
    disagreement: float | None
    foreignness: Foreignness | None
    foreign: str | None
    known_case: str | None
    word: str | None
    prompt: str | None
    raw: str | None

    @property
    def label_name(self) -> str:
        """The answer as a person reads it."""
        names = {option.key: option.name for option in self.options}
        return "no answer could be read" if self.label is None else names[self.label]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"schema": 1, "notice": NOTICE, "label_name": self.label_name, **asdict(self)}


def diagnose(
    image: Path | str,
    *,
    run: Path | str,
    arm: str | None = None,
    generalist: Generalist | str | None = None,
    cache: Path | None = None,
    progress: Reporter | None = None,
) -> Diagnosis:
    """Answer one new image with the specialists, the index and the generalist of a run.

    Research use only, not a medical device.

    Args:
        image: an image or DICOM file.
        run: the run folder whose parts are used.
        arm: ``generalist``, ``moed``, ``rad`` or ``gsco``; the fullest that the run asked when None.
        generalist: another one than the run's, then taken at its word: an object, or what
            `gsco.load_generalist` takes.
        cache: where features are kept; ``$GSCO_CACHE`` or ``~/.cache/gsco`` by default.
        progress: where progress goes; nowhere by default.

    Raises:
        ImageError: the image cannot be read.
        RunError: the folder holds no run, or one whose parts are not finished.
        ModelError: a part is damaged.
    """
    from gsco.cases import load_image

    if arm is not None and arm not in GENERALIST_ARMS:
        raise RunError(f"no arm {arm!r}", remedy=f"Choose one of: {', '.join(GENERALIST_ARMS)}.")
    ref = ImageRef(Path(image).expanduser())
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
        evidence = _evidence(folder, config, ref, cache_home(cache), vote)
    with say.stage("generalist"):
        model = _generalist(generalist or config.generalist)
        answers = Collaboration(model, get_template(config.template), config.mode, parse_option).answer(
            [case], task, [evidence], tuple(dict.fromkeys((arm, "generalist")))
        )
    best = str(chosen["best"])
    fits, asked = read_calibrations(folder), folder.read_json("generalist.json")
    fitted = asked is not None and asked["fingerprint"] == model.fingerprint
    if fitted:
        answers = [calibrated(each, fits) for each in answers]
    answer = answers[0]
    voices = [*answers, *controls(case, task, evidence, best=best)]
    return Diagnosis(
        image=str(image),
        arm=arm,
        generalist=model.name,
        label=answer.prediction,
        options=task.options,
        probabilities=answer.probabilities,
        uncalibrated=answer.uncalibrated,
        voices=tuple(_voice(said, evidence, best) for said in voices if said.arm != "best_specialist"),
        neighbours=evidence.neighbours,
        disagreement=evidence.disagreement(),
        foreignness=evidence.foreignness,
        foreign=warning(evidence.foreignness),
        known_case=_known(case, evidence, config, folder),
        word=_word(fits, arm, fitted=fitted),
        prompt=answer.prompt,
        raw=answer.raw,
    )


def _evidence(
    folder: RunFolder, config: RunConfig, ref: ImageRef, cache: Path, vote_reliability: float | None
) -> Evidence:
    from gsco.retrieval import CaseIndex, ForeignSign
    from gsco.specialists.features import extract
    from gsco.specialists.registry import load_specialist

    opinions = []
    for recipe in config.specialists:
        specialist = load_specialist(folder.specialists / safe_name(recipe), cache=cache)
        row = specialist.predict([ref])[0]
        opinions.append(Opinion(specialist.name, tuple(map(float, row)), specialist.reliability))
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


def _voice(answer: Answer, evidence: Evidence, best: str) -> Voice:
    name = answer.arm.removeprefix("specialist:")
    return Voice(
        name=name + (" (best)" if answer.arm == f"specialist:{best}" else ""),
        kind=kind_of(answer.arm),
        choice=answer.prediction,
        probabilities=None if answer.probabilities is None else tuple(answer.probabilities.values()),
        reliability=_reliability(answer.arm, evidence),
    )


def _reliability(arm: str, evidence: Evidence) -> float | None:
    if arm == "neighbour_vote":
        return evidence.neighbour_reliability
    return next((o.reliability for o in evidence.opinions if arm == f"specialist:{o.specialist}"), None)


def _word(fits: Mapping[str, Temperature], arm: str, *, fitted: bool) -> str | None:
    if not fits or (fitted and arm in fits):
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
