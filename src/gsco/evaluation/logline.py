"""One line of ``cases.jsonl``: what one arm answered to one case, and everything it was told."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from gsco.cases import Case
from gsco.collaboration import CALIBRATED, GENERALIST_ARMS, Answer, Evidence, ShownCase
from gsco.retrieval import Foreignness, Neighbour
from gsco.specialists import Opinion

SCHEMA = 1


def make_line(case: Case, answer: Answer, evidence: Evidence, *, dataset: str) -> dict[str, Any]:
    """The log's line for one case and arm.

    The patient (or group) stands in it as a hash only, which is enough to resample by patient.
    Probabilities keep eight significant digits, so that figures computed from the log do not depend on
    the last bits of a floating-point sum.

    Args:
        case: the case that was answered.
        answer: one arm's answer to it.
        evidence: all that was known about the case; an arm may have heard a part of it.
        dataset: the dataset's name.
    """
    return {
        "schema": SCHEMA,
        "case_id": case.id,
        "cluster": cluster_hash(dataset, case),
        "arm": answer.arm,
        "kind": kind_of(answer.arm),
        "split": case.split,
        "reference": case.label,
        "prediction": answer.prediction,
        "probabilities": _shares(answer.probabilities),
        "uncalibrated": _shares(answer.uncalibrated),
        "prompt": answer.prompt,
        "raw": answer.raw,
        "template": answer.template,
        "evidence": evidence_dict(evidence) if answer.arm in GENERALIST_ARMS else None,
        "image": str(case.image),
        **({"shown": [_shown(case) for case in answer.shown]} if answer.shown else {}),
        **({} if answer.failed is None else {"failed": answer.failed}),
    }


def pooled_line(heard: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """The line of an arm that was computed from another line: the same case, another answer.

    Args:
        heard: the line of the arm whose evidence and answer were used.
        answer: the answer; its label set and abstention stand in the line, too.
    """
    return {
        **{name: value for name, value in heard.items() if name not in ("failed", "shown")},
        "arm": answer.arm,
        "kind": kind_of(answer.arm),
        "prediction": answer.prediction,
        "probabilities": _shares(answer.probabilities),
        "uncalibrated": None,
        "prompt": None,
        "raw": None,
        "template": None,
        "evidence": None,
        "label_set": list(answer.label_set or ()),
        "abstains": answer.abstains,
    }


def kind_of(arm: str) -> str:
    """``generalist``, ``specialist``, ``control``, or ``pool`` for all of them together."""
    if arm in GENERALIST_ARMS:
        return "generalist"
    if arm == CALIBRATED:
        return "pool"
    return "specialist" if arm.startswith("specialist:") else "control"


def evidence_dict(evidence: Evidence) -> dict[str, Any]:
    """Opinions, neighbours and what they say of the image as JSON values."""
    foreign = evidence.foreignness
    said: dict[str, Any] = {
        "opinions": [
            {
                "specialist": opinion.specialist,
                "probabilities": [_digits(p) for p in opinion.probabilities],
                "reliability": None if opinion.reliability is None else _digits(opinion.reliability),
                "class_reliability": None
                if opinion.class_reliability is None
                else [_digits(share) for share in opinion.class_reliability],
                "abstains": opinion.abstains,
            }
            for opinion in evidence.opinions
        ],
        "neighbours": [
            {
                "case_id": neighbour.case_id,
                "similarity": _digits(neighbour.similarity),
                "labels": list(neighbour.labels),
                "dataset": neighbour.dataset,
                "index_version": neighbour.index_version,
            }
            for neighbour in evidence.neighbours
        ],
        "neighbour_reliability": None
        if evidence.neighbour_reliability is None
        else _digits(evidence.neighbour_reliability),
        "foreignness": None
        if foreign is None
        else {
            "score": _digits(foreign.score),
            "nearer": _digits(foreign.nearer),
            "p_value": _digits(foreign.p_value),
            "is_foreign": foreign.is_foreign,
        },
    }
    # of the digits that are logged, so that whoever reads them finds the same
    disagreement = read_evidence(said).disagreement()
    return {**said, "disagreement": None if disagreement is None else _digits(disagreement)}


def read_evidence(values: Mapping[str, Any]) -> Evidence:
    """What `evidence_dict` wrote; fields that older runs did not write are left at their defaults."""
    return Evidence(
        tuple(
            Opinion(
                row["specialist"],
                tuple(row["probabilities"]),
                row["reliability"],
                None if row.get("class_reliability") is None else tuple(row["class_reliability"]),
                bool(row.get("abstains", False)),
            )
            for row in values["opinions"]
        ),
        tuple(Neighbour(**{**row, "labels": tuple(row["labels"])}) for row in values["neighbours"]),
        values.get("neighbour_reliability"),
        None if values.get("foreignness") is None else Foreignness(**values["foreignness"]),
    )


def cluster_hash(dataset: str, case: Case) -> str:
    """Sixteen hex digits that are the same for cases of one patient (or group) and say nothing else."""
    return hashlib.sha256(f"{dataset}\0{case.cluster}".encode()).hexdigest()[:16]


def _shown(case: ShownCase) -> dict[str, str]:
    """A known case that was shown, the exact words included."""
    return {"case_id": case.case_id, "prompt": case.example.prompt, "answer": case.example.answer}


def _shares(probabilities: dict[str, float] | None) -> dict[str, float] | None:
    return None if probabilities is None else {key: _digits(p) for key, p in probabilities.items()}


def _digits(value: float) -> float:
    return float(f"{float(value):.8g}")
