"""The filter: is this report a fair one for this image's label? Each check is a small function with a code.

A check sees the report, what is known about the image, and the words of the task; it returns what is wrong in
a few words, or None. The published filter is unknown; these rules are this project's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from gsco.bootstrapping.assertion import Mention, find_mentions, sentences, status_at
from gsco.bootstrapping.facts import PLACEHOLDER, find_facts
from gsco.bootstrapping.sides import disagree, sides_in
from gsco.bootstrapping.vocabulary import NORMAL_ACUTE, NORMAL_PART, NORMAL_WHOLE, OptionTerms, Vocabulary
from gsco.cases.reports import Report

SHORTEST, LONGEST = 6, 300
"""Words in both parts together."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about an image, and was told to whoever wrote the report.

    Attributes:
        labels: keys of the true options.
        positions: option key → where it is ("left lower lobe"), as far as known.
        facts: kinds of `gsco.bootstrapping.facts.KINDS` that were told and may be stated.
    """

    labels: tuple[str, ...]
    positions: Mapping[str, str] = field(default_factory=dict)
    facts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reading:
    """A report as the checks see it: its parts and their mentions of the options."""

    report: Report
    words: Vocabulary
    findings: tuple[Mention, ...]
    impression: tuple[Mention, ...]

    def said(self, key: str) -> list[Mention]:
        """Mentions of one option in both parts."""
        return [mention for mention in (*self.findings, *self.impression) if mention.option == key]


Check = Callable[[Reading, Known], str | None]


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason against a report: its code and a few words of detail."""

    code: str
    detail: str


def read(report: Report, words: Vocabulary) -> Reading:
    """Find the mentions of the options in a report."""
    return Reading(
        report,
        words,
        tuple(find_mentions(report.findings, words)),
        tuple(find_mentions(report.impression, words)),
    )


def parts_missing(reading: Reading, known: Known) -> str | None:
    """Findings and an impression are both there, once."""
    missing = [
        name for name in ("findings", "impression") if not re.search(r"\w", getattr(reading.report, name))
    ]
    return f"no {' and no '.join(missing)}" if missing else None


def length(reading: Reading, known: Known) -> str | None:
    """Neither a few words nor a flood of them."""
    n = len(f"{reading.report.findings} {reading.report.impression}".split())
    return None if SHORTEST <= n <= LONGEST else f"{n} words, not {SHORTEST} to {LONGEST}"


_DANGLING = re.compile(
    r"\b(?:a|an|the|of|in|on|at|to|and|or|with|without|no|for|from|by|is|are|was|were|be|been|may|not"
    r"|as|than|that"
    r"|there|these|this|which|left|right|mild|mildly|moderate|small|large|acute|active|chronic"
    r"|bilateral|pulmonary"
    r"|cardiopulmonary|pleural|cardiac|focal|radiographic|evidence|negative|stable|unchanged|lower"
    r"|upper|middle|basilar"
    r"|intrathoracic|subsegmental|most|likely|significant|definite|otherwise|within|normal limits for"
    r"|airspace)\W*$"
)


def truncated(reading: Reading, known: Known) -> str | None:
    """Each part ends with a full stop, or is one short phrase that does not end in the middle."""
    for name in ("findings", "impression"):
        text = getattr(reading.report, name).strip()
        if not text or re.search(r"[.!?][\s)\"'*]*$", text):
            continue
        last = text.lower().splitlines()[-1]
        tail = re.split(r"[.!?]\s|\s\d+\.\s", last)[-1]
        if _DANGLING.search(tail) or re.search(r"[,:;(/-]$", tail):
            return f"{name} end in the middle: “…{text[-30:]}”"
        if name == "findings":
            continue  # something follows them, so nothing was cut off
        stops = len(re.findall(r"(?<!\b\d)[.!?](?=\s|$)", text))
        if stops or len(tail.split()) > 25:
            return f"{name} end without a full stop: “…{text[-30:]}”"
    return None


