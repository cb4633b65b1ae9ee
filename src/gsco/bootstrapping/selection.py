"""From drafts to verdicts: each alone, then those of one image together, then those of all images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gsco.bootstrapping.checks import Finding, Known, judge, read
from gsco.bootstrapping.duplicates import Seen
from gsco.bootstrapping.sides import disagree
from gsco.bootstrapping.vocabulary import Vocabulary
from gsco.cases.reports import Report, parse_report
from gsco.progress import Count

Outcome = Literal["accepted", "spare", "rejected"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a draft.

    Attributes:
        draft: its line in ``drafts.jsonl``.
        report: its parts.
        outcome: accepted; spare, where the image had its share already; or rejected.
        reasons: against it; empty unless rejected.
    """

    draft: Mapping[str, Any]
    report: Report
    outcome: Outcome
    reasons: tuple[Finding, ...] = ()


def agree(a: Report, b: Report, words: Vocabulary) -> bool:
    """Whether two reports of an image say the same: no option that one affirms and the other denies, the same
    options named in both impressions, none on opposite sides."""
    first, second = read(a, words), read(b, words)
    named = [{m.option for m in r.impression if m.named and m.status == "affirmed"} for r in (first, second)]
    if named[0] != named[1]:
        return False
    for option in words.options:
        mine, theirs = first.said(option.key), second.said(option.key)
        affirmed = [any(m.status == "affirmed" for m in said) for said in (mine, theirs)]
        denied = [any(m.status == "denied" for m in said) for said in (mine, theirs)]
        if (affirmed[0] and denied[1] and not affirmed[1]) or (affirmed[1] and denied[0] and not affirmed[0]):
            return False
        sides = [
            frozenset[str]().union(*(m.sides for m in said if m.status != "denied"))
            for said in (mine, theirs)
        ]
        if disagree(*sides):
            return False
    return True


def select(
    drafts: Sequence[Mapping[str, Any]],
    known: Mapping[str, Known],
    words: Vocabulary,
    *,
    agreement: int = 1,
    keep: int = 1,
    seen: Seen | None = None,
    progress: Count | None = None,
) -> list[Verdict]:
    """Judge drafts, in their order.

    Args:
        drafts: lines of ``drafts.jsonl`` (``case_id``, ``generator``, ``raw``), those of one image together.
        known: by case id.
        words: of the task's options.
        agreement: how many generators must have written a report of the image that passes and says the same,
            the draft's own included; where all drafts are one generator's, how many drafts.
        keep: accepted reports of one image; further ones are spare.
        seen: reports that are there already, from earlier rounds; near-duplicates of them are rejected.
        progress: called with (done, total).
    """
    seen = seen or Seen()
    by_case: dict[str, list[tuple[Mapping[str, Any], Report, tuple[Finding, ...]]]] = {}
    for done, draft in enumerate(drafts, start=1):
        report = parse_report(draft["raw"])
        found = judge(report, known[draft["case_id"]], words)
        by_case.setdefault(draft["case_id"], []).append((draft, report, found))
        if progress:
            progress(done, len(drafts))
    several = len({draft["generator"] for draft in drafts}) > 1
    out = []
    for case_id, judged in by_case.items():
        passing = [(draft, report) for draft, report, found in judged if not found]
        taken = 0
        for draft, report, found in judged:
            reasons = found
            if not reasons and agreement > 1:
                voices = {
                    other["generator"] if several else other["draft"]
                    for other, text in passing
                    if text == report or agree(report, text, words)
                }
                if len(voices) < agreement:
                    detail = f"{len(voices)} of the {agreement} needed say so"
                    reasons = (Finding("no_agreement", detail),)
            if not reasons and (twin := seen.find(report.text, case_id)):
                reasons = (Finding("duplicate", f"nearly the report of {twin}"),)
            outcome: Outcome = "rejected" if reasons else "accepted" if taken < keep else "spare"
            if outcome == "accepted":
                taken += 1
                seen.add(report.text, case_id)
            out.append(Verdict(draft, report, outcome, reasons))
    return out
