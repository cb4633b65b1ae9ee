"""Numbers as a person reads them, and the sentences that a comparison amounts to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gsco.errors import counted
from gsco.evaluation.arm_words import arm_name, with_article

METRIC_NAMES: dict[str, str] = {
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC",
    "map": "mAP",
    "ece": "ECE",
    "brier": "Brier",
    "nll": "NLL",
    "quadratic_kappa": "quadratic kappa",
}
ALPHA = 0.05


def drawn_units(result: Mapping[str, Any]) -> str:
    """What the bootstrap of a result drew: ``patients or groups`` where cases share one, else ``images``.

    Args:
        result: with ``n`` cases and ``n_clusters`` units of resampling.
    """
    return "patients or groups" if result["n_clusters"] < result["n"] else "images"


def number(value: float | None, digits: int = 3) -> str:
    """``0.8123`` → ``.812``; ``1.0`` → ``1.000``; None → an en dash."""
    if value is None:
        return "–"
    text = f"{abs(value):.{digits}f}"
    if text.startswith("0."):
        text = text[1:]
    return f"−{text}" if value < 0 and text.strip("0.") else text


def signed(value: float | None, digits: int = 3) -> str:
    """``0.03`` → ``+.030``."""
    text = number(value, digits)
    return text if value is None or text.startswith("−") else f"+{text}"


def interval(figure: Mapping[str, Any] | None, digits: int = 3) -> str:
    """``[.740, .871]``, or an empty string."""
    if not figure or figure.get("low") is None or figure.get("high") is None:
        return ""
    return f"[{number(figure['low'], digits)}, {number(figure['high'], digits)}]"


def p_text(p: float | None) -> str:
    """``p = .21``, ``p < .001``."""
    if p is None:
        return ""
    if p < 0.001:
        return "p < .001"
    return f"p = {number(p, 3 if p < 0.1 else 2)}"


def outcome(row: Mapping[str, Any]) -> str:
    """``better``, ``worse`` or ``open``.

    Decided only where the interval and the p-value, corrected for the number of comparisons, agree.
    """
    if row.get("low") is None or row.get("high") is None or row.get("difference") is None:
        return "open"
    if row["p_holm"] >= ALPHA or row["low"] <= 0 <= row["high"]:
        return "open"
    return "better" if row["difference"] > 0 else "worse"


_OUTCOMES = {"better": "better", "worse": "worse", "open": "not distinguishable"}


def outcome_text(row: Mapping[str, Any]) -> str:
    """The outcome in words."""
    if row.get("difference") == row.get("low") == row.get("high") == 0:
        return "no difference"
    return _OUTCOMES[outcome(row)]


def comparison_sentence(row: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]]) -> str:
    """One comparison as a plain sentence with all its figures."""
    metric = row["metric"]
    a, b = arms[row["a"]].get(metric), arms[row["b"]].get(metric)
    difference = {"low": row["low"], "high": row["high"]}
    return (
        f"{arm_name(row['a'])}: {METRIC_NAMES.get(metric, metric)} {number(a and a['value'])} {interval(a)} "
        f"against {number(b and b['value'])} {interval(b)} for {with_article(row['b'])}; difference "
        f"{signed(row['difference'])} {interval(difference)}, {p_text(row['p_value'])} "
        f"(Holm {p_text(row['p_holm'])}): {outcome_text(row)}."
    )


def headline(comparisons: Sequence[Mapping[str, Any]], focus: str | None) -> str:
    """Whether the collaboration helped, in one sentence; it claims no more than the tests allow."""
    against = {
        row["b"]: outcome(row) for row in comparisons if row["a"] == focus and row["metric"] == "macro_f1"
    }
    if not against or focus is None:
        return "This run holds no comparison of the collaboration with its controls."
    name = "GSCo" if focus == "gsco" else arm_name(focus)
    parts = [
        f"{phrase} {_listed([with_article(b) for b, o in against.items() if o == which])}"
        for which, phrase in (
            ("better", "did better than"),
            ("worse", "did worse than"),
            ("open", "could not be told apart from"),
        )
        if which in against.values()
    ]
    return f"By macro-F1, {name} " + _listed(parts) + "."


def faultless(arms: Mapping[str, Mapping[str, Any]], n: int) -> str:
    """Which arms answered all of `n` cases rightly, and how little that may say; empty where none did.

    Resamples without an error are all alike, so macro-F1 has an interval without width there; the exact
    one of accuracy tells what as many cases can show.
    """
    names = [arm for arm, figures in arms.items() if figures["accuracy"]["value"] == 1]
    if not names:
        return ""
    who = _listed([with_article(arm) for arm in names]) if len(names) < 4 else f"{len(names)} arms"
    return (
        f"Without a wrong answer in {counted(n, 'case')}: {who}. There macro-F1's interval has no width and "
        f"says nothing; the share of right answers is {number(arms[names[0]]['accuracy']['low'])} or more "
        "(exact 95 % interval)."
    )


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
