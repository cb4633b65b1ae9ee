"""Feature extraction as shipped against plain PyTorch, and a second run from the store.

    python benchmarks/features.py                       # phantoms
    python benchmarks/features.py --data path/to/busi   # a dataset folder or a MedMNIST .npz

"plain" is what one writes first: timm's network in eval mode, pictures decoded and transformed one after
the other, NCHW float32 batches of 16, ``forward_features`` and a mean. Both ways see the same pictures in
one process, in turns, with the same number of threads; the median of the repeats counts. CPU time is the
better figure on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from gsco.cases import ImageRef, load_dataset, load_image
from gsco.cases.phantoms import generate_phantoms
from gsco.specialists.backbones import Backbone, load_backbone
from gsco.specialists.features import extract
from gsco.specialists.named_networks import create_network

Features = NDArray[np.float32]


def plain_features(network: torch.nn.Module, backbone: Backbone, refs: Sequence[ImageRef]) -> Features:
    """Pooled features the plain way; the transform is the same one, so that the numbers can be compared."""
    out = []
    with torch.inference_mode():
        for start in range(0, len(refs), 16):
            pictures = [backbone.transform(load_image(ref)).contiguous() for ref in refs[start : start + 16]]
            maps: torch.Tensor = cast("Any", network).forward_features(torch.stack(pictures))
            out.append(maps.mean((2, 3)).numpy())
    return np.concatenate(out)


def measured(work: Callable[[], Features]) -> tuple[Features, float, float]:
    """Result, wall seconds, CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="dataset folder or .npz; phantoms when not given")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, in both ways")
    parser.add_argument("--backbone", default="embedded")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.data
        if folder is None:
            folder = Path(scratch) / "phantoms"
            generate_phantoms(folder, n=options.images, seed=0, size=256)
        refs = [case.image for case in load_dataset(folder).cases[: options.images]]
        backbone = load_backbone(options.backbone)
        network = create_network(options.backbone, pretrained=True)[0].eval()
        plain_features(network, backbone, refs[:16])  # the first batch is slow in every way
        backbone.pooled([load_image(refs[0])] * 8)
        runs: dict[str, list[tuple[float, float]]] = {
            "plain NCHW fp32": [],
            "as shipped": [],
            "from the store": [],
        }
        worst = 0.0
        for repeat in range(options.repeats):
            cache = Path(scratch) / f"cache{repeat}"
            plain, *spent = measured(lambda: plain_features(network, backbone, refs))
            runs["plain NCHW fp32"].append((spent[0], spent[1]))
            shipped, *spent = measured(partial(extract, backbone, refs, cache=cache))
            runs["as shipped"].append((spent[0], spent[1]))
            stored, *spent = measured(partial(extract, backbone, refs, cache=cache))
            runs["from the store"].append((spent[0], spent[1]))
            worst = max(worst, float(np.abs(plain - shipped).max()))
            if not np.array_equal(stored, shipped):
                raise SystemExit("the store gave other values than the network")
    what = f"{backbone.name} at {backbone.size} px, {options.threads} thread(s)"
    print(f"{len(refs)} images of {folder.name}, {what}")
    print(f"largest difference of a feature between the ways: {worst:.1e}\n")
    medians = {
        name: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for name, rows in runs.items()
    }
    report(medians, len(refs))


def report(medians: dict[str, tuple[float, ...]], n: int) -> None:
    """The table, as Markdown; the store is compared with the shipped way, the others with the plain one."""
    plain, shipped = medians["plain NCHW fp32"], medians["as shipped"]
    print("| way | images/s | wall, ms/image | CPU, ms/image | wall ratio | CPU ratio |")
    print("|---|---|---|---|---|---|")
    for name, (wall, cpu) in medians.items():
        base = shipped if name == "from the store" else plain
        against = "× shipped" if name == "from the store" else "× plain"
        print(
            f"| {name} | {n / wall:.1f} | {1000 * wall / n:.2f} | {1000 * cpu / n:.2f} "
            f"| {base[0] / wall:.2f} {against} | {base[1] / max(cpu, 1e-9):.2f} {against} |"
        )


if __name__ == "__main__":
    main()
