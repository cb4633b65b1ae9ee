"""The page of `gsco specialist compare`: specialists and their team side by side, one HTML text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gsco.evaluation.comparison.figures import LOWER_IS_BETTER
from gsco.evaluation.comparison.multi_label import LabelAnswers
from gsco.evaluation.report import charts, wording
from gsco.evaluation.report.render import letters, page_style, page_template

if TYPE_CHECKING:
    from gsco.evaluation.comparison.compare import Comparison

_TABLED = ("macro_f1", "accuracy", "balanced_accuracy", "auc", "ece", "brier")
_TABLED_LABELS = ("macro_f1", "map", "auc", "balanced_accuracy", "ece", "brier")
_GRIDS = (
    ("recall", "Recall", "of the cases that have it, the share that is called so"),
    ("precision", "Precision", "of the cases that are called so, the share that has it"),
    ("ap", "Average precision", "whatever the threshold; a random order would find the label's share"),
    ("auc", "AUC", "whatever the threshold; .5 is chance"),
    ("ece", "ECE", "lower is better"),
    ("brier", "Brier", "0 to 1; lower is better"),
)
"""Figures by label: metric, heading, and what it is."""
_NAMES = {"best_specialist": "the best specialist", "mean_of_all": "the mean of all"}
Row = dict[str, Any]


def render_comparison(comparison: Comparison) -> str:
    """The comparison page: one file without script, which asks nothing of any network.

    The same comparison gives the same bytes; what was measured by the clock is part of it.
    """
    result, timing = comparison.result, comparison.timing
    names = result["agreement"]["names"]
    return page_template("comparison.html.j2").render(
        r=result,
        w=wording,
        names=names,
        letters=letters(len(names)),
        synthetic=bool(comparison.card.get("synthetic")),
        headline=_headline(result),
        differences=_differences(result),
        table=_table(result),
        recalls=[] if result["multi_label"] else _recalls(result),
        grids=_grids(result) if result["multi_label"] else [],
        curves=_curves(comparison),
        sets=_sets(result),
        embeddings=_embeddings(result),
        costs=[_cost(name, about, timing.get(name)) for name, about in result["about"].items()],
        timed=next(iter(timing.values()), None),
        style=page_style("report.css", "comparison.css"),
        script_hash=None,
    )


def _headline(result: Mapping[str, Any]) -> str:
    team = result["team"]
    if not team:
        return ""
    n, members = len(result["specialists"]), len(team["members"])
    everyone = "Both specialists" if n == 2 else f"All {n} specialists"
    who = everyone if members == n else f"{members} of the {n} specialists"
    if members == 1:
        who = f"{team['members'][0]} alone" if n > 1 else team["members"][0]
    best = result["specialists"][result["best_specialist"]]["macro_f1"]
    mine = team["macro_f1"]
    return (
        f"{who}: macro-F1 {wording.number(mine['value'])} {wording.interval(mine)}, against "
        f"{wording.number(best['value'])} {wording.interval(best)} of the best one on validation, "
        f"{result['best_specialist']}."
    )


def _differences(result: Mapping[str, Any]) -> list[Row]:
    rows = [row for row in result["comparisons"] if row.get("difference") is not None]
    ends = [abs(row[key]) for row in rows for key in ("low", "high", "difference") if row[key] is not None]
    limit = max([0.05, *ends]) * 1.05
    out = []
    for row in rows:
        beyond = row["low"] is not None and (row["low"] > 0 or row["high"] < 0)
        outcome = "open" if not beyond else "better" if row["difference"] > 0 else "worse"
        bar = charts.difference_bar(row, limit)
        out.append({"row": row, "name": _NAMES[row["b"]], "bar": bar, "outcome": outcome})
    return out


def _table(result: Mapping[str, Any]) -> Row:
    """The team, its members, the others; each with its macro-F1 drawn on one scale."""
    team, specialists = result["team"], result["specialists"]
    everything = [*specialists.values(), result["mean_of_all"], *([team] if team else [])]
    domain = charts.domain_of([figures["macro_f1"] for figures in everything])
    listed = _TABLED_LABELS if result["multi_label"] else _TABLED
    tabled = [*listed, *(["quadratic_kappa"] if "quadratic_kappa" in result["mean_of_all"] else [])]
    best: dict[str, float] = {}
    for metric in tabled:
        values = [f[metric]["value"] for f in everything if f[metric]["value"] is not None]
        if len(values) > 1:
            best[metric] = (min if metric in LOWER_IS_BETTER else max)(values)

    def row(name: str, figures: Mapping[str, Any], note: str = "") -> Row:
        return {
            "name": name,
            "note": note,
            "figures": figures,
            "leads": [metric for metric, value in best.items() if figures[metric]["value"] == value],
            "bar": charts.interval_bar(figures["macro_f1"], domain),
        }

    def noted(name: str) -> Row:
        return row(name, specialists[name], "best on validation" if name == result["best_specialist"] else "")

    members = team["members"] if team else []
    others = [name for name in specialists if name not in members]
    groups = [
        ("team", "Together", [row("the team", team, "mean probability, calibrated")] if team else []),
        ("member", "Members", [noted(name) for name in members]),
        ("out", "Left out" if team else "Each specialist", [noted(name) for name in others]),
        ("other", "For comparison", [row("mean of all", result["mean_of_all"])]),
    ]
    return {
        "axis": charts.axis(domain),
        "metrics": tabled,
        "groups": [{"kind": kind, "title": title, "rows": rows} for kind, title, rows in groups if rows],
    }


def _recalls(result: Mapping[str, Any]) -> list[Row]:
    team = result["team"]
    rows = [*([("the team", team)] if team else []), *result["specialists"].items()]
    return [
        {
            "name": name,
            "team": figures is team,
            "cells": [
                {"figure": figure, "share": round(100 * (figure["value"] or 0.0), 1)}
                for figure in (figures[f"recall:{option['key']}"] for option in result["options"])
            ],
        }
        for name, figures in rows
    ]


def _grids(result: Mapping[str, Any]) -> list[Row]:
    """A table for each figure by label: labels down, the team and the specialists across."""
    team = result["team"]
    who = [*([("the team", team)] if team else []), *result["specialists"].items()]

    def row(option: Mapping[str, str], metric: str) -> Row:
        cells = [figures[f"{metric}:{option['key']}"] for _, figures in who]
        return {
            "label": option["name"],
            "n": result["n_per_class"][option["key"]],
            "cells": [{"figure": f, "share": round(100 * (f["value"] or 0.0), 1)} for f in cells],
        }

    return [
        {
            "title": title,
            "note": note,
            "bad": metric in LOWER_IS_BETTER,
            "who": [name for name, _ in who],
            "rows": [row(option, metric) for option in result["options"]],
        }
        for metric, title, note in _GRIDS
    ]


def _curves(comparison: Comparison) -> list[Row]:
    result, out = comparison.result, []
    wanted = ["team", result["best_specialist"]] if result["team"] else list(result["specialists"])[:3]
    for name in wanted:
        answers = comparison.answers[name]
        if isinstance(answers, LabelAnswers):
            bins, stated = answers.bins.sum(axis=0), "stated probability"
        else:
            bins, stated = charts.reliability_bins(answers), "stated confidence"
        figures = result["team"] if name == "team" else result["specialists"][name]
        label = "the team" if name == "team" else name
        if bins is not None:
            svg = charts.reliability(bins, label, stated)
            out.append({"name": label, "team": name == "team", "svg": svg, "ece": figures["ece"]})
    return out


def _sets(result: Mapping[str, Any]) -> list[Row]:
    """What each one's label sets state and hold, the team first."""
    found: dict[str, Row] = dict(result["sets"])
    first = [("the team", found.pop("team"))] if "team" in found else []
    rows = [*first, *found.items()]
    return [
        {
            "name": name,
            "stated": f"{100 * row['stated']:.1f}",
            "held": f"{100 * row['coverage']:.1f}",
            "size": wording.number(row["mean_size"], 2),
        }
        for name, row in rows
    ]


