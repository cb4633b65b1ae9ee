"""The ten architectures of the benchmark as graphs: what ONNX Runtime and OpenVINO say against PyTorch.

    python benchmarks/exports.py [ARCHITECTURE ...]

Weights are random, batch statistics are not the identity, and the last layer is scaled until the largest
logit is 10, so that probabilities spread over the whole range. Pictures are 24 phantoms, taken as the
benchmark's procedures take 28-pixel ones: padded with zeros to 224. Each graph has to pass the check of `gsco
specialist export` in fp32. Largest absolute differences of a probability and of a logit are shown.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import torch

from gsco.errors import ModelError
from gsco.specialists.architectures import REFERENCE
from gsco.specialists.export import Bench, Gate, make_bench, write_export
from gsco.specialists.graphs import graph_of, to_onnx
from gsco.specialists.named_networks import create_network
from gsco.specialists.networks import NetworkSpecialist

OPTIONS = ("disc", "ring", "stripes")
LARGEST = 10.0


def untrained(architecture: str, size: int, pad: int) -> NetworkSpecialist:
    """A network of that architecture with random weights and random batch statistics."""
    torch.manual_seed(0)
    model, _ = create_network(architecture, pretrained=False, num_classes=len(OPTIONS), side=pad)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    config = model.pretrained_cfg
    made = NetworkSpecialist(
        name=architecture,
        recipe=f"endToEnd:{architecture}",
        options=OPTIONS,
        architecture=architecture,
        size=size,
        mean=config["mean"],
        std=config["std"],
        pad=pad,
    )
    made.adopt(model.state_dict())
    return made


def spread(source: NetworkSpecialist, bench: Bench) -> Bench:
    """The bench of the same network with its last layer scaled until the largest logit is `LARGEST`."""
    model = source.plain_network()
    classifier = cast("Any", model).get_classifier()
    last = next(name for name, module in model.named_modules() if module is classifier)
    factor = LARGEST / float(abs(bench.logits).max())
    state = source.state_dict()
    source.adopt(
        {key: value * factor if key.startswith(f"{last}.") else value for key, value in state.items()}
    )
    return Bench(source, bench.images, None, (), bench.where)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("architectures", nargs="*", default=REFERENCE, metavar="ARCHITECTURE")
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--pad", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| architecture | runtime | largest Δ probability | largest Δ logit | agreement | s | verdict |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for architecture in options.architectures:
        with tempfile.TemporaryDirectory() as scratch:
            source = untrained(architecture, options.size, options.pad)
            bench = spread(source, make_bench(source, None, Path(scratch), 0))
            graph, plain = graph_of(source), b""
            for to in ("onnx", "openvino"):
                started = time.perf_counter()
                try:
                    plain = plain or to_onnx(graph)
                    out = Path(scratch) / to
                    made = write_export(bench, graph, plain, out, to, "fp32", Gate(), lambda _: None)
                    report, verdict = made.report, "passes"
                    keys = ("largest difference of a probability", "largest difference of a logit")
                    cells = [f"{report[key]:.1e}" for key in keys] + [f"{report['agreement']:.3f}"]
                except ModelError as error:
                    cells, verdict = ["", "", ""], error.what
                took = time.perf_counter() - started
                print(f"| {architecture} | {to} | {' | '.join(cells)} | {took:.0f} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()
