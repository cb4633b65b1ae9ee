"""The runtime that answers fastest on this machine, among those that pass."""

from __future__ import annotations

import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Dataset
from gsco.errors import DatasetError, ModelError
from gsco.specialists.export import Gate, Say, make_bench, refuse_existing, write_export
from gsco.specialists.exported import ExportedSpecialist
from gsco.specialists.graphs import graph_of, shipped, to_onnx
from gsco.specialists.runtimes import PRECISIONS
from gsco.specialists.trained import TrainedSpecialist

BATCHES = (1, 16)
"""Pictures a call at which candidates are timed."""
PYTORCH = "pytorch"
_CANDIDATES = tuple(
    (to, precision)
    for to, precisions in PRECISIONS.items()
    for precision in precisions
    if precision != "fp16"
)


def export_fastest(
    specialist: TrainedSpecialist,
    out: Path | str,
    *,
    dataset: Dataset | None,
    gate: Gate | None = None,
    seed: int = 0,
    say: Say | None = None,
) -> dict[str, Any]:
    """Export a specialist to each runtime and precision, keep the fastest that passes.

    Candidates are PyTorch as shipped, ONNX Runtime and OpenVINO in fp32 and int8, and OpenVINO in bf16 where
    the processor has it. The least geometric mean of the CPU time a picture at batch 1 and at batch 16 wins.
    Where PyTorch wins, `out` is a copy of the specialist.

    Returns:
        ``kept``, ``why``, ``candidates`` (a row each: ``candidate``, ``batch_1``, ``batch_16`` in CPU
        milliseconds a picture, ``accuracy``, ``macro_f1``, ``verdict``) and the comparison of what was kept.

    Raises:
        DatasetError: no dataset, or one that does not fit.
        ModelError, StorageError: see `gsco.specialists.export.export_specialist`.
    """
    say = say or (lambda _text: None)
    if dataset is None:
        raise DatasetError("the fastest runtime is chosen on validation cases", remedy="Give --data.")
    out = Path(out)
    refuse_existing(out)
    graph = graph_of(specialist)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        say("asking the original")
        bench = make_bench(specialist, dataset, Path(scratch), seed)
        say("tracing the graph")
        plain = to_onnx(graph)
        rows = [_row(PYTORCH, bench.compare(specialist))]
        runs: list[Callable[[NDArray[np.uint8]], Any]] = [shipped(specialist)]
        made: dict[str, ExportedSpecialist] = {}
        for to, precision in _CANDIDATES:
            name = f"{to} {precision}"
            try:
                one = write_export(
                    bench,
                    graph,
                    plain,
                    Path(scratch) / name.replace(" ", "-"),
                    to,
                    precision,
                    gate or Gate(),
                    say,
                )
            except ModelError as error:
                rows.append(_row(name, {}, error.what))
                continue
            made[name] = one
            rows.append(_row(name, one.report))
            runs.append(one.run)
        say("timing")
        ready = [row for row in rows if row["verdict"] == "passes"]
        for row, spent in zip(ready, timings(runs, graph.size), strict=True):
            row.update({f"batch_{batch}": spent[batch][0] for batch in BATCHES})
        best = min(ready, key=lambda row: math.prod(row[f"batch_{batch}"] for batch in BATCHES))
        kept = best["candidate"]
        why = (
            f"least CPU time of {len(ready)} that pass: {best['batch_1']:.2f} ms a picture at batch 1, "
            f"{best['batch_16']:.2f} at batch 16; PyTorch as shipped takes {rows[0]['batch_1']:.2f} and "
            f"{rows[0]['batch_16']:.2f}"
        )
        choice = {"kept": kept, "why": why, "candidates": rows}
        draft = Path(scratch) / "kept"
        if kept == PYTORCH:
            specialist.details["runtime"] = why
            specialist.save_pretrained(draft)
        else:
            made[kept].report = {**made[kept].report, **choice}
            made[kept].save_pretrained(draft)
            choice = made[kept].report
        shutil.move(draft, out)
    return choice


def timings(
    runs: list[Callable[[NDArray[np.uint8]], Any]], size: int, *, repeats: int = 5
) -> list[dict[int, tuple[float, float]]]:
    """CPU and wall milliseconds a picture of each way to run, by batch; medians, the ways taken in turns.

    Args:
        runs: functions of uint8 pictures (N, size, size, 3).
        size: side of the pictures.
        repeats: turns.
    """
    rng = np.random.default_rng(0)
    spent: list[dict[int, tuple[float, float]]] = [{} for _ in runs]
    for batch in BATCHES:
        pixels = rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
        calls = max(1, 16 // batch)
        times: list[list[tuple[float, float]]] = [[] for _ in runs]
        for turn in range(repeats + 1):
            for run, taken in zip(runs, times, strict=True):
                cpu, wall = time.process_time(), time.perf_counter()
                for _ in range(calls if turn else 1):
                    run(pixels)
                pictures = calls * batch / 1000
                if turn:  # the first call is slow in every way
                    taken.append(
                        ((time.process_time() - cpu) / pictures, (time.perf_counter() - wall) / pictures)
                    )
        for one, taken in zip(spent, times, strict=True):
            cpus, walls = zip(*taken, strict=True)
            one[batch] = (statistics.median(cpus), statistics.median(walls))
    return spent


def _row(name: str, report: dict[str, Any], verdict: str = "passes") -> dict[str, Any]:
    figures = {key: report.get(key) for key in ("accuracy", "macro_f1", "agreement")}
    return {"candidate": name, "batch_1": None, "batch_16": None, **figures, "verdict": verdict}