def _embeddings(result: Mapping[str, Any]) -> Row | None:
    given = result["embeddings"]
    if not given or not given["specialists"]:
        return None
    found = [(name, kind, f) for name, kinds in given["specialists"].items() for kind, f in kinds.items()]
    best, chance = given["best"], found[0][2]["chance"]
    domain = charts.domain_of([*(f["precision_at_10"] for _, _, f in found), {"value": chance}])
    return {
        "axis": charts.axis(domain),
        "chance": chance,
        "rows": [
            {
                "name": name if kind == "pooled" else f"{name}, un-pooled",
                "best": best == {"specialist": name, "kind": kind},
                "bar": charts.interval_bar(figures["precision_at_10"], domain, chance),
                "precision": figures["precision_at_10"],
                "map": figures["map"],
                "validation": figures["validation_map"],
            }
            for name, kind, figures in found
        ],
    }


def _cost(name: str, about: Mapping[str, Any], timing: Mapping[str, Any] | None) -> Row:
    return {
        "name": name,
        "recipe": about["recipe"] if about["recipe"] not in (None, name) else "",
        "size": f"{about['size_mb']:.1f}",
        "own": _count(about["parameters"]),
        "backbone": _count(about["backbone_parameters"]),
        "single": f"{timing['ms_single']:.0f}" if timing else "",
        "batch": f"{timing['ms_batch']:.0f}" if timing else "",
    }


def _count(n: int | None) -> str:
    """``3413024`` → ``3.4 M``."""
    if n is None:
        return "–"
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return str(n)
