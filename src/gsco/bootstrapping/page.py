"""The page of a round: every image with its drafts, what was accepted, and why the rest was not."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gsco.bootstrapping.selection import Verdict
from gsco.bootstrapping.vocabulary import Vocabulary
from gsco.cases.case import Dataset
from gsco.evaluation.report import thumbnails
from gsco.evaluation.report.render import TEMPLATES, page_style, page_template

if TYPE_CHECKING:
    from gsco.bootstrapping.subjects import Subject

MAX_IMAGES = 200
REASONS = {
    "parts_missing": "a part is missing",
    "length": "length",
    "truncated": "cut off",
    "repetition": "repetition",
    "placeholder": "placeholder",
    "invented_fact": "invented fact",
    "label_missing": "label not named",
    "label_denied": "label denied",
    "contradiction": "contradiction",
    "side_conflict": "side",
    "duplicate": "duplicate",
    "no_agreement": "no agreement",
}
"""Reason codes as the page and the table call them."""


def render_page(
    statistics: Mapping[str, Any],
    verdicts: Sequence[Verdict],
    subjects: Mapping[str, Subject],
    settings: Mapping[str, Any],
    dataset: Dataset,
    words: Vocabulary,
) -> str:
    """One HTML file; the same round gives the same bytes. At most `MAX_IMAGES` images are shown."""
    from markupsafe import Markup

    by_case: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_case.setdefault(verdict.draft["case_id"], []).append(verdict)
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shown = list(by_case)[:MAX_IMAGES]
    cards = [_card(case_id, by_case[case_id], subjects[case_id], words) for case_id in shown]
    tags = ["accepted", "rejected", *statistics["reasons"]]
    counts = {tag: sum(tag in card["tags"] for card in cards) for tag in tags}
    return page_template("bootstrapping.html.j2").render(
        s=statistics,
        settings=[(k.replace("_", " "), _text(v)) for k, v in settings.items() if v is not None],
        modality=dataset.task.modality,
        synthetic=bool(dataset.card.get("synthetic")),
        cards=cards,
        filters=[("all", "All", len(cards))]
        + [(tag, REASONS.get(tag, tag).capitalize(), n) for tag, n in counts.items() if n],
        reasons=[
            {"name": REASONS[code], "n": n, "percent": round(100 * n / max(1, statistics["drafts"]))}
            for code, n in statistics["reasons"].items()
        ],
        style=page_style("report.css", "bootstrapping.css"),
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=digest,
    )


def _card(case_id: str, verdicts: Sequence[Verdict], subject: Subject, words: Vocabulary) -> dict[str, Any]:
    content = thumbnails.file_thumbnail(str(subject.case.image))
    outcomes = {verdict.outcome for verdict in verdicts}
    codes = [reason.code for verdict in verdicts for reason in verdict.reasons]
    return {
        "case_id": case_id,
        "picture": thumbnails.data_uri(content) if content else None,
        "labels": ", ".join(words.of(key).name for key in subject.known.labels),
        "positions": ", ".join(subject.known.positions.values()),
        "tags": [*(["accepted"] if "accepted" in outcomes else ["rejected"]), *dict.fromkeys(codes)],
        "drafts": [
            {
                "outcome": verdict.outcome,
                "generator": verdict.draft["generator"],
                "variant": verdict.draft["variant"],
                "findings": verdict.report.findings,
                "impression": verdict.report.impression,
                "raw": verdict.draft["raw"],
                "whole": verdict.report.whole,
                "prompt": verdict.draft["prompt"],
                "reasons": [(REASONS[r.code], r.detail) for r in verdict.reasons],
            }
            for verdict in verdicts
        ],
    }


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
