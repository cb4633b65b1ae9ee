"""What the page says about answering only where one is sure: the curve, label sets, abstention, weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gsco.collaboration import CALIBRATED
from gsco.evaluation.arm_words import arm_name, fullest_arm, voice_name
from gsco.evaluation.report import charts
from gsco.evaluation.report.wording import number

_BESIDE = "mean_probability"


def sureness(metrics: Mapping[str, Any], pool: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The section's parts; None for a run without selective figures.

    Args:
        metrics: content of ``metrics.json``.
        pool: content of ``pool.json``, where the run has one.

    Returns:
        ``curve`` (SVG), ``rows`` (one per arm drawn), ``sentences``, ``weights`` (one per voice).
    """
    arms = metrics["arms"]
    names = dict.fromkeys((CALIBRATED, fullest_arm(list(arms)) or _BESIDE, _BESIDE))
    drawn = {name: arms[name]["selective"] for name in names if arms.get(name, {}).get("selective")}
    if not drawn:
        return None
    rows = [
        {
            "name": arm_name(name),
            "mark": mark,
            "risk": number(found["risk"]),
            "removed": _percent(found["errors_removed"]),
            "aurc": number(found["aurc"]),
        }
        for mark, (name, found) in enumerate(drawn.items(), start=1)
    ]
    curves = [(arm_name(name), found["curve"]) for name, found in drawn.items()]
    share = next(iter(drawn.values()))["answered"]
    return {
        "curve": charts.risk_curves(curves),
        "answered": _percent(share),
        "rows": rows,
        "sentences": _sentences(metrics, pool),
        "weights": _weights(pool),
        "heard": None if pool is None else arm_name(pool["generalist_arm"]),
        "fitted_on": None if pool is None else _fitted_on(pool),
    }


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{round(100 * share)}\u00a0%"


def _sentences(metrics: Mapping[str, Any], pool: Mapping[str, Any] | None) -> list[str]:
    """Label sets and abstention of the pooled arm in plain words."""
    arm = metrics["arms"].get(CALIBRATED)
    if arm is None or pool is None:
        return []
    out = []
    sets, left = arm.get("sets"), arm.get("abstained")
    if sets:
        out.append(
            f"Its label sets, stated to hold the true option in {_percent(pool['sets']['coverage'])} of "
            f"cases, hold it in {100 * sets['coverage']:.1f}\u00a0% of these {arm['n']}. They name "
            f"{sets['mean_size']:.2f} options on average; {_percent(sets['single'])} of them name one."
        )
    if left:
        gone = _percent(left["errors_removed"])
        out.append(
            f"By the rule fitted on validation (confidence below {number(pool['abstains_below'], 2)}) it "
            f"abstains on {_percent(left['share'])} of the cases. "
            + (f"{gone} of its wrong answers are among them. " if left["errors_removed"] is not None else "")
            + f"Of the answers it gives {_percent(left['accuracy'])} are right."
        )
    return out


def _fitted_on(pool: Mapping[str, Any]) -> str:
    beside = pool.get("out_of_fold", 0)
    cases = f"{pool['n'] - beside} validation cases"
    return f"{cases} and {beside} training cases, out of fold" if beside else cases


def _weights(pool: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Voices by weight, largest first, each with its share of the largest for a bar."""
    weights = (pool or {"weights": {}})["weights"]
    most = max(weights.values(), default=0.0) or 1.0
    return [
        {
            "name": voice_name(voice),
            "weight": number(weight, 2),
            "percent": round(100 * weight / most),
        }
        for voice, weight in sorted(weights.items(), key=lambda item: -item[1])
    ]