def repetition(reading: Reading, known: Known) -> str | None:
    """No sentence or phrase again and again, as a model in a loop writes it."""
    text = PLACEHOLDER.sub(" ", f"{reading.report.findings} {reading.report.impression}".lower())
    said = Counter(" ".join(text[a:b].split()) for a, b in sentences(text))
    for sentence, n in said.most_common(1):
        if n >= 3 and len(sentence.split()) >= 2:
            return f"{n} times “{sentence[:40]}”"
    loop = re.search(r"\b(\w+(?:\W+\w+){0,7})(?:\W+\1\b){2,}", text)
    return f"“{loop.group(1)[:40]}” over and over" if loop else None


def placeholder(reading: Reading, known: Known) -> str | None:
    """No blanks to be filled in, no words taken out by de-identification."""
    match = PLACEHOLDER.search(reading.report.text)
    return f"“{match.group()}”" if match else None


def invented_fact(reading: Reading, known: Known) -> str | None:
    """No age, sex, name, date, history, size or earlier examination that was not told."""
    found = find_facts(f"{reading.report.findings}\n{reading.report.impression}")
    invented = {kind: text for kind, text in found.items() if kind not in known.facts}
    return "; ".join(f"{kind}: “{text}”" for kind, text in invented.items()) or None


def label_missing(reading: Reading, known: Known) -> str | None:
    """The impression names the true label; one of them, where there are several."""
    for key in known.labels:
        option = reading.words.of(key)
        if option.normal:
            if says_normal(reading.report.impression, option) or _only_denies(reading):
                return None
        elif any(m.option == key and m.status != "denied" for m in reading.impression):
            return None
    return f"the impression does not name {_names(reading, known.labels)}"


def label_denied(reading: Reading, known: Known) -> str | None:
    """A true label is nowhere denied, neither by name nor by calling the whole image normal."""
    for key in known.labels:
        option = reading.words.of(key)
        if option.normal:
            denied = _normal_denied(reading.report.impression, option)
            if denied:
                return f"the impression denies {option.name}: “{denied}”"
            continue
        for part, mentions in (("findings", reading.findings), ("impression", reading.impression)):
            mine = [m for m in mentions if m.option == key]
            denials = [m for m in mine if m.status == "denied"]
            if not denials:
                continue
            asserted = any(m.status != "denied" for m in mine)
            blunt = any(m.bare and not m.sides and m.named for m in denials)
            sure = any(m.status == "affirmed" and m.named for m in reading.said(key))
            vague = all(not m.named and not m.bare for m in denials)  # "no focal opacity"
            if blunt or (sure and not asserted and not vague):
                return f"{option.name} is denied in the {part}"
    if all(not reading.words.of(key).normal for key in known.labels) and known.labels:
        text = reading.report.impression.lower()
        for match in NORMAL_WHOLE.finditer(text):
            before = text[text.rfind(".", 0, match.start()) + 1 : match.end()]
            if not re.search(r"\b(?:acute|active|other|otherwise|further)\b", before) and not _turned(
                text, match
            ):
                return f"the impression calls it normal: “{match.group().strip()[:40]}”"
    return None


def contradiction(reading: Reading, known: Known) -> str | None:
    """No other option of the task is affirmed.

    Where nothing is to be found, none is even suspected, and nothing beyond the task's options affirmed.
    """
    allowed = set(known.labels)
    for key in known.labels:
        allowed |= reading.words.of(key).companions
    normal = any(reading.words.of(key).normal for key in known.labels)
    if not normal:
        allowed |= {option.key for option in reading.words.beyond}
    for part, mentions in (("impression", reading.impression), ("findings", reading.findings)):
        for mention in mentions:
            if mention.option in allowed or not mention.named or mention.status == "denied":
                continue
            if mention.status == "affirmed" or (normal and part == "impression"):
                return f"the {part} affirm {reading.words.of(mention.option).name}".replace(
                    "the impression affirm", "the impression affirms"
                )
    return None


