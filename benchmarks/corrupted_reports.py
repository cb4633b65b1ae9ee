"""Reports made wrong on purpose, out of true ones, to measure the filter by (`bootstrap_filter.py`).

Nothing here uses the filter's vocabulary or rules: a label is found by the stem of its `Spoken`, sides by
the words left and right alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gsco.bootstrapping.checks import Known
from gsco.cases.reports import Report, parse_report

KINDS = (
    "label_swapped",
    "report_swapped",
    "negated",
    "side_changed",
    "parts_contradict",
    "invented_fact",
    "truncated",
    "duplicate",
)


@dataclass(frozen=True, slots=True)
class Spoken:
    """How a label is found and said: a regular expression for its stems, and a plain phrase."""

    stem: str
    phrase: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A report with what is known about its image.

    Attributes:
        id: of the image.
        text: under its headings, as a generator would write it.
        report: its parts.
        known: true labels, positions, told facts.
        normal: whether the label says that there is nothing to be found.
        kind: of corruption; empty for a true one.
    """

    id: str
    text: str
    report: Report
    known: Known
    normal: bool
    kind: str = ""


@dataclass(frozen=True)
class Corrupter:
    """Makes one kind of wrong report out of a true one; the same seed gives the same report.

    Args:
        spoken: label → how it is said, for all labels but the normal one.
        normal: key of the label that says that there is nothing to be found.
        label_sets: sets of labels as they occur in the data, to claim for somebody else's report.
        others: true samples, of which a duplicate is taken.
        near: label → labels too near to it to be a swap.
    """

    spoken: Mapping[str, Spoken]
    normal: str
    label_sets: Sequence[tuple[str, ...]]
    others: Sequence[Sample]
    near: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seed: int = 0

    def corrupt(self, sample: Sample, kind: str) -> Sample | None:
        """The sample with one thing wrong, or None where this kind is not possible with it."""
        rng = random.Random(f"{self.seed}:{kind}:{sample.id}")
        makers: dict[str, Callable[[Sample, random.Random], Sample | None]] = {
            "label_swapped": self._label_swapped,
            "report_swapped": self._report_swapped,
            "negated": self._negated,
            "side_changed": self._side_changed,
            "parts_contradict": self._parts_contradict,
            "invented_fact": self._invented_fact,
            "truncated": self._truncated,
            "duplicate": self._duplicate,
        }
        made = makers[kind](sample, rng)
        return replace(made, kind=kind) if made is not None and made != sample else None

    def _foreign(self, sample: Sample, rng: random.Random) -> str:
        text = sample.text.lower()
        taken = {near for label in sample.known.labels for near in self.near.get(label, ())}
        free = [
            label
            for label, spoken in self.spoken.items()
            if label not in sample.known.labels
            and label not in taken
            and (sample.normal or not re.search(spoken.stem, text))
        ]
        return rng.choice(free or sorted(set(self.spoken) - set(sample.known.labels)))

    def _label_swapped(self, sample: Sample, rng: random.Random) -> Sample | None:
        phrase = self.spoken[self._foreign(sample, rng)].phrase
        if sample.normal:
            impression = rng.choice(
                ("{}.", "Findings consistent with {}.", "Mild {}.", "There is {}.")
            ).format(phrase)
            return _with(sample, sample.report.findings, impression[0].upper() + impression[1:])
        report = sample.report
        parts = [report.findings, report.impression]
        for label in sample.known.labels:
            stem = rf"(?i)\b\w*(?:{self.spoken[label].stem})\w*"
            parts = [re.sub(stem, phrase, part) for part in parts]
        return _with(sample, *parts) if parts[1] != report.impression else None

    def _report_swapped(self, sample: Sample, rng: random.Random) -> Sample | None:
        mine = set(sample.known.labels)
        near = mine | {n for label in mine for n in self.near.get(label, ())}
        text = sample.text.lower()
        free = [
            claimed
            for claimed in self.label_sets
            if not near & set(claimed)
            and not any(
                re.search(self.spoken[c].stem, text)
                for c in claimed
                if c in self.spoken and not sample.normal
            )
        ]
        if not free:
            return None
        return replace(sample, known=Known(rng.choice(free), {}, sample.known.facts))

    def _negated(self, sample: Sample, rng: random.Random) -> Sample | None:
        if sample.normal:
            turned = _unnegate(sample.report.impression)
            return _with(sample, sample.report.findings, turned) if turned else None
        impression = self._deny(sample.report.impression, sample.known.labels, rng)
        return _with(sample, sample.report.findings, impression) if impression else None

    def _deny(self, text: str, labels: Sequence[str], rng: random.Random) -> str | None:
        """Each sentence that names a label, denied; None where there is none."""
        out, touched = [], False
        for sentence in re.split(r"(?<=[.!?])\s+", text):
            named = [label for label in labels if re.search(self.spoken[label].stem, sentence.lower())]
            if not named:
                out.append(sentence)
                continue
            touched = True
            phrase = " or ".join(self.spoken[label].phrase for label in named)
            form = rng.choice(
                ("No {}.", "There is no evidence of {}.", "No {} is seen.", "Negative for {}.",
                 "{} is not identified.",
                 "No definite {} or other acute abnormality.", "Without {}.", "{} has resolved.")
            )  # fmt: skip
            said = form.format(phrase)
            out.append(said[0].upper() + said[1:])
        return " ".join(out) if touched else None

    def _side_changed(self, sample: Sample, rng: random.Random) -> Sample | None:
        """The other side in the impression, or in both parts; where the side is known and named there."""
        sides = {
            label: said
            for label, place in sample.known.positions.items()
            if len(said := {side for side in ("left", "right") if side in place.lower()}) == 1
            and "bilateral" not in place.lower()
        }
        for label, said in sides.items():
            side = next(iter(said))
            if any(
                side in sentence.lower() and re.search(self.spoken[label].stem, sentence.lower())
                and not re.search(r"\b(?:no|without|left and right|bilateral)\b", sentence.lower())
                and len(re.findall(r"\b(?:left|right)\b", sentence.lower())) == 1
                for sentence in re.split(r"(?<=[.!?])\s+", sample.report.impression)
            ):  # fmt: skip
                both = rng.random() < 0.5
                findings = _mirrored(sample.report.findings) if both else sample.report.findings
                return _with(sample, findings, _mirrored(sample.report.impression))
        return None

    def _parts_contradict(self, sample: Sample, rng: random.Random) -> Sample | None:
        if sample.normal:
            phrase = self.spoken[self._foreign(sample, rng)].phrase
            form = rng.choice(("There is {}.", "Mild {} is seen.", "{} is present on the left.", "Right {}."))
            said = form.format(phrase)
            added = f"{_stopped(sample.report.findings)} {said[0].upper()}{said[1:]}"
            return _with(sample, added, sample.report.impression)
        named = [
            label
            for label in sample.known.labels
            if re.search(self.spoken[label].stem, sample.report.impression.lower())
        ]
        findings = self._deny(sample.report.findings, named, rng)
        if findings is None and named:
            phrase = self.spoken[rng.choice(named)].phrase
            findings = f"{_stopped(sample.report.findings)} There is no {phrase}."
        return _with(sample, findings, sample.report.impression) if findings else None

    def _invented_fact(self, sample: Sample, rng: random.Random) -> Sample | None:
        age, day, month, year = (
            rng.randint(18, 92),
            rng.randint(1, 28),
            rng.randint(1, 12),
            rng.randint(2003, 2019),
        )
        size = f"{rng.randint(2, 40) / 10:.1f}"
        free = [
            (kind, text)
            for kind, text in (
                ("age", f"This is a {age}-year-old patient."),
                ("age", f"Patient aged {age} years."),
                ("sex", "The patient is a female."),
                ("sex", "Chest of an adult man."),
                ("name", rng.choice(("Mr. Smith", "Mrs. Jones", "Mr. Keller", "Mrs. Rossi")) + " knows."),
                ("name", f"Discussed with Dr. {rng.choice(('Miller', 'Lopez', 'Chen'))}."),
                ("date", f"Examination of {month:02d}/{day:02d}/{year}."),
                ("date", f"Acquired on {rng.choice(('March', 'June', 'October'))} {day}, {year}."),
                ("prior", f"Compared to the prior radiograph of {year}, there is improvement."),
                ("prior", "In comparison with the previous study there is no relevant change."),
                ("prior", "This has increased since the last examination."),
                ("measurement", f"The largest diameter is {size} cm."),
                ("measurement", f"It measures {rng.randint(4, 40)} x {rng.randint(4, 40)} mm."),
                ("history", "The patient presents with fever and cough."),
                ("history", "There is a history of smoking."),
            )
            if kind not in sample.known.facts
        ]  # fmt: skip
        text = rng.choice(free)[1]
        report = sample.report
        if rng.random() < 0.5:
            return _with(sample, f"{text} {report.findings}", report.impression)
        return _with(sample, report.findings, f"{_stopped(report.impression)} {text}")

    def _truncated(self, sample: Sample, rng: random.Random) -> Sample | None:
        words = sample.text.split(" ")
        keep = rng.randint(max(3, len(words) // 3), max(4, len(words) - 2))
        cut = " ".join(words[:keep]).rstrip(" .")
        if rng.random() < 0.5 and len(words[keep - 1]) > 4:
            cut = cut[: -rng.randint(1, 3)]
        return _from(sample, cut)

    def _duplicate(self, sample: Sample, rng: random.Random) -> Sample | None:
        """Another case's report of the same labels, one word in thirty changed."""
        mine = _places(sample.known)
        free = [other for other in self.others if other.id != sample.id and _places(other.known) == mine]
        if not free:
            return None
        words = rng.choice(free).text.split(" ")
        for _ in range(len(words) // 30):
            place = rng.randrange(1, len(words))
            if re.fullmatch(r"(?:the|is|are|a|of|within)", words[place]):
                words[place] = rng.choice(("the", "is", "of"))
        return replace(
            _from(sample, " ".join(words)), known=replace(sample.known, facts=frozenset(_ALL_FACTS))
        )


def _places(known: Known) -> dict[str, list[str]]:
    """Of each label the words that say where, in any order."""
    return {label: sorted(known.positions.get(label, "").split()) for label in known.labels}


_ALL_FACTS = ("age", "sex", "name", "date", "prior", "measurement", "history")


def sample_of(identity: str, report: Report, known: Known, *, normal: bool) -> Sample:
    """A true sample."""
    return Sample(identity, report.text, report, known, normal)


def _from(sample: Sample, text: str) -> Sample:
    return replace(sample, text=text, report=parse_report(text))


def _with(sample: Sample, findings: str, impression: str) -> Sample:
    report = Report(findings, impression)
    return replace(sample, text=report.text, report=report)


def _stopped(text: str) -> str:
    return text if re.search(r"[.!?]\s*$", text) else f"{text}."


def _mirrored(text: str) -> str:
    other = {"left": "right", "right": "left"}

    def turn(match: re.Match[str]) -> str:
        said = other[match.group().lower()]
        return said.capitalize() if match.group()[0].isupper() else said

    return re.sub(r"(?i)\b(?:left|right)\b", turn, text)


def _unnegate(text: str) -> str | None:
    """A normal impression turned round; None where none of the usual words is there."""
    turned = re.sub(
        r"(?i)\b(?:no|without|negative for)(?: (?:radiographic |definite )?evidence (?:of|for))? (?=\w)",
        "",
        text,
    )
    turned = re.sub(r"(?i)\b(?:normal|unremarkable)\b", "abnormal", turned)
    turned = re.sub(r"(?i)\bnegative\b", "positive", turned)
    turned = re.sub(r"(?i)\bclear lungs\b", "opacified lungs", turned)
    turned = re.sub(r"(?i)\blungs are clear\b", "lungs are not clear", turned)
    return turned if turned != text else None
