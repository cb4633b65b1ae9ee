"""Generalist-specialist collaboration for medical imaging. Research use only, not a medical device.

The names below are loaded when they are first used, so that ``import gsco`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Answer": "gsco.collaboration",
    "Case": "gsco.cases",
    "CaseIndex": "gsco.retrieval",
    "Collaboration": "gsco.collaboration",
    "Dataset": "gsco.cases",
    "Diagnosis": "gsco.evaluation.diagnose",
    "Evidence": "gsco.collaboration",
    "Generalist": "gsco.generalist",
    "GscoError": "gsco.errors",
    "ImageRef": "gsco.cases",
    "Foreignness": "gsco.retrieval",
    "Neighbour": "gsco.retrieval",
    "Opinion": "gsco.specialists",
    "Option": "gsco.cases",
    "RunConfig": "gsco.evaluation.config",
    "RunResult": "gsco.evaluation.conclusion",
    "Specialist": "gsco.specialists",
    "Task": "gsco.cases",
    "UserError": "gsco.errors",
    "build_evidence": "gsco.evaluation.evidence_build",
    "check_leakage": "gsco.retrieval",
    "diagnose": "gsco.evaluation.diagnose",
    "generate_phantoms": "gsco.cases.phantoms",
    "get_template": "gsco.collaboration",
    "load_dataset": "gsco.cases",
    "load_generalist": "gsco.generalist",
    "load_image": "gsco.cases",
    "load_specialist": "gsco.specialists",
    "read_evidence": "gsco.evaluation.evidence_folder",
    "resume": "gsco.evaluation.run",
    "run": "gsco.evaluation.run",
    "train_specialist": "gsco.specialists",
}

__all__ = [
    "Answer",
    "Case",
    "CaseIndex",
    "Collaboration",
    "Dataset",
    "Diagnosis",
    "Evidence",
    "Foreignness",
    "Generalist",
    "GscoError",
    "ImageRef",
    "Neighbour",
    "Opinion",
    "Option",
    "RunConfig",
    "RunResult",
    "Specialist",
    "Task",
    "UserError",
    "__version__",
    "build_evidence",
    "check_leakage",
    "diagnose",
    "generate_phantoms",
    "get_template",
    "load_dataset",
    "load_generalist",
    "load_image",
    "load_specialist",
    "read_evidence",
    "resume",
    "run",
    "train_specialist",
]

if TYPE_CHECKING:
    from gsco.cases import Case, Dataset, ImageRef, Option, Task, load_dataset, load_image
    from gsco.cases.phantoms import generate_phantoms
    from gsco.collaboration import Answer, Collaboration, Evidence, get_template
    from gsco.errors import GscoError, UserError
    from gsco.evaluation.conclusion import RunResult
    from gsco.evaluation.config import RunConfig
    from gsco.evaluation.diagnose import Diagnosis, diagnose
    from gsco.evaluation.evidence_build import build_evidence
    from gsco.evaluation.evidence_folder import read_evidence
    from gsco.evaluation.run import resume, run
    from gsco.generalist import Generalist, load_generalist
    from gsco.retrieval import CaseIndex, Foreignness, Neighbour, check_leakage
    from gsco.specialists import Opinion, Specialist, load_specialist, train_specialist


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'gsco' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
