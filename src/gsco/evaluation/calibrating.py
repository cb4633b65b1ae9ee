"""Before the answers count: each generalist arm is asked about labelled validation cases.

A temperature and a bias per option are fitted on what it says (`fit_option_calibration`). The bias, which
can change an answer, is chosen as the best specialist is, by macro-F1 on validation: it stays where answers
mended by a fit on the other folds have a higher one than the generalist's own; else the temperature is
fitted alone. The same is done for the mean probability of the specialists, as a control: what calibrating
alone can do, without a generalist. Cases to be answered are never used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case
from gsco.collaboration import Evidence, OptionCalibration, fit_option_calibration
from gsco.evaluation.answering import ask_for_calibration
from gsco.evaluation.data import draw
from gsco.evaluation.logline import cluster_hash
from gsco.evaluation.metrics import macro_f1
from gsco.evaluation.parts import Parts, gather_evidence
from gsco.evaluation.runfolder import RunFolder
from gsco.evaluation.work import Work
from gsco.generalist import Generalist

CONTROL = "mean_probability"
_FILE = "calibration.json"
_FOLDS = 5


def calibrate(
    work: Work, cases: Sequence[Case], parts: Parts, generalist: Generalist | None
) -> dict[str, OptionCalibration]:
    """Fit on validation what the answers to `cases` are calibrated by, and write ``calibration.json``.

    Args:
        work: folder, settings and progress.
        cases: those to be answered; no more than so many are asked about here.
        parts: specialists and index, and the dataset with the validation cases.
        generalist: who is asked; None where no generalist arm is.

    Returns:
        By arm, and for mean probability; empty where nothing is calibrated (`calibration_cases` 0, free
        generation, validation cases answered themselves, no generalist).
    """
    config = work.config
    most = min(config.calibration_cases, len(cases))
    if generalist is None or not most or config.mode != "score" or config.split == "val":
        return {}
    known = read_calibrations(work.folder)
    if known:
        return known
    dataset = parts.taught
    labelled = draw([case for case in dataset.split("val") if case.label is not None], most, config.seed)
    evidence = gather_evidence(work, labelled, parts, "val")
    lines = ask_for_calibration(work, dataset, labelled, evidence, generalist)
    fits = _fit(lines, dataset.task.keys)
    fits[CONTROL] = _fit_control(labelled, evidence, dataset.task.keys, dataset.name)
    work.folder.write_json(_FILE, _to_json(fits, dataset.task.keys))
    return fits


def read_calibrations(folder: RunFolder) -> dict[str, OptionCalibration]:
    """What a run was calibrated by, by arm; empty where it was not."""
    found = folder.read_json(_FILE)
    return {
        arm: OptionCalibration(fit["temperature"], tuple(fit["bias"].values()), fit["n"])
        for arm, fit in (found or {"arms": {}})["arms"].items()
    }


def _fit(lines: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, OptionCalibration]:
    position = {key: i for i, key in enumerate(keys)}
    by_arm: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_arm.setdefault(line["arm"], []).append(line)
    return {
        arm: fit_where_it_helps(
            np.asarray([[row["probabilities"][key] for key in keys] for row in rows]),
            np.asarray([position[row["reference"]] for row in rows]),
            [row["cluster"] for row in rows],
        )
        for arm, rows in by_arm.items()
    }


def _fit_control(
    cases: Sequence[Case], evidence: Sequence[Evidence], keys: Sequence[str], dataset: str
) -> OptionCalibration:
    return fit_where_it_helps(
        np.stack([known.mean_probability() for known in evidence]),
        np.asarray([keys.index(str(case.label)) for case in cases]),
        [cluster_hash(dataset, case) for case in cases],
    )


def fit_where_it_helps(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], clusters: Sequence[str]
) -> OptionCalibration:
    """Temperature and biases, or the temperature alone where biases do not raise macro-F1 across folds.

    Args:
        probabilities: what was said about n cases, shape (n, n_options).
        truth: n true option positions.
        clusters: patient or group of each case, as in the log; a fold holds them whole.
    """
    ids = {cluster: i % _FOLDS for i, cluster in enumerate(sorted(set(clusters)))}
    folds = np.asarray([ids[cluster] for cluster in clusters])
    mended = np.empty(len(truth), dtype=np.int64)
    for fold in range(_FOLDS):
        here = folds == fold
        fit = fit_option_calibration(probabilities[~here], truth[~here])
        mended[here] = fit.apply(probabilities[here]).argmax(axis=1)
    n_options = probabilities.shape[1]
    before = macro_f1(truth, probabilities.argmax(axis=1), n_options)
    helps = macro_f1(truth, mended, n_options) > before
    if helps:
        return fit_option_calibration(probabilities, truth)
    return fit_option_calibration(probabilities, truth, bias_spread=0.0)


def _to_json(fits: Mapping[str, OptionCalibration], keys: Sequence[str]) -> dict[str, Any]:
    return {
        "schema": 1,
        "method": "softmax(log p / temperature + bias), fitted on labelled validation cases; "
        "bias only where it raises macro-F1 there across folds",
        "arms": {
            arm: {
                "n": fit.n,
                "temperature": fit.temperature,
                "bias": dict(zip(keys, fit.bias, strict=True)),
            }
            for arm, fit in fits.items()
        },
    }
