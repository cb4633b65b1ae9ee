"""The reference's results JSON: what a specialist said about a test split, and its similar training cases.

``{dataset}_{size}_{procedure}_{architecture}_s{seed}_results.json`` of ``inference_specialist.py``. What it
calls ``all_search_sims`` are cosine *distances*; here they are called so.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Dataset
from gsco.disk import write_atomic
from gsco.errors import DatasetError, ModelError
from gsco.evaluation import metrics
from gsco.specialists.calibration import sigmoid, softmax

if TYPE_CHECKING:
    from gsco.specialists import TrainedSpecialist

TOP_N = 10
_KEYS = ("ACC", "AUC", "y_true", "y_pred", "y_logits")
_SEARCH = ("all_search_sims", "all_search_train_ids", "all_search_train_labels")


@dataclass(frozen=True)
class ReferenceResults:
    """One specialist on one test split.

    Attributes:
        accuracy / auc: as medmnist's evaluator computes them; the area is nan where there is none.
        auc_by_class: one against rest; nan for a class without cases.
        checkpoint: the file of the weights, as it was named.
        reference: option positions (N,), or 0/1 by label (N, options).
        prediction: likewise.
        logits: (N, options), uncalibrated.
        distances: cosine distance of the most similar training cases, nearest first, (N, top n).
        train_rows: their rows in the training split, (N, top n).
        train_labels: their labels: (N, top n), or (N, top n, options).
    """

    accuracy: float
    auc: float
    auc_by_class: tuple[float, ...]
    checkpoint: str
    reference: NDArray[np.int64]
    prediction: NDArray[np.int64]
    logits: NDArray[np.float64]
    distances: NDArray[np.float64]
    train_rows: NDArray[np.int64]
    train_labels: NDArray[np.int64]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Uncalibrated probabilities, (N, options)."""
        return sigmoid(self.logits) if self.reference.ndim == 2 else softmax(self.logits)


def reference_results(
    specialist: TrainedSpecialist,
    dataset: Dataset,
    *,
    cache: Path,
    checkpoint: str = "",
    top_n: int = TOP_N,
) -> ReferenceResults:
    """What the reference's script would write about a specialist, on the dataset's test split.

    The similar cases are found by the un-pooled maps of the specialist's own network, as there.

    Raises:
        ModelError: the specialist has no network of its own, or other options than the dataset.
        DatasetError: there are no training or no test cases.
    """
    from gsco.retrieval import CaseIndex
    from gsco.specialists.bagged import principal
    from gsco.specialists.features import extract
    from gsco.specialists.heads import FeatureSpecialist
    from gsco.specialists.networks import NetworkSpecialist

    finder = principal(specialist)
    if isinstance(finder, NetworkSpecialist):
        network = finder.network
    elif isinstance(finder, FeatureSpecialist):
        network = finder.backbone
    else:
        raise ModelError(
            f"specialist {specialist.name!r} has no network to find similar cases by",
            remedy="Take one that was trained here or imported.",
        )
    if specialist.options != dataset.task.keys:
        raise ModelError(
            f"specialist {specialist.name!r} answers {', '.join(specialist.options)}, in this order, while "
            f"{dataset.name} has {', '.join(dataset.task.keys)}",
            remedy="Give the dataset that it was trained on.",
        )
    several = dataset.task.multi_label
    train = [case for case in dataset.split("train") if several or case.label is not None]
    test = [case for case in dataset.split("test") if several or case.label is not None]
    for split, cases in (("training", train), ("test", test)):
        if not cases:
            raise DatasetError(
                f"has no labelled {split} case",
                where=str(dataset.root),
                remedy="The reference's results are about test cases and the training cases like them.",
            )
    maps = extract(network, [case.image for case in train], cache=cache, pooled=False)
    index = CaseIndex.build(maps, train, dataset=dataset.name, encoder=network.fingerprint, pooled=False)
    asked = extract(network, [case.image for case in test], cache=cache, pooled=False)
    found = index.search(asked, min(top_n, len(train)))
    row = {case.id: i for i, case in enumerate(train)}
    rows = [[row[neighbour.case_id] for neighbour in near] for near in found]
    truth, known = _targets(dataset, test), _targets(dataset, train)
    logits = specialist.logits([case.image for case in test])
    probabilities = sigmoid(logits) if several else softmax(logits)
    said = (probabilities > 0.5).astype(np.int64) if several else probabilities.argmax(axis=1)
    columns = [truth[:, k] if several else truth == k for k in range(len(dataset.task.options))]
    return ReferenceResults(
        accuracy=float((said == truth).mean()),
        auc=metrics.auc(truth, probabilities),
        auc_by_class=tuple(
            metrics.binary_auc(column, probabilities[:, k]) for k, column in enumerate(columns)
        ),
        checkpoint=checkpoint,
        reference=truth,
        prediction=said,
        logits=logits,
        distances=np.asarray([[1 - neighbour.similarity for neighbour in near] for near in found]),
        train_rows=np.asarray(rows, dtype=np.int64),
        train_labels=known[np.asarray(rows, dtype=np.int64)],
    )


