"""The figures of one specialist or team, each ``{value, low, high}``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from gsco.cases import Case
from gsco.evaluation import metrics as m
from gsco.evaluation import statistics as s
from gsco.evaluation.comparison.multi_label import LabelAnswers, judge_labels, label_f1
from gsco.evaluation.metrics import Floats
from gsco.evaluation.summary import COUNTED, ArmAnswers, figures, rounded

Answers: TypeAlias = ArmAnswers | LabelAnswers
"""One label a case, or several."""
METRICS: tuple[str, ...] = ("macro_f1", "accuracy", "balanced_accuracy", "auc", "ece", "brier", "nll")
LOWER_IS_BETTER: tuple[str, ...] = ("ece", "brier", "nll")


def as_answers(
    name: str, cases: Sequence[Case], truth: ArrayLike, probabilities: Floats, thresholds: Floats | None
) -> Answers:
    """Answers to labelled cases.

    Args:
        name: who answered.
        cases: n cases.
        truth: their option positions; with thresholds, 0 or 1 by label, (n, options).
        probabilities: (n, options).
        thresholds: above which each label is said, (options,); None where a case has one label.
    """
    clusters = tuple(case.cluster for case in cases)
    if thresholds is not None:
        return LabelAnswers(name, clusters, np.asarray(truth) > 0, probabilities, thresholds)
    return ArmAnswers(
        name,
        "specialist",
        tuple(case.id for case in cases),
        clusters,
        np.asarray(truth, dtype=np.int64),
        probabilities.argmax(axis=1).astype(np.int64),
        probabilities,
        probabilities.shape[1],
    )


def by_key(keys: Sequence[str], values: Floats | None) -> dict[str, float]:
    """Thresholds by label; nothing where a case has one label."""
    return {} if values is None else dict(zip(keys, rounded(values.tolist()), strict=True))


def judge(
    answers: Answers,
    keys: Sequence[str],
    *,
    ordinal: bool = False,
    n_resamples: int = s.RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """All figures with 95 % intervals (bootstrap over patients, groups or images).

    Args:
        answers: of one specialist.
        keys: option keys in order.
        ordinal: whether these are grades in ascending order.
        n_resamples, seed: of the bootstrap.

    Returns:
        By metric: `METRICS`, for grades ``quadratic_kappa``, and ``recall:<key>`` of each option; of
        several labels a case, what `judge_labels` gives. ECE has no interval (a resample's is biased
        upwards); a figure that cannot be had is None.
    """
    if isinstance(answers, LabelAnswers):
        return judge_labels(answers, keys, n_resamples=n_resamples, seed=seed)
    found = figures(answers, keys, n_resamples, seed)
    nothing = {"value": math.nan, "low": math.nan, "high": math.nan}
    out: dict[str, Any] = {name: found[name] or nothing for name in METRICS}

    sums = answers.cluster_confusions

    def counted(statistic: s.Statistic) -> s.Interval:
        return s.bootstrap_interval(sums, statistic, n_resamples=n_resamples, seed=seed)

    if ordinal:
        out["quadratic_kappa"] = counted(m.quadratic_kappa_of)._asdict()
    for i, key in enumerate(keys):

        def recall(confusions: Floats, i: int = i) -> Any:
            return m.recall_of(confusions)[..., i]

        having = int(np.count_nonzero(sums[:, i].sum(axis=-1)))
        out[f"recall:{key}"] = s.exact_at_ends(counted(recall), having)._asdict()
    made: dict[str, dict[str, float | None]] = rounded(out)
    return made


def compare_macro_f1(
    a: Answers, b: Answers, *, n_resamples: int = s.RESAMPLES, seed: int = 0
) -> dict[str, float]:
    """Paired difference of macro-F1 on the same cases: ``difference``, ``low``, ``high``, ``p_value``."""
    drawn = {"n_resamples": n_resamples, "seed": seed}
    if isinstance(a, LabelAnswers) and isinstance(b, LabelAnswers):
        found = s.compare(a.cluster_cells, b.cluster_cells, label_f1, **drawn)
    else:
        assert isinstance(a, ArmAnswers) and isinstance(b, ArmAnswers)
        found = s.compare(a.cluster_confusions, b.cluster_confusions, COUNTED["macro_f1"], **drawn)
    return found._asdict()
