"""The runtime that answers fastest on this machine, among those that pass."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Dataset
from gsco.disk import writing
from gsco.errors import DatasetError, ModelError
from gsco.specialists.chosen import CHOICE, FOLDER, PYTORCH, mark_of, this_machine
from gsco.specialists.export import AT_MOST, Bench, Gate, Say, make_bench, write_export
from gsco.specialists.graphs import Graph, graph_of, shipped, to_onnx
from gsco.specialists.trained import TrainedSpecialist

BATCHES = (1, 16)
"""Pictures a call at which candidates are timed."""
CANDIDATES = (
    ("onnx", "fp32"),
    ("openvino", "fp32"),
    ("onnx", "int8"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
"""What is tried beside PyTorch; half precision is only smaller."""
_QUICK = 64  # validation cases where only parity is asked about
_A_TURN = 0.25  # seconds that one candidate may take in a turn, unless a single call takes longer

Run = Callable[[NDArray[np.uint8]], Any]


def choose_runtime(
    specialist: TrainedSpecialist,
    folder: Path | str,
    dataset: Dataset | None,
    *,
    quick: bool = False,
    gate: Gate | None = None,
    seed: int = 0,
    say: Say | None = None,
) -> dict[str, Any]:
    """Try a specialist in each runtime and precision, and keep the fastest that passes in its folder.

    Candidates are PyTorch as shipped, ONNX Runtime and OpenVINO in fp32 and int8, and OpenVINO in bf16 where
    the processor has it. The least geometric mean of the CPU time a picture at batch 1 and at batch 16 wins.
    From then on `load_specialist` lets it answer on this machine. What was chosen before is replaced.

    Args:
        specialist: what is in `folder`.
        folder: the specialist's; ``runtime`` is written in it.
        dataset: the one it was trained on, for validation images and labels.
        quick: only fp32, checked on fewer images.
        gate: what lower precision must keep.
        seed: of the training pictures drawn for int8.
        say: called with what is being done.

    Returns:
        ``kept``, ``why``, ``machine``, ``original`` (see `mark_of`) and ``candidates``: a row each with
        ``candidate``, ``batch_1``, ``batch_16`` in CPU milliseconds a picture, ``accuracy``, ``macro_f1``,
        ``agreement``, ``difference`` (the largest one of a probability) and ``verdict``.

    Raises:
        DatasetError: no dataset, one without validation cases, or one that does not fit.
        ModelError: the specialist cannot be a graph, or onnx is not installed.
        StorageError: the folder cannot be written.
    """
    say = say or (lambda _text: None)
    if dataset is None:
        raise DatasetError("the fastest runtime is chosen on validation cases", remedy="Give --data.")
    folder = Path(folder)
    graph = graph_of(specialist)
    say("tracing the graph")
    plain = to_onnx(graph)
    with writing(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".runtime.") as scratch:
        say("pytorch: asking the original")
        few = _QUICK if quick else AT_MOST
        bench = make_bench(specialist, dataset, Path(scratch), seed, at_most=few)
        candidates = [each for each in CANDIDATES if each[1] == "fp32" or not quick]
        rows, runs = _tried(bench, graph, plain, Path(scratch), candidates, gate or Gate(), say)
        say("timing")
        choice = _fastest(rows, runs, graph.size)
        choice |= {"machine": this_machine(), "original": mark_of(specialist)}
        draft = Path(scratch) / choice["kept"].replace(" ", "-")
        draft.mkdir(exist_ok=True)
        (draft / CHOICE).write_text(json.dumps(choice, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        draft.rename(folder / FOLDER)
    return choice


def _tried(
    bench: Bench,
    graph: Graph,
    plain: bytes,
    scratch: Path,
    candidates: Sequence[tuple[str, str]],
    gate: Gate,
    say: Say,
) -> tuple[list[dict[str, Any]], dict[str, Run]]:
    """A row of each candidate, and those that pass, ready to run; exports are left in `scratch`."""
    rows = [_row(PYTORCH, {"agreement": 1.0, _DIFFERENCE: 0.0, **bench.figures(bench.probabilities)})]
    runs: dict[str, Run] = {PYTORCH: shipped(bench.source)}
    for to, precision in candidates:
        name = f"{to} {precision}"
        try:
            made = write_export(bench, graph, plain, scratch / f"{to}-{precision}", to, precision, gate, say)
        except ModelError as error:
            rows.append(_row(name, {}, error.what))
            continue
        rows.append(_row(name, made.report))
        runs[name] = made.run
    return rows, runs


def _fastest(rows: list[dict[str, Any]], runs: dict[str, Run], size: int) -> dict[str, Any]:
    """Time what passes, and say which it is and why."""
    ready = {row["candidate"]: row for row in rows if row["candidate"] in runs}
    for row, spent in zip(ready.values(), timings(list(runs.values()), size), strict=True):
        row.update({f"batch_{batch}": spent[batch][0] for batch in BATCHES})
    took = {name: math.prod(row[f"batch_{batch}"] for batch in BATCHES) for name, row in ready.items()}
    kept = min(took, key=lambda name: took[name])
    why = "the fastest here"
    if kept != PYTORCH:
        ratio = math.sqrt(took[PYTORCH] / took[kept])
        why += f", {ratio:.1f} times as fast as PyTorch"
    return {"kept": kept, "why": f"{why}, of {len(ready)} that pass", "candidates": rows}


def timings(runs: Sequence[Run], size: int, *, repeats: int = 5) -> list[dict[int, tuple[float, float]]]:
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
        calls = [_calls(run, pixels) for run in runs]
        times: list[list[tuple[float, float]]] = [[] for _ in runs]
        for _ in range(repeats):
            for run, n, taken in zip(runs, calls, times, strict=True):
                cpu, wall = time.process_time(), time.perf_counter()
                for _ in range(n):
                    run(pixels)
                pictures = n * batch / 1000
                taken.append(
                    ((time.process_time() - cpu) / pictures, (time.perf_counter() - wall) / pictures)
                )
        for one, taken in zip(spent, times, strict=True):
            cpus, walls = zip(*taken, strict=True)
            one[batch] = (statistics.median(cpus), statistics.median(walls))
    return spent


def _calls(run: Run, pixels: NDArray[np.uint8]) -> int:
    """How many calls make a turn; the first call is slow in every way, and only warms up."""
    run(pixels)
    started = time.perf_counter()
    run(pixels)
    return max(1, min(16 // len(pixels), int(_A_TURN / (time.perf_counter() - started))))


_DIFFERENCE = "largest difference of a probability"


def _row(name: str, report: dict[str, Any], verdict: str = "passes") -> dict[str, Any]:
    figures = {key: report.get(key) for key in ("accuracy", "macro_f1", "agreement")}
    times = {f"batch_{batch}": None for batch in BATCHES}
    return {
        "candidate": name,
        **times,
        **figures,
        "difference": report.get(_DIFFERENCE),
        "verdict": verdict,
    }
