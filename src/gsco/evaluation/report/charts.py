"""Small inline SVG drawings. Colours come from the page's style sheet, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from gsco.evaluation.metrics import ECE_BINS, Floats, ece_cells
from gsco.evaluation.report.wording import number, signed
from gsco.evaluation.summary import ArmAnswers

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, PAD = 240, 8

Domain = tuple[float, float]


def _svg(body: str, width: float, height: float, label: str, css: str) -> Markup:
    from markupsafe import Markup, escape

    return Markup(  # noqa: S704 - body is made of numbers and escaped text only
        f'<svg class="{css}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'role="img" aria-label="{escape(label)}">{body}</svg>'
    )


def domain_of(figures: Sequence[Mapping[str, Any] | None]) -> Domain:
    """A common axis for several intervals, on round tenths inside [0, 1]."""
    values = [f[k] for f in figures if f for k in ("low", "value", "high") if f.get(k) is not None]
    if not values:
        return (0.0, 1.0)
    low = max(0.0, math.floor(min(values) * 10 - 1e-9) / 10)
    high = min(1.0, math.ceil(max(values) * 10 + 1e-9) / 10)
    return (low, high) if high - low >= 0.1 else (max(0.0, high - 0.1), max(0.1, high))


def ticks_of(domain: Domain) -> list[float]:
    """At most six ticks on tenths."""
    tenths = list(range(round(domain[0] * 10), round(domain[1] * 10) + 1))
    step = math.ceil((len(tenths) - 1) / 5) or 1
    return [t / 10 for t in tenths[::step]]


def _x(value: float, domain: Domain) -> float:
    share = (value - domain[0]) / (domain[1] - domain[0])
    return round(PAD + min(1.0, max(0.0, share)) * (WIDTH - 2 * PAD), 2)


def axis(domain: Domain) -> Markup:
    """The scale above a column of intervals."""
    body = "".join(
        f'<text class="tick" x="{_x(t, domain)}" y="11" text-anchor="middle">{number(t, 1)}</text>'
        for t in ticks_of(domain)
    )
    return _svg(body, WIDTH, 14, f"scale from {number(domain[0], 1)} to {number(domain[1], 1)}", "axis")


def interval_bar(figure: Mapping[str, Any] | None, domain: Domain, mark: float | None = None) -> Markup:
    """A point with its 95 % interval on a common scale; `mark` is a dashed line of reference."""
    body = "".join(
        f'<line class="grid" x1="{_x(t, domain)}" x2="{_x(t, domain)}" y1="0" y2="22"/>'
        for t in ticks_of(domain)
    )
    if mark is not None:
        body += f'<line class="mark" x1="{_x(mark, domain)}" x2="{_x(mark, domain)}" y1="0" y2="22"/>'
    if not figure or figure.get("value") is None:
        return _svg(body, WIDTH, 22, "no figure", "interval")
    label = number(figure["value"])
    if figure.get("low") is not None and figure.get("high") is not None:
        low, high = _x(figure["low"], domain), _x(figure["high"], domain)
        body += f'<line class="whisker" x1="{low}" x2="{high}" y1="11" y2="11"/>'
        body += "".join(f'<line class="whisker" x1="{x}" x2="{x}" y1="7" y2="15"/>' for x in (low, high))
        label += f", 95 % interval {number(figure['low'])} to {number(figure['high'])}"
    body += f'<circle class="dot" cx="{_x(figure["value"], domain)}" cy="11" r="4.5"/>'
    return _svg(body, WIDTH, 22, label, "interval")


def difference_bar(row: Mapping[str, Any], limit: float) -> Markup:
    """A difference with its interval around zero, on a scale from -limit to +limit."""
    domain = (-limit, limit)
    zero = _x(0, domain)
    body = f'<line class="zero" x1="{zero}" x2="{zero}" y1="0" y2="22"/>'
    label = f"difference {signed(row['difference'])}"
    if row.get("low") is not None and row.get("high") is not None:
        low, high = _x(row["low"], domain), _x(row["high"], domain)
        body += f'<line class="whisker" x1="{low}" x2="{high}" y1="11" y2="11"/>'
        label += f", 95 % interval {signed(row['low'])} to {signed(row['high'])}"
    if row.get("difference") is not None:
        body += f'<circle class="dot" cx="{_x(row["difference"], domain)}" cy="11" r="4.5"/>'
    return _svg(body, WIDTH, 22, label, "interval")


def risk_curves(curves: Sequence[tuple[str, Sequence[Sequence[float]]]]) -> Markup:
    """Share of wrong answers among the surest, by how many are answered; one line for each arm.

    Args:
        curves: name and (share answered, risk) pairs of each arm.
    """
    left, top, wide, tall, foot = 34, 8, 320, 150, 34
    highest = max((risk for _, curve in curves for _, risk in curve), default=0.0)
    limit = next((t for t in (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8) if highest <= t), 1.0)
    bottom = top + tall

    def x(share: float) -> float:
        return round(left + share * wide, 2)

    def y(risk: float) -> float:
        return round(bottom - risk / limit * tall, 2)

    body = ""
    for part in (0.0, 0.5, 1.0):
        at = y(part * limit)
        body += f'<line class="grid" x1="{x(0)}" x2="{x(1)}" y1="{at}" y2="{at}"/>'
        label = f"{100 * part * limit:g} %"
        body += f'<text class="tick" x="{left - 6}" y="{at + 4}" text-anchor="end">{label}</text>'
    body += f'<line class="mark" x1="{x(0.8)}" x2="{x(0.8)}" y1="{y(limit)}" y2="{y(0)}"/>'
    for number_, (name, curve) in enumerate(curves, start=1):
        points = " ".join(f"{x(share)},{y(risk)}" for share, risk in curve)
        body += f'<polyline class="risk risk-{number_}" points="{points}">'
        body += f"<title>{escape(name)}</title></polyline>"
    for t in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        body += f'<text class="tick" x="{x(t)}" y="{bottom + 14}" text-anchor="middle">{100 * t:.0f} %</text>'
    body += f'<text class="tick" x="{x(0.5)}" y="{bottom + 29}" text-anchor="middle">'
    body += "answered, surest first</text>"
    told = "; ".join(f"{name}: {100 * curve[-1][1]:.1f} % of all answers wrong" for name, curve in curves)
    return _svg(body, left + wide + 20, bottom + foot, f"Wrong answers by share answered. {told}", "risks")


def reliability_bins(arm: ArmAnswers) -> Floats | None:
    """Summed `ece_cells`, shape (bins, 3): count, confidence, rightness; None without probabilities."""
    if arm.probabilities is None:
        return None
    sums: Floats = ece_cells(arm.reference, arm.probabilities).sum(axis=0)
    return sums


def reliability(bins: Floats, name: str, stated: str = "stated confidence") -> Markup:
    """Share of right answers by what is `stated`, with how many cases stand behind each point."""
    left, top, side, foot = 34, 8, 200, 34
    bottom = top + side

    def x(value: float) -> float:
        return round(left + value * side, 2)

    def y(value: float) -> float:
        return round(bottom - value * side, 2)

    body = ""
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        body += f'<line class="grid" x1="{x(0)}" x2="{x(1)}" y1="{y(t)}" y2="{y(t)}"/>'
        label = number(t, 2) if t % 1 else str(int(t))
        body += f'<text class="tick" x="{left - 6}" y="{y(t) + 4}" text-anchor="end">{label}</text>'
    most = max(float(bins[:, 0].max()), 1.0)
    for b in range(ECE_BINS):  # counts, as bars from the bottom
        tall = round(float(bins[b, 0]) / most * side * 0.35, 2)
        if tall:
            body += (
                f'<rect class="count" x="{x(b / ECE_BINS) + 1}" y="{round(bottom - tall, 2)}" '
                f'width="{round(side / ECE_BINS - 2, 2)}" height="{tall}"/>'
            )
    body += f'<line class="zero" x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>'
    full = [(float(c), float(p) / float(c), float(r) / float(c)) for c, p, r in bins if c > 0]
    points = " ".join(f"{x(p)},{y(r)}" for _, p, r in full)
    body += f'<polyline class="curve" points="{points}"/>'
    for count, p, r in full:
        radius = round(2.5 + 4 * math.sqrt(count / most), 2)
        body += f'<circle class="dot" cx="{x(p)}" cy="{y(r)}" r="{radius}"><title>{int(count)} cases</title>'
        body += "</circle>"
    for t in (0.0, 0.5, 1.0):
        label = number(t, 1) if t % 1 else str(int(t))
        body += f'<text class="tick" x="{x(t)}" y="{bottom + 14}" text-anchor="middle">{label}</text>'
    body += f'<text class="tick" x="{x(0.5)}" y="{bottom + 29}" text-anchor="middle">{stated}</text>'
    count = np.asarray(bins)[:, 0].sum()
    gap = float(np.abs(bins[:, 1] - bins[:, 2]).sum() / count) if count else 0.0
    text = f"Reliability of {name}: share of right answers by {stated}; calibration error {number(gap)}"
    return _svg(body, left + side + 12, bottom + foot, text, "reliability")
