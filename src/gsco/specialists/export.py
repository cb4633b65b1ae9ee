"""A specialist written as a graph for another runtime, and the proof that it still says the same.

In fp32 an export must give the original's probabilities and logits to within `PARITY`. In lower precision
it must answer labelled validation cases as well as the original does (`Gate`). Otherwise nothing is left
on disk.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Dataset, ImageRef
from gsco.disk import writing
from gsco.errors import DatasetError, ModelError, StorageError
from gsco.specialists.calibration import judge, judge_labels
from gsco.specialists.exported import ExportedSpecialist
from gsco.specialists.graphs import Graph, graph_of, to_onnx
from gsco.specialists.preparation import stretched
from gsco.specialists.quantise import to_half, to_int8
from gsco.specialists.runtimes import check_runtime, to_openvino
from gsco.specialists.trained import TrainedSpecialist, TrainingJob

PARITY = 1e-4
"""The most by which a probability of an fp32 export may differ, and a logit as part of the largest one."""

CALIBRATION = 128  # training pictures that int8 ranges are taken from
AT_MOST = 500  # validation cases that are compared
_PHANTOMS = 24  # pictures drawn where no data are given

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Gate:
    """What an export in lower precision must keep on validation.

    Attributes:
        loss: the most that accuracy and macro-F1 may fall, absolute.
        agreement: the least share of cases with the same label as the original's.
    """

    loss: float = 0.005
    agreement: float = 0.99


class Bench:
    """The pictures on which an export is compared with its original, and what the original says.

    Attributes:
        source: what is exported; it is asked as PyTorch computes it.
        images: validation images, or phantoms where no dataset is given.
        targets: option positions of the images; None for phantoms.
        training: images that int8 ranges may be taken from.
        where: what the images are, in words.
        logits: what the source says, (N, options).
    """

    def __init__(
        self,
        source: TrainedSpecialist,
        images: Sequence[ImageRef],
        targets: NDArray[np.int64] | None,
        training: Sequence[ImageRef],
        where: str,
    ) -> None:
        self.source = source
        self.images = images
        self.targets = targets
        self.training = training
        self.where = where
        self.logits = source.logits(images)
        self.probabilities = source.calibrated(self.logits)

    def compare(self, other: TrainedSpecialist) -> dict[str, Any]:
        """How far another specialist is from the source, and its figures where there are labels."""
        logits = other.logits(self.images)
        found, before = self.source.calibrated(logits), self.probabilities
        same = _choices(self.source, found) == _choices(self.source, before)
        report: dict[str, Any] = {
            "compared on": f"{len(self.images)} {self.where}",
            "largest difference of a probability": _largest(found, before),
            "largest difference of a logit": _largest(logits, self.logits),
            "largest logit": float(np.abs(self.logits).max()),
            "agreement": float(same.mean()),
        }
        old, new = self.figures(before), self.figures(found)
        for key, value in new.items():
            report[key], report[f"{key} of the original"] = value, old[key]
        return report

    def figures(self, probabilities: NDArray[np.float64]) -> dict[str, float]:
        """``accuracy`` and ``macro_f1`` of calibrated probabilities; nothing where there are no labels."""
        if self.targets is None:
            return {}
        if self.source.multi_label:
            found = judge_labels(probabilities, self.targets, self.source.thresholds)
        else:
            found = judge(probabilities, self.targets)
        return {key: found[key] for key in ("accuracy", "macro_f1")}


def export_specialist(
    specialist: TrainedSpecialist,
    out: Path | str,
    *,
    to: str = "onnx",
    precision: str = "fp32",
    dataset: Dataset | None = None,
    gate: Gate | None = None,
    seed: int = 0,
    say: Say | None = None,
) -> ExportedSpecialist:
    """Write a specialist as one graph, prove it, and give it back as it is read from its folder.

    Args:
        specialist: a network, a linear probe on pooled features, or nearest neighbours.
        out: a folder that is not there yet.
        to: ``onnx`` or ``openvino``.
        precision: ``fp32``; ``fp16`` (half-precision weights); ``bf16`` (OpenVINO, where the processor has
            it); ``int8`` (static, ranges from training pictures).
        dataset: for validation images and labels, and for training pictures; phantoms without it, which is
            enough for fp32.
        gate: what lower precision must keep.
        seed: of the training pictures drawn for int8, and of the phantoms.
        say: called with what is being done.

    Raises:
        ModelError: no such target or precision, a runtime that is not installed, a specialist that cannot
            be a graph, one that is not the same afterwards.
        DatasetError: lower precision without labelled validation cases, or other options.
        StorageError: `out` exists or cannot be written.
    """
    say = say or (lambda _text: None)
    check_runtime(to, precision)
    refuse_existing(out)
    if precision != "fp32" and dataset is None:
        raise DatasetError(
            f"precision {precision} is checked on labelled validation cases, and no dataset is given",
            remedy="Give the dataset it was trained on with --data.",
        )
    graph = graph_of(specialist)
    with tempfile.TemporaryDirectory() as scratch:
        say("asking the original")
        bench = make_bench(specialist, dataset, Path(scratch), seed)
        say("tracing the graph")
        return write_export(bench, graph, to_onnx(graph), Path(out), to, precision, gate or Gate(), say)


def write_export(
    bench: Bench, graph: Graph, plain: bytes, out: Path, to: str, precision: str, gate: Gate, say: Say
) -> ExportedSpecialist:
    """Turn an fp32 ONNX graph into what was asked for, write it beside `out`, check it, rename it."""
    say(f"{to} {precision}: writing")
    made = _wrapped(bench.source, graph, to, precision, _files(bench, graph, plain, to, precision))
    say(f"{to} {precision}: comparing with the original")
    made.report = bench.compare(made)
    check(made.report, precision, gate)
    draft = out.with_name(f".{out.name}.draft")
    try:
        with writing(out):
            shutil.rmtree(draft, ignore_errors=True)
            made.save_pretrained(draft)
            read = ExportedSpecialist.from_pretrained(draft)
            draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    assert isinstance(read, ExportedSpecialist)
    return read


def check(report: dict[str, Any], precision: str, gate: Gate) -> None:
    """ModelError with the figures where an export is not what its original is."""
    if precision == "fp32":
        p, logit = report["largest difference of a probability"], report["largest difference of a logit"]
        if not (p <= PARITY and logit <= PARITY * max(1.0, report["largest logit"])):  # nor nan
            raise ModelError(
                f"the exported graph differs from the original by {p:.2g} in a probability, {logit:.2g} in "
                f"a logit; allowed are {PARITY:.0e}, and as much of the largest logit "
                f"({report['largest logit']:.2g})",
                remedy="Nothing was written; keep the original.",
            )
        return
    kept = report["agreement"] >= gate.agreement and all(
        report[key] >= report[f"{key} of the original"] - gate.loss for key in ("accuracy", "macro_f1")
    )
    if not kept:
        figures = ", ".join(
            f"{key} {report[key]:.3f} (was {report[f'{key} of the original']:.3f})"
            for key in ("accuracy", "macro_f1")
        )
        raise ModelError(
            f"{precision} does not pass: {figures}, agreement {report['agreement']:.3f}; "
            f"on {report['compared on']}; "
            f"a figure may fall by {gate.loss:g}, agreement must be {gate.agreement:g}",
            remedy="Nothing was written; export with --precision fp32.",
        )


def make_bench(
    specialist: TrainedSpecialist,
    dataset: Dataset | None,
    scratch: Path,
    seed: int,
    *,
    at_most: int = AT_MOST,
) -> Bench:
    """So many validation cases of a dataset, or seeded phantoms where there is none."""
    if dataset is None:
        from gsco.cases import load_dataset
        from gsco.cases.phantoms import generate_phantoms

        generate_phantoms(scratch / "phantoms", n=_PHANTOMS, seed=seed, size=128)
        drawn = [case.image for case in load_dataset(scratch / "phantoms").cases]
        return Bench(specialist, drawn, None, (), "phantoms")
    if dataset.task.keys != specialist.options:
        raise DatasetError(
            f"has the options {', '.join(dataset.task.keys)}, the specialist {', '.join(specialist.options)}",
            where=str(dataset.root),
            remedy="Give the dataset it was trained on.",
        )
    several = dataset.task.multi_label
    cases = [case for case in dataset.split("val") if several or case.label is not None][:at_most]
    if not cases:
        raise DatasetError(
            "has no labelled validation cases", where=str(dataset.root), remedy="Give another dataset."
        )
    training = [case.image for case in dataset.split("train")]
    order = np.random.default_rng(seed).permutation(len(training))[:CALIBRATION]
    return Bench(
        specialist,
        [case.image for case in cases],
        TrainingJob(dataset, (), tuple(cases), seed=seed, cache=scratch).val_targets,
        [training[at] for at in order],
        f"validation cases of {dataset.name}",
    )


def refuse_existing(out: Path | str) -> None:
    """StorageError where the folder to be written is there already."""
    if Path(out).exists():
        raise StorageError("exists already", where=str(out), remedy="Name another folder with --out.")


def _files(bench: Bench, graph: Graph, plain: bytes, to: str, precision: str) -> dict[str, bytes]:
    if precision == "int8":
        from gsco.cases.images import load_image

        if not bench.training:
            raise DatasetError("int8 takes its ranges from training images, and there are none")
        pictures = [stretched(load_image(image), graph.size, graph.interpolation) for image in bench.training]
        plain = to_int8(plain, pictures)
    elif precision == "fp16" and to == "onnx":
        plain = to_half(plain)
    return to_openvino(plain, half=precision == "fp16") if to == "openvino" else {"model.onnx": plain}


def _wrapped(
    source: TrainedSpecialist, graph: Graph, to: str, precision: str, files: dict[str, bytes]
) -> ExportedSpecialist:
    made = ExportedSpecialist(
        name=source.name,
        recipe=source.recipe,
        options=source.options,
        multi_label=source.multi_label,
        runtime=to,
        precision=precision,
        size=graph.size,
        interpolation=graph.interpolation,
        files=files,
        original={"kind": source.kind, "model": source._config()},
        report={},
    )
    # what every specialist has: temperatures, reliability, figures; the size may be a default in the source
    for key in (vars(source).keys() & vars(made).keys()) - {"size", "fast", "runtime_note"}:
        setattr(made, key, copy.deepcopy(getattr(source, key)))
    return made


def _largest(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.abs(a - b).max())


def _choices(specialist: TrainedSpecialist, probabilities: NDArray[np.float64]) -> NDArray[Any]:
    """Option said of each case (N,), or of each label whether it is said (N, options)."""
    if specialist.multi_label:
        return np.asarray(probabilities > specialist.thresholds)
    return np.asarray(probabilities.argmax(axis=1))
