"""The figures of one specialist or team, each ``{value, low, high}``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gsco.evaluation import metrics as m
from gsco.evaluation import statistics as s
from gsco.evaluation.metrics import Floats
from gsco.evaluation.summary import ArmAnswers, figures, rounded

METRICS: tuple[str, ...] = ("macro_f1", "accuracy", "balanced_accuracy", "auc", "ece", "brier", "nll")
LOWER_IS_BETTER: tuple[str, ...] = ("ece", "brier", "nll")


def judge(
    answers: ArmAnswers,
    keys: Sequence[str],
    *,
    ordinal: bool = False,
    n_resamples: int = s.RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """All figures with 95 % intervals (bootstrap over patients).

    Args:
        answers: of one specialist.
        keys: option keys in order.
        ordinal: whether these are grades in ascending order.
        n_resamples, seed: of the bootstrap.

    Returns:
        By metric: `METRICS`, for grades ``quadratic_kappa``, and ``recall:<key>`` of each option. ECE has
        no interval (a resample's is biased upwards); a figure that cannot be had is None.
    """
    found = figures(answers, keys, n_resamples, seed)
    nothing = {"value": math.nan, "low": math.nan, "high": math.nan}
    out: dict[str, Any] = {name: found[name] or nothing for name in METRICS}

    def counted(statistic: s.Statistic) -> dict[str, float]:
        sums = answers.cluster_confusions
        return s.bootstrap_interval(sums, statistic, n_resamples=n_resamples, seed=seed)._asdict()

    if ordinal:
        out["quadratic_kappa"] = counted(m.quadratic_kappa_of)
    for i, key in enumerate(keys):

        def recall(confusions: Floats, i: int = i) -> Any:
            return m.recall_of(confusions)[..., i]

        out[f"recall:{key}"] = counted(recall)
    made: dict[str, dict[str, float | None]] = rounded(out)
    return made
