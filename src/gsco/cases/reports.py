"""A report in two parts: what is seen (findings), what it means (impression); and how one is asked for."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

_FINDINGS = r"findings?|observations?|description"
_IMPRESSION = r"impressions?|conclusions?|(?:final )?diagnos[ei]s|summary"
_HEADING = re.compile(
    rf"(?im)^[ \t>#*_\-\d.)(]*(?P<name>{_FINDINGS}|{_IMPRESSION})[ \t*_]*(?::|(?=\n)|$)[ \t*_]*"
)
_INLINE = re.compile(rf"(?<=[.!?])[ \t]+(?P<name>{_FINDINGS}|{_IMPRESSION})[ \t]*:[ \t]*", re.IGNORECASE)

_QUESTIONS = (
    "Write a report of this {modality} with findings and impression.",
    "Describe the findings in this {modality} and give your impression.",
    "What does this {modality} show? Report findings and impression.",
    "Please report this {modality}: findings first, then the impression.",
)


@dataclass(frozen=True, slots=True)
class Report:
    """Two parts; one that is not there is an empty string."""

    findings: str
    impression: str

    @property
    def text(self) -> str:
        """Both parts under their headings, as a training record holds them."""
        return f"Findings: {self.findings}\nImpression: {self.impression}"

    @property
    def whole(self) -> bool:
        """Whether both parts say something."""
        return bool(re.search(r"\w", self.findings) and re.search(r"\w", self.impression))


def parse_report(text: str) -> Report:
    """Read a report's two parts by their headings; never raises.

    A heading begins a line (markdown marks and numbers before it aside) or follows a full stop. What stands
    before the first heading is no part of the report. A heading that stands twice makes its part empty:
    which of the two is meant is not guessed.

    Returns:
        The parts, blanks at their ends removed. Text without headings has two empty parts.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    by_name = {match.start("name"): match for match in (*_INLINE.finditer(text), *_HEADING.finditer(text))}
    found = [by_name[place] for place in sorted(by_name)]
    parts: dict[str, list[str]] = {"findings": [], "impression": []}
    for place, match in enumerate(found):
        stop = found[place + 1].start() if place + 1 < len(found) else len(text)
        kind = "findings" if re.fullmatch(_FINDINGS, match["name"], re.IGNORECASE) else "impression"
        parts[kind].append(text[match.end() : stop].strip(" \t\n*_#"))
    findings, impression = (found[0] if len(found) == 1 else "" for found in parts.values())
    return Report(findings, impression)


def report_question(modality: str, *, case_id: str, seed: int) -> str:
    """A request for a report that tells no label; its wording depends on case and seed."""
    rng = random.Random(f"{seed}:question:{case_id}")
    return rng.choice(_QUESTIONS).format(modality=modality)