def _targets(dataset: Dataset, cases: list[Any]) -> NDArray[np.int64]:
    if not dataset.task.multi_label:
        return np.asarray(dataset.targets(cases), dtype=np.int64)
    return np.asarray([[key in case.labels for key in dataset.task.keys] for case in cases], dtype=np.int64)


def write_results(results: ReferenceResults, path: Path | str) -> None:
    """Write the JSON; what is not finite becomes null, as there.

    Raises:
        StorageError: the file cannot be written.
    """
    write_atomic(
        Path(path),
        json.dumps(
            {
                "ACC": results.accuracy,
                "AUC": _safe(results.auc),
                "per_class_AUC": [_safe(value) for value in results.auc_by_class],
                "checkpoint_file": results.checkpoint,
                "y_true": results.reference.tolist(),
                "y_pred": results.prediction.tolist(),
                "y_logits": results.logits.tolist(),
                "all_search_sims": results.distances.tolist(),
                "all_search_train_ids": results.train_rows.tolist(),
                "all_search_train_labels": results.train_labels.tolist(),
            },
            indent=2,
        )
        + "\n",
    )


def read_results(path: Path | str) -> ReferenceResults:
    """Read a results JSON of the reference; one without similar cases has them empty.

    Raises:
        ModelError: there is no such file, or it is not one.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError("there is no such file", where=str(path)) from None
    except (OSError, ValueError):
        raise ModelError("is not JSON", where=str(path)) from None
    absent = [key for key in _KEYS if not isinstance(found, dict) or key not in found]
    if absent:
        raise ModelError(
            f"is not a results file of the reference: it has no {absent[0]}",
            where=str(path),
            remedy="Give the JSON that inference_specialist.py writes.",
        )
    try:
        made = _from_json(found)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"holds what is not numbers ({error})", where=str(path)) from None
    lengths = {len(made.reference), len(made.prediction), len(made.logits)}
    if made.distances.size:
        lengths |= {len(made.distances), len(made.train_rows), len(made.train_labels)}
    if len(lengths) > 1 or made.logits.ndim != 2:
        raise ModelError("its lists are of unlike lengths", where=str(path))
    return made


def _from_json(found: dict[str, Any]) -> ReferenceResults:
    n = len(found["y_true"])
    search = [found.get(key) or [[]] * n for key in _SEARCH]
    by_class = found.get("per_class_AUC") or []
    return ReferenceResults(
        accuracy=float(found["ACC"]),
        auc=_number(found["AUC"]),
        auc_by_class=tuple(_number(value) for value in by_class),
        checkpoint=str(found.get("checkpoint_file", "")),
        reference=np.asarray(found["y_true"], dtype=np.int64),
        prediction=np.asarray(found["y_pred"], dtype=np.int64),
        logits=np.asarray(found["y_logits"], dtype=np.float64),
        distances=np.asarray(search[0], dtype=np.float64),
        train_rows=np.asarray(search[1], dtype=np.int64),
        train_labels=np.asarray(search[2], dtype=np.int64),
    )


def _safe(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
