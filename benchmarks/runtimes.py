"""A specialist in PyTorch, ONNX Runtime and OpenVINO: time a picture at batch 1 and 16, accuracy beside it.

    python benchmarks/runtimes.py --data path/to/busi SPECIALIST_FOLDER ...

"PyTorch eager" is the plain network in NCHW fp32; "as shipped" is what `load_specialist` gives: batch norm
and activations fused, channels-last, blocks of four. All ways take the same uint8 pictures, decoded
beforehand, and give logits. All are in one process and taken in turns; medians of the repeats count. ONNX
Runtime and OpenVINO (``INFERENCE_NUM_THREADS``, one stream) use as many threads as PyTorch. OpenVINO is asked
for f32, and once for its own default precision, which is bf16 where the processor has it. CPU time is the
better figure on a machine that does other things too. int8 is shown whether or not it passes the gate.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray

from gsco import embedded
from gsco.cases import load_dataset
from gsco.cases.images import load_image
from gsco.errors import ModelError
from gsco.specialists import load_specialist
from gsco.specialists.calibration import judge
from gsco.specialists.export import Gate, check, make_bench, write_export
from gsco.specialists.fastest import BATCHES, timings
from gsco.specialists.graphs import graph_of, shipped, to_onnx
from gsco.specialists.preparation import stretched

Run = Callable[[NDArray[np.uint8]], NDArray[Any]]
OPEN = Gate(loss=1, agreement=0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="SPECIALIST_FOLDER")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"CPU: {openvino.Core().get_property('CPU', 'FULL_DEVICE_NAME').strip()}, {options.threads} thread(s)"
    )
    for folder in options.folders:
        compare(folder, options.data, options.repeats, options.threads)


def compare(folder: Path, data: Path, repeats: int, threads: int) -> None:
    """Print the table of one specialist."""
    source = load_specialist(folder, cache=embedded.cache_home())
    graph = graph_of(source)
    plain = to_onnx(graph)
    ways: dict[str, Run] = {}
    said: dict[str, str] = {}

    def eager(pixels: NDArray[np.uint8]) -> NDArray[Any]:
        with torch.inference_mode():
            return np.asarray(graph(torch.from_numpy(pixels)))

    ways["PyTorch eager, NCHW fp32"] = eager
    ways["PyTorch as shipped"] = shipped(source)
    with tempfile.TemporaryDirectory() as scratch:
        bench = make_bench(source, load_dataset(data), Path(scratch), 0)
        for to, precision in (("onnx", "fp32"), ("onnx", "int8"), ("openvino", "fp32"), ("openvino", "int8")):
            name = f"{'ONNX Runtime' if to == 'onnx' else 'OpenVINO'} {precision}"
            made = write_export(
                bench, graph, plain, Path(scratch) / f"{to}{precision}", to, precision, OPEN, lambda _: None
            )
            ways[name] = made.run
            try:
                check(made.report, precision, Gate())
                said[name] = "passes"
            except ModelError:
                said[name] = "fails"
        files = Path(scratch) / "openvinofp32" / "model.xml"
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        default = openvino.Core().compile_model(files, "CPU", settings)
        ways["OpenVINO, default precision"] = lambda pixels: default([pixels])["logits"]
        spent = timings(list(ways.values()), graph.size, repeats=repeats)
        pictures = np.stack(
            [stretched(load_image(image), graph.size, graph.interpolation) for image in bench.images]
        )
        what = f"{source.name} ({type(graph.trunk).__name__}, {graph.size} px)"
        print(f"\n{what}; accuracy and macro-F1 on {len(pictures)} {bench.where}\n")
        print(
            "| way | CPU ms, batch 1 | wall | CPU ratio | CPU ms, batch 16 | wall | CPU ratio "
            "| accuracy | macro-F1 | largest Δp | gate |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|---|")
        for (name, run), row in zip(ways.items(), spent, strict=True):
            logits = np.concatenate([run(pictures[at : at + 4]) for at in range(0, len(pictures), 4)])
            found = source.calibrated(logits.astype(np.float64))
            assert bench.targets is not None  # the pictures are a dataset's
            figures = judge(found, bench.targets)
            cells = []
            for batch in BATCHES:
                cpu, wall = row[batch]
                cells += [f"{cpu:.2f}", f"{wall:.2f}", f"{spent[0][batch][0] / cpu:.2f} ×"]
            worst = np.abs(found - bench.probabilities).max()
            cells += [
                f"{figures['accuracy']:.3f}",
                f"{figures['macro_f1']:.3f}",
                f"{worst:.0e}",
                said.get(name, ""),
            ]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
