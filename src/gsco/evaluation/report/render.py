"""Putting the page together: figures and log in, one HTML text out. Nothing is read but templates."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsco.collaboration import CALIBRATED
from gsco.evaluation.arm_words import arm_name, arm_note, arm_rank, fullest_arm
from gsco.evaluation.report import charts, wording
from gsco.evaluation.report.cards import make_cards
from gsco.evaluation.report.heat import Stored, scale_css
from gsco.evaluation.report.sureness import sureness
from gsco.evaluation.report.thumbnails import Thumbnail
from gsco.evaluation.summary import ArmAnswers, collect

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
MAX_CASES = 60
_PICTURED_CONTROLS = ("best_specialist", "mean_probability")
_GROUPS = (
    ("generalist", "Asking the generalist"),
    ("pool", "The generalist as one voice among others"),
    ("control", "Controls: the same evidence without the generalist"),
    ("specialist", "Each specialist"),
)
_TABLED = ("accuracy", "balanced_accuracy", "auc", "ece", "brier")
_LOWER_IS_BETTER = ("ece", "brier")


def render_report(
    *,
    metrics: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    extras: Mapping[str, Any] | None = None,
    thumbnail: Thumbnail | None = None,
    stored: Stored | None = None,
    max_cases: int = MAX_CASES,
) -> str:
    """The report page of a run.

    The page is one file: style, script and pictures are inside, it asks nothing of any network, and its own
    content security policy forbids all else. The same input gives the same bytes.

    Args:
        metrics: content of ``metrics.json``, as `gsco.evaluation.summary.summarise` makes it.
        lines: parsed lines of ``cases.jsonl``.
        config: the run's settings, shown as they are.
        environment: where it ran, shown as it is.
        extras: what else is known; every key may be missing:

            - ``modality``: readable, e.g. ``"breast ultrasound"``;
            - ``cases``: how many cases the split has, where not all were answered;
            - ``synthetic``: true for phantoms, which puts a banner on top;
            - ``card``: mapping of the dataset card (licence, source, …);
            - ``specialists``: list of mappings with ``name``, ``reliability``, ``description``, … as known;
            - ``best_specialist``: name of the one chosen on validation;
            - ``index``, ``generalist``, ``leakage``: mappings (or text) to show;
            - ``calibration``, ``pool``: content of ``calibration.json`` and ``pool.json``;
            - ``foreign``: what images are called foreign by: ``k``, ``known`` and ``validation`` (counts),
              and the rate of false alarms as ``percent``;
            - ``skipped``: lines that name images that could not be read;
            - ``notes``: lines that a reader should know before the figures;
            - ``images``: image reference by case id of known cases, for pictures of neighbours.
        thumbnail: gives an encoded picture (PNG, JPEG, GIF, WebP) for an image reference of the log, or None.
        stored: gives the heat map that the run stored for a case and a specialist, or None.
        max_cases: most cases to show; the page says how many there were.

    Returns:
        HTML text.
    """
    from markupsafe import Markup

    more: dict[str, Any] = {
        "modality": None,
        "cases": metrics["n"],
        "synthetic": False,
        "foreign": None,
        "notes": [],
        "skipped": [],
        **(extras or {}),
    }
    options = metrics["options"]
    answers = collect(lines, [option["key"] for option in options], metrics["split"])
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    cards = make_cards(
        lines,
        split=metrics["split"],
        options=options,
        images=more.get("images") or {},
        thumbnail=thumbnail,
        limit=max_cases,
        stored=stored,
    )
    return page_template("report.html.j2").render(
        m=metrics,
        extras=more,
        config=_shown(config),
        environment=_shown(environment),
        facts={
            name: _shown(more[name]) for name in ("card", "index", "generalist", "leakage") if more.get(name)
        },
        specialists=_specialists(more.get("specialists") or [], more.get("best_specialist")),
        constant_name=next(o["name"] for o in options if o["key"] == metrics["constant"]["key"]),
        letters=letters(len(options)),
        headline=wording.headline(metrics["comparisons"], fullest_arm(list(metrics["arms"]))),
        verdicts=_verdicts(metrics),
        table=_table(metrics),
        confusions=_confusions(metrics),
        curves=_curves(answers, metrics),
        sureness=sureness(metrics, more.get("pool")),
        fits=_fits(more.get("calibration"), metrics),
        repairs=_repairs(metrics),
        cards=cards,
        scale=scale_css(),
        w=wording,
        style=page_style("report.css"),
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=digest,
    )


def page_template(name: str) -> jinja2.Template:
    """A template of this folder; what is put in is escaped, and what is missing is an error."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def page_style(*names: str) -> Markup:
    """Style sheets of this folder, one after the other."""
    from markupsafe import Markup

    text = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names)
    return Markup(text)  # noqa: S704 - our own files


def letters(n: int) -> list[str]:
    """Short names of n things in tables: letters, or numbers where they are many."""
    return [chr(ord("A") + i) if n <= 26 else str(i + 1) for i in range(n)]


