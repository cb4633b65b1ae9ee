"""Evidence on disk: ``evidence.jsonl``, a line per case, and ``evidence.json``, how it was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gsco.cases import Case, Split
from gsco.cases.hashing import file_hash
from gsco.collaboration import Evidence
from gsco.errors import RunError
from gsco.evaluation.logline import cluster_hash, evidence_dict
from gsco.evaluation.logline import read_evidence as typed
from gsco.evaluation.runfolder import RunFolder

SCHEMA = 1
RECORD = "evidence.json"
LOG = "evidence.jsonl"
KEY = ("case_id", "split")
"""What stands once in the log."""

_REMEDY = "Give `gsco evidence build` the same settings again: it goes on where it stopped."


def evidence_line(case: Case, evidence: Evidence, *, dataset: str, out_of_fold: bool) -> dict[str, Any]:
    """The line of one case; the patient stands in it as a hash only (`cluster_hash`).

    Args:
        case: the case that the evidence is about.
        evidence: what is known about it; numbers keep eight significant digits.
        dataset: the dataset's name.
        out_of_fold: whether all of it comes from who never saw a training case that it is about.
    """
    return {
        "schema": SCHEMA,
        "case_id": case.id,
        "cluster": cluster_hash(dataset, case),
        "split": case.split,
        "reference": case.label,
        "out_of_fold": out_of_fold,
        "evidence": evidence_dict(evidence),
    }


def read_evidence_record(folder: Path | str) -> dict[str, Any]:
    """``evidence.json`` of a finished build.

    Raises:
        RunError: there is none, or the build is not finished.
    """
    where = RunFolder(Path(folder))
    record: dict[str, Any] | None = where.read_json(RECORD)
    if record is None:
        raise RunError(
            f"holds no {RECORD}",
            where=str(folder),
            remedy="Make it with `gsco evidence build --data DATA --specialists NAME --out DIR`.",
        )
    if record.get("schema") != SCHEMA:
        raise RunError(
            f"has schema {record.get('schema')!r}, not {SCHEMA}",
            where=str(where.path / RECORD),
            remedy="Upgrade gsco, or build the evidence again.",
        )
    if not record.get("complete"):
        raise RunError("is not finished", where=str(folder), remedy=_REMEDY)
    return record


def read_evidence(folder: Path | str, *, split: Split | None = None) -> dict[str, Evidence]:
    """Evidence by case id, in the order of the file: train, val, test.

    What is known about training cases comes from specialists that were trained without them and from
    neighbours of other patients; about the others, from the specialists themselves.

    Args:
        folder: what `gsco.build_evidence` wrote.
        split: the cases of one split only.

    Raises:
        RunError: no evidence, an unfinished build, or a file that is not the one that was written.
    """
    record = read_evidence_record(folder)
    path = RunFolder(Path(folder)).path / LOG
    try:
        if file_hash(path) != record["sha256"]:
            raise RunError("was changed since it was built", where=str(path), remedy="Build it again.")
        found = {}
        with path.open(encoding="utf-8") as file:
            for line in map(json.loads, file):
                if split is None or line["split"] == split:
                    found[str(line["case_id"])] = typed(line["evidence"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"cannot be read ({error})", where=str(path), remedy="Build it again.") from error
    return found