def side_conflict(reading: Reading, known: Known) -> str | None:
    """A finding is on the same side in both parts, and on the side that is known."""
    for key in known.labels:
        if reading.words.of(key).normal:
            continue
        sides = {"findings": _sides(reading.findings, key), "impression": _sides(reading.impression, key)}
        name = reading.words.of(key).name
        if disagree(sides["findings"], sides["impression"]):
            here, there = _side(sides["findings"]), _side(sides["impression"])
            return f"{name}: {here} in the findings, {there} in the impression"
        true = sides_in(known.positions.get(key, ""))
        for part, said in sides.items():
            if disagree(true, said):
                return f"{name}: {_side(said)} in the {part}, known to be {_side(true)}"
    return None


CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        parts_missing,
        length,
        truncated,
        repetition,
        placeholder,
        invented_fact,
        label_missing,
        label_denied,
        contradiction,
        side_conflict,
    )
}
"""Checks of one report by reason code, in the order in which they are tried."""

BETWEEN = ("duplicate", "no_agreement")
"""Reason codes that need other reports, see `gsco.bootstrapping.selection`."""


def judge(
    report: Report, known: Known, words: Vocabulary, *, without: Collection[str] = ()
) -> tuple[Finding, ...]:
    """All reasons against a report; empty for one that passes.

    Args:
        report: its two parts.
        known: what is known about the image; ValueError without a label.
        words: of the task's options.
        without: codes of checks to leave out.
    """
    if not known.labels:
        raise ValueError("a report cannot be judged without a label")
    reading = read(report, words)
    if "parts_missing" not in without and (missing := parts_missing(reading, known)):
        return (Finding("parts_missing", missing),)  # nothing else can be said of half a report
    out = []
    for code, check in CHECKS.items():
        if code not in without and (detail := check(reading, known)):
            out.append(Finding(code, detail))
    return tuple(out)


def says_normal(text: str, option: OptionTerms) -> bool:
    """Whether a text says that there is nothing to be found."""
    lowered = text.lower()
    patterns = (NORMAL_ACUTE, NORMAL_WHOLE, NORMAL_PART)
    return any(_asserted(pattern, lowered) for pattern in patterns) or any(
        not _turned(lowered, m) for m in option.names.finditer(lowered)
    )


_DENYING = re.compile(r"\W*(?:\d+\.\s*)?(?:there (?:is|are) )?(?:no|without|negative for)\b")


def _only_denies(reading: Reading) -> bool:
    """Whether an impression does nothing but deny options, and the findings name none ("No infiltrate.")."""
    text = reading.report.impression.lower()
    said = [text[a:b] for a, b in sentences(text)]
    return (
        bool(said)
        and all(m.status == "denied" for m in reading.impression)
        and all(_DENYING.match(sentence) for sentence in said)
        and not any(m.named and m.status != "denied" for m in reading.findings)
    )


def _normal_denied(text: str, option: OptionTerms) -> str | None:
    lowered = text.lower()
    for match in (*NORMAL_WHOLE.finditer(lowered), *option.names.finditer(lowered)):
        if _turned(lowered, match):
            return lowered[max(0, match.start() - 10) : match.end()]
    return None


def _asserted(pattern: re.Pattern[str], text: str) -> str | None:
    """The first match whose own sentence does not turn it round ("not normal")."""
    return next((match.group() for match in pattern.finditer(text) if not _turned(text, match)), None)


def _turned(text: str, match: re.Match[str]) -> bool:
    """Whether a statement of normality is denied in its own sentence."""
    if re.search(r"\bnot (?:\w+ )?(?:normal|negative|unremarkable|clear)\b|\babnormal\b", match.group()):
        return True
    for start, stop in sentences(text):
        if start <= match.start() < stop:
            end = min(match.end(), stop) - start
            return status_at(text[start:stop], match.start() - start, end)[0] == "denied"
    return False


def _sides(mentions: Sequence[Mention], key: str) -> frozenset[str]:
    """Sides of an option's mentions, of those by name where there are any."""
    mine = [m for m in mentions if m.option == key and m.status != "denied"]
    sides: frozenset[str] = frozenset()
    return sides.union(*(m.sides for m in [m for m in mine if m.named] or mine))


def _names(reading: Reading, keys: Sequence[str]) -> str:
    return ", ".join(reading.words.of(key).name for key in keys)


def _side(sides: frozenset[str]) -> str:
    return "bilateral" if len(sides) == 2 else next(iter(sides), "no side")