def _shown(value: Any) -> list[tuple[str, str]]:
    """A mapping, a list or a text as rows of name and value."""
    if isinstance(value, Mapping):
        return [(str(key), _text(item)) for key, item in value.items()]
    if isinstance(value, str):
        return [("", value)]
    return [("", _text(item)) for item in value]


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items() if item is not None) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value) or "–"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _specialists(rows: Sequence[Any], best: str | None) -> list[dict[str, str]]:
    out = []
    for row in rows:
        item = dict(row) if isinstance(row, Mapping) else {"name": str(row)}
        name = str(item.pop("name", "?"))
        reliability = item.pop("reliability", None)
        about = item.pop("description", None)
        rest = _text({key: value for key, value in item.items() if value is not None}) if item else ""
        out.append(
            {
                "name": name,
                "best": "yes" if name == best else "",
                "reliability": wording.number(reliability) if isinstance(reliability, float) else "–",
                "about": "; ".join(str(part) for part in (about, rest) if part and part != "–"),
            }
        )
    return out


def _verdicts(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The comparisons in macro-F1, drawn on one scale."""
    rows = [row for row in metrics["comparisons"] if row["metric"] == "macro_f1"]
    ends = [abs(row[k]) for row in rows for k in ("low", "high", "difference") if row.get(k) is not None]
    limit = max([0.05, *ends]) * 1.05
    return [
        {
            "row": row,
            "bar": charts.difference_bar(row, limit),
            "outcome": wording.outcome(row),
            "sentence": wording.comparison_sentence(row, metrics["arms"]),
        }
        for row in rows
    ]


def _table(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Arms by group, each with its macro-F1 drawn on a common scale."""
    arms: Mapping[str, Any] = metrics["arms"]
    constant = metrics["constant"]["macro_f1"]
    domain = charts.domain_of([arm["macro_f1"] for arm in arms.values()])
    best = {}
    for metric in ("macro_f1", *_TABLED):
        values = [
            arm[metric]["value"] for arm in arms.values() if (arm.get(metric) or {}).get("value") is not None
        ]
        best[metric] = (min if metric in _LOWER_IS_BETTER else max)(values) if len(values) > 1 else None
    groups = []
    for kind, title in _GROUPS:
        rows = [
            {
                "arm": name,
                "name": arm_name(name),
                "note": arm_note(name),
                "macro_f1": arm["macro_f1"],
                "leads": arm["macro_f1"]["value"] == best["macro_f1"],
                "bar": charts.interval_bar(
                    arm["macro_f1"], domain, constant if constant >= domain[0] else None
                ),
                "cells": [
                    {
                        "metric": metric,
                        "figure": arm.get(metric),
                        "leads": bool(arm.get(metric)) and arm[metric]["value"] == best[metric],
                    }
                    for metric in _TABLED
                ],
                "unparsed": arm["unparsed"],
                "failed": arm.get("failed", 0),
                "n": arm["n"],
            }
            for name, arm in arms.items()
            if arm["kind"] == kind
        ]
        if rows:
            groups.append({"kind": kind, "title": title, "rows": rows})
    return {
        "groups": groups,
        "axis": charts.axis(domain),
        "metrics": _TABLED,
        "constant_drawn": constant >= domain[0],
    }


def _pictured(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    focus = fullest_arm(list(metrics["arms"]))
    return (*((focus,) if focus else ()), *_PICTURED_CONTROLS)


def _confusions(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    out = []
    for name in _pictured(metrics):
        arm = metrics["arms"].get(name)
        if arm is None:
            continue
        rows = []
        for i, counts in enumerate(arm["confusion"]):
            unparsed = arm["unparsed_per_class"][i]
            total = sum(counts) + unparsed
            cells = [
                {"count": c, "share": round(100 * c / total) if total else 0, "right": i == j}
                for j, c in enumerate(counts)
            ]
            recall = wording.number(counts[i] / total, 2) if total else "–"
            rows.append({"cells": cells, "unparsed": unparsed, "n": total, "recall": recall})
        out.append({"name": arm_name(name), "rows": rows, "unparsed": arm["unparsed"] > 0})
    return out


def _curves(answers: Mapping[str, ArmAnswers], metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    out = []
    pictured = _pictured(metrics)
    if CALIBRATED in answers:  # in the place of the best specialist: three panels are a row
        pictured = (CALIBRATED, *(name for name in pictured if name != "best_specialist"))
    for name in pictured:
        bins = charts.reliability_bins(answers[name]) if name in answers else None
        if bins is not None:
            label = arm_name(name)
            out.append(
                {
                    "name": label,
                    "kind": answers[name].kind,
                    "svg": charts.reliability(bins, label),
                    "ece": metrics["arms"][name]["ece"],
                }
            )
    return out


def _fits(calibration: Mapping[str, Any] | None, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each arm was calibrated by, and what that did."""
    fits = (calibration or {"arms": {}})["arms"]
    return [
        {
            "name": arm_name(arm),
            "n": fits[arm]["n"],
            "temperature": wording.number(fits[arm]["temperature"], 2),
            "before": wording.number(metrics["arms"][arm]["ece_uncalibrated"]),
            "after": wording.number(metrics["arms"][arm]["ece"]["value"]),
        }
        for arm in sorted(fits, key=arm_rank)
        if "ece_uncalibrated" in metrics["arms"].get(arm, {})
    ]


def _repairs(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    out = []
    for name, found in metrics["repairs"].items():
        wrong, right = found["wrong_majority"], found["right_majority"]
        out.append(
            {
                "name": arm_name(name),
                **found,
                "repaired_share": round(100 * found["repaired"] / wrong) if wrong else 0,
                "broken_share": round(100 * found["broken"] / right) if right else 0,
                "net": found["repaired"] - found["broken"],
            }
        )
    return out
