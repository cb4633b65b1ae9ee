"""From the lines of ``cases.jsonl`` to ``metrics.json``: same lines, same seed, same bytes.

Lines may come in any order; they are sorted by case id before anything is computed, and every float is
rounded to `DIGITS` digits at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Option
from gsco.errors import RunError
from gsco.evaluation import metrics as m
from gsco.evaluation import statistics as s
from gsco.evaluation.arm_words import arm_rank
from gsco.evaluation.metrics import Floats
from gsco.evaluation.selective import abstention_figures, selective_figures, set_figures

SCHEMA = 1
DIGITS = 6
COMPARISONS: tuple[tuple[str, str], ...] = (
    ("gsco", "best_specialist"),
    ("gsco", "majority_vote"),
    ("gsco", "mean_probability"),
    ("gsco", "neighbour_vote"),
    ("gsco", "generalist"),
    ("moed", "majority_vote"),
    ("rad", "neighbour_vote"),
    ("rad_images", "rad"),
    ("gsco_calibrated", "mean_probability"),
    ("gsco_calibrated", "gsco"),
)
COMPARED_METRICS: tuple[str, ...] = ("macro_f1", "accuracy")
COUNTED: dict[str, s.Statistic] = {
    "accuracy": m.accuracy_of,
    "balanced_accuracy": m.balanced_accuracy_of,
    "macro_f1": m.macro_f1_of,
}
SCORED: tuple[str, ...] = ("auc", "ece", "brier", "nll")


@dataclass(frozen=True)
class ArmAnswers:
    """The answers of one arm, sorted by case id.

    Attributes:
        name, kind: as in the log.
        case_ids: n case ids, ascending.
        clusters: unit of resampling of each case.
        reference: option positions, shape (n,).
        prediction: option positions or -1, shape (n,).
        probabilities: shape (n, K), or None where any case has none.
        n_options: K.
        uncalibrated: probabilities before calibration, or None where any case has none.
        label_sets: which options each case's conformal set holds, shape (n, K); None where there are none.
        abstains: shape (n,); None where the arm always answers.
        failed: how many cases the generalist gave no answer to, for good. They count as wrong, and for
            figures of probabilities as even ones.
    """

    name: str
    kind: str
    case_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    reference: NDArray[np.int64]
    prediction: NDArray[np.int64]
    probabilities: Floats | None
    n_options: int
    uncalibrated: Floats | None = None
    label_sets: NDArray[np.bool_] | None = None
    abstains: NDArray[np.bool_] | None = None
    failed: int = 0

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Which answers are right, shape (n,)."""
        return np.equal(self.reference, self.prediction)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Shape (K, K + 1), unparsed last."""
        return m.confusion_matrix(self.reference, self.prediction, self.n_options)

    @cached_property
    def cluster_positions(self) -> tuple[NDArray[np.int64], int]:
        """Cluster number of each case, and how many clusters there are."""
        return s.cluster_positions(self.clusters)

    @cached_property
    def cluster_confusions(self) -> Floats:
        """Confusion matrix of each cluster, shape (n_clusters, K, K + 1)."""
        positions, n_clusters = self.cluster_positions
        out = np.zeros((n_clusters, self.n_options, self.n_options + 1))
        said = np.where(self.prediction == m.UNPARSED, self.n_options, self.prediction)
        np.add.at(out, (positions, self.reference, said), 1.0)
        return out

    def at(self, case_ids: Sequence[str]) -> ArmAnswers:
        """The same arm on some of its cases, in the order given."""
        if tuple(case_ids) == self.case_ids:
            return self
        where = {case_id: i for i, case_id in enumerate(self.case_ids)}
        rows = np.asarray([where[case_id] for case_id in case_ids], dtype=np.int64)
        return ArmAnswers(
            self.name,
            self.kind,
            tuple(case_ids),
            tuple(self.clusters[i] for i in rows),
            self.reference[rows],
            self.prediction[rows],
            None if self.probabilities is None else self.probabilities[rows],
            self.n_options,
            None if self.uncalibrated is None else self.uncalibrated[rows],
            None if self.label_sets is None else self.label_sets[rows],
            None if self.abstains is None else self.abstains[rows],
        )


def collect(lines: Iterable[Mapping[str, Any]], keys: Sequence[str], split: str) -> dict[str, ArmAnswers]:
    """Group the log by arm.

    Args:
        lines: parsed lines of ``cases.jsonl``; lines of other splits are left out, and a line repeated
            word for word counts once.
        keys: option keys in the task's order.
        split: the split to evaluate.

    Raises:
        RunError: a label outside the options, or two different answers to one case by one arm.
    """
    position = {key: i for i, key in enumerate(keys)}
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for line in lines:
        if line.get("split") != split:
            continue
        mine = rows.setdefault(str(line["arm"]), {})
        case_id = str(line["case_id"])
        before = mine.setdefault(case_id, line)
        if before is not line and before.get("prediction") != line.get("prediction"):
            raise RunError(
                f"two different answers of {line['arm']} to {case_id}",
                where="cases.jsonl",
                remedy="Start the run again in a new folder.",
            )
        for label in (line["reference"], line.get("prediction")):
            if label is not None and label not in position:
                raise RunError(
                    f"label {label!r} of {case_id} is not among the options {', '.join(keys)}",
                    where="cases.jsonl",
                    remedy="Use the options the run was made with.",
                )
    return {arm: _answers(arm, rows[arm], position) for arm in sorted(rows, key=arm_rank)}


def _answers(arm: str, rows: Mapping[str, Mapping[str, Any]], position: Mapping[str, int]) -> ArmAnswers:
    case_ids = tuple(sorted(rows))
    ordered = [rows[case_id] for case_id in case_ids]

    def table(name: str) -> Floats | None:
        even = dict.fromkeys(position, 1 / len(position))
        scored = [even if row.get("failed") else row.get(name) for row in ordered]
        if not all(scored) or all(row.get("failed") for row in ordered):
            return None
        return np.asarray([[float(p.get(key, 0.0)) for key in position] for p in scored if p])

    return ArmAnswers(
        arm,
        str(ordered[0].get("kind", "")),
        case_ids,
        tuple(str(row.get("cluster") or row["case_id"]) for row in ordered),
        np.asarray([position[row["reference"]] for row in ordered], dtype=np.int64),
        np.asarray(
            [m.UNPARSED if row.get("prediction") is None else position[row["prediction"]] for row in ordered],
            dtype=np.int64,
        ),
        table("probabilities"),
        len(position),
        table("uncalibrated"),
        np.asarray([[key in row["label_set"] for key in position] for row in ordered])
        if all(row.get("label_set") for row in ordered)
        else None,
        np.asarray([row["abstains"] for row in ordered], dtype=np.bool_)
        if all(row.get("abstains") is not None for row in ordered)
        else None,
        sum(bool(row.get("failed")) for row in ordered),
    )


def summarise(
    lines: Iterable[Mapping[str, Any]],
    *,
    dataset: str,
    task: str,
    options: Sequence[Option | Mapping[str, str]],
    split: str = "test",
    seed: int = 0,
    n_resamples: int = s.RESAMPLES,
    n_shuffles: int = s.SHUFFLES,
    comparisons: Sequence[tuple[str, str]] = COMPARISONS,
) -> dict[str, Any]:
    """All figures of a run.

    Args:
        lines: parsed lines of ``cases.jsonl``, one per case and arm, in any order.
        dataset: its name.
        task: what was asked, e.g. ``"diagnosis"``.
        options: the closed options in the task's order, as `Option` or as ``{"key": …, "name": …}``.
        split: the split to evaluate.
        seed: of resamples and shuffles.
        n_resamples: bootstrap resamples for intervals.
        n_shuffles: shuffles for p-values.
        comparisons: pairs of arms; a pair with an arm that is not in the log is left out.

    Returns:
        ``metrics.json`` (schema 1): plain dicts, lists, strings, numbers; None for undefined figures.

    Raises:
        RunError: the log holds no case of the split, or contradicts itself or the options.
    """
    named = [o if isinstance(o, Option) else Option(o["key"], o.get("name") or o["key"]) for o in options]
    keys = tuple(option.key for option in named)
    arms = collect(lines, keys, split)
    if not arms:
        raise RunError(
            f"no case of split {split!r} was answered",
            where="cases.jsonl",
            remedy="Continue with `gsco run --resume`.",
        )
    cases = {
        c: (k, r) for a in arms.values() for c, k, r in zip(a.case_ids, a.clusters, a.reference, strict=True)
    }
    return {
        "schema": SCHEMA,
        "dataset": dataset,
        "task": task,
        "split": split,
        "n": len(cases),
        "n_clusters": len({cluster for cluster, _ in cases.values()}),
        "options": [{"key": option.key, "name": option.name} for option in named],
        "arms": {name: rounded(figures(arm, keys, n_resamples, seed)) for name, arm in arms.items()},
        "comparisons": rounded(_comparisons(arms, comparisons, n_resamples, n_shuffles, seed)),
        "repairs": _repairs(arms),
        "constant": rounded(_constant(np.asarray([r for _, r in cases.values()], dtype=np.int64), keys)),
        "method": {
            "seed": seed,
            "n_resamples": n_resamples,
            "n_shuffles": n_shuffles,
            "interval": "95 % percentile bootstrap over clusters",
            "p_value": "two-sided paired approximate randomisation over clusters",
            "holm": "over the comparisons of the same metric in this file",
            "ece": f"top label, {m.ECE_BINS} equal-width bins",
            "brier": "sum over options, 0 to 2",
            "selective": "surest answers first, ties in the mean over their orders",
            "digits": DIGITS,
        },
    }


def figures(arm: ArmAnswers, keys: Sequence[str], n_resamples: int, seed: int) -> dict[str, Any]:
    """All figures of one arm, not yet `rounded`; `keys` are the options in order."""
    out: dict[str, Any] = {"kind": arm.kind, "n": len(arm.case_ids), "n_clusters": arm.cluster_positions[1]}
    for name, statistic in COUNTED.items():
        interval = s.bootstrap_interval(arm.cluster_confusions, statistic, n_resamples=n_resamples, seed=seed)
        if name == "accuracy":
            interval = s.exact_at_ends(interval, out["n_clusters"])
        out[name] = interval._asdict()
    out.update(dict.fromkeys(SCORED) if arm.probabilities is None else _scored(arm, n_resamples, seed))
    if arm.probabilities is not None:
        out["selective"] = selective_figures(arm.probabilities.max(axis=1), arm.right)
    if arm.label_sets is not None:
        out["sets"] = set_figures(arm.label_sets, arm.reference)
    if arm.abstains is not None:
        out["abstained"] = abstention_figures(arm.abstains, arm.right)
    if arm.uncalibrated is not None:
        out["ece_uncalibrated"] = m.ece(arm.reference, arm.uncalibrated)
    recall, precision, f1 = m.recall_of(arm.confusion), m.precision_of(arm.confusion), m.f1_of(arm.confusion)
    out["per_class"] = {
        key: {
            "recall": float(recall[i]),
            "precision": float(precision[i]),
            "f1": float(f1[i]),
            "n": int(arm.confusion[i].sum()),
        }
        for i, key in enumerate(keys)
    }
    # Rows are references, columns predictions in the options' order; unparsed answers stand beside, per row.
    out["confusion"] = arm.confusion[:, :-1].tolist()
    out["unparsed_per_class"] = arm.confusion[:, -1].tolist()
    out["unparsed"] = int(arm.confusion[:, -1].sum())
    if arm.failed:
        out["failed"] = arm.failed  # of the unparsed
    return out


def _scored(arm: ArmAnswers, n_resamples: int, seed: int) -> dict[str, Any]:
    assert arm.probabilities is not None  # for the type checker; the caller has looked
    p, truth = arm.probabilities, arm.reference
    positions, n_clusters = arm.cluster_positions

    def auc_draws() -> Floats:
        blocks = s.cluster_weights(n_clusters, n_resamples, seed)
        return np.concatenate([m.auc_of(truth, p, w[:, positions]) for w in blocks])

    def mean(sums: Floats) -> Any:
        return sums[..., 0] / sums[..., 1]

    def mean_of(scores: Floats) -> s.Interval:
        sums = s.per_cluster(np.stack([scores, np.ones_like(scores)], axis=1), positions, n_clusters)
        return s.bootstrap_interval(sums, mean, n_resamples=n_resamples, seed=seed)

    bins = s.per_cluster(m.ece_cells(truth, p), positions, n_clusters)
    area = m.auc(truth, p)
    found = {
        "auc": None if math.isnan(area) else s.percentile_interval(area, auc_draws()),
        # A resample's ECE is biased upwards by more than its spread: its quantiles are no interval.
        "ece": s.Interval(float(m.ece_of(bins.sum(axis=0)[None])[0]), math.nan, math.nan),
        "brier": mean_of(m.brier_scores(truth, p)),
        "nll": mean_of(m.nll_scores(truth, p)),
    }
    return {name: None if interval is None else interval._asdict() for name, interval in found.items()}


def _comparisons(
    arms: Mapping[str, ArmAnswers],
    pairs: Sequence[tuple[str, str]],
    n_resamples: int,
    n_shuffles: int,
    seed: int,
) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for a, b in pairs:
        if a not in arms or b not in arms:
            continue
        shared = sorted(set(arms[a].case_ids) & set(arms[b].case_ids))
        if not shared:
            continue
        one, other = arms[a].at(shared), arms[b].at(shared)
        for metric in COMPARED_METRICS:
            found = s.compare(
                one.cluster_confusions,
                other.cluster_confusions,
                COUNTED[metric],
                n_resamples=n_resamples,
                n_shuffles=n_shuffles,
                seed=seed,
            )
            row: dict[str, Any] = {"a": a, "b": b, "metric": metric, "n": len(shared), **found._asdict()}
            if metric == "accuracy":
                row["mcnemar_p"] = s.mcnemar_exact(one.right, other.right)
            out.append(row)
    for metric in COMPARED_METRICS:
        family = [row for row in out if row["metric"] == metric]
        for row, adjusted in zip(family, s.holm([row["p_value"] for row in family]), strict=True):
            row["p_holm"] = adjusted
    return out


def _repairs(arms: Mapping[str, ArmAnswers]) -> dict[str, dict[str, int]]:
    """How often each generalist arm is right where the specialists' majority is wrong, and the reverse."""
    majority = arms.get("majority_vote")
    if majority is None:
        return {}
    out = {}
    for name, arm in arms.items():
        if arm.kind != "generalist":
            continue
        shared = sorted(set(arm.case_ids) & set(majority.case_ids))
        mine, theirs = arm.at(shared).right, majority.at(shared).right
        out[name] = {
            "wrong_majority": int((~theirs).sum()),
            "repaired": int((mine & ~theirs).sum()),
            "right_majority": int(theirs.sum()),
            "broken": int((~mine & theirs).sum()),
        }
    return out


def _constant(reference: NDArray[np.int64], keys: Sequence[str]) -> dict[str, Any]:
    """The best one can do by always giving the same answer: the most frequent one, for both figures."""
    best = int(np.bincount(reference, minlength=len(keys)).argmax())
    always = np.full(len(reference), best)
    return {
        "key": keys[best],
        "macro_f1": m.macro_f1(reference, always, len(keys)),
        "accuracy": m.accuracy(reference, always, len(keys)),
    }


def rounded(value: Any) -> Any:
    """Floats to `DIGITS` digits and nan to None, through dicts and lists; -0.0 becomes 0.0."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, DIGITS) + 0.0
    return value
