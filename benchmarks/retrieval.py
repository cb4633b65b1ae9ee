"""Pooled exact index against the reference's way of finding similar cases: time and memory per query.

The reference searches flattened *un-pooled* feature maps (7 x 7 x 1280 numbers an image here) with
scikit-learn's brute-force cosine neighbours; this project pools them (1280 numbers) and searches exactly
with faiss. Both see the same images through the same network, in one process, in turns.

    python benchmarks/retrieval.py                       # phantoms, about half a minute
    python benchmarks/retrieval.py --data path/to/busi   # a dataset folder or a MedMNIST .npz

"memory" is what the search structure holds; "extra" is the most that one batch of queries allocates on top
of it as Python sees it (faiss's own small buffers are not seen). "same top k" is the share of neighbours
that a row has in common with the reference, "vote" the accuracy of their majority label.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, load_dataset, load_image
from gsco.cases.phantoms import generate_phantoms
from gsco.errors import ModelError
from gsco.retrieval import CaseIndex
from gsco.specialists.backbones import load_backbone

Positions = NDArray[np.int64]


@dataclass
class Way:
    """One way to search."""

    name: str
    search: Callable[[NDArray[np.float32]], Positions]
    queries: NDArray[np.float32]
    held: int


@dataclass
class Measured:
    """Seconds per query (median of the repeats) and bytes."""

    single_wall: float
    single_cpu: float
    batch_wall: float
    batch_cpu: float
    extra: int
    positions: Positions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="a dataset (default: synthetic phantoms)")
    parser.add_argument("--train", type=int, default=300, help="at most so many indexed cases")
    parser.add_argument("--queries", type=int, default=20, help="at most so many queries")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--random-weights", action="store_true", help="do not use the embedded weights")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = given.data or generate_phantoms(Path(scratch) / "phantoms", n=max(20, given.train * 3 // 2))
        dataset = load_dataset(data)
        train, test = dataset.split("train")[: given.train], dataset.split("test")[: given.queries]
        maps, weights = features(train, random=given.random_weights)
        queries, _ = features(test, random=given.random_weights)
    ways = build(maps, queries, train, given.k)
    measured = measure(ways, given.repeats)
    synthetic = " (synthetic phantoms)" if dataset.card.get("synthetic") else ""
    print(
        f"{dataset.name}{synthetic}: {len(train)} indexed, {len(test)} queries, k={given.k}, "
        f"maps {'x'.join(map(str, maps.shape[1:]))}, {weights} weights, median of {given.repeats}; "
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
    )
    show(ways, measured, train, test)


def features(cases: Sequence[Case], *, random: bool) -> tuple[NDArray[np.float32], str]:
    """Un-pooled maps of the cases' images, (n, channels, h, w), and which weights made them."""
    try:
        backbone = load_backbone(pretrained=not random)
    except ModelError as error:
        print(f"note: {error}; taking random weights")
        random, backbone = True, load_backbone(pretrained=False)
    prepared = [backbone.prepare(load_image(case.image)) for case in cases]
    return backbone.maps(prepared), "random" if random else "ImageNet"


def build(
    maps: NDArray[np.float32], queries: NDArray[np.float32], train: Sequence[Case], k: int
) -> list[Way]:
    """The reference's way first."""
    from sklearn.neighbors import NearestNeighbors

    flat = [a.reshape(len(a), -1) for a in (maps, queries)]
    flat = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in flat]
    brute = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(flat[0])
    pooled = CaseIndex.build(maps.mean((2, 3)), train, dataset="bench", encoder="bench")
    plain = CaseIndex.build(pooled.embeddings, train, dataset="bench", encoder="bench", engine="numpy")
    parity = CaseIndex.build(maps, train, dataset="bench", encoder="bench", pooled=False)
    few = np.ascontiguousarray(queries.mean((2, 3)))
    return [
        Way(
            "scikit-learn cosine, un-pooled (reference)",
            lambda q: brute.kneighbors(q)[1],
            flat[1],
            flat[0].nbytes,
        ),
        Way(
            "CaseIndex, un-pooled (parity mode)",
            lambda q: parity.kneighbors(q, k)[1],
            flat[1],
            parity.embeddings.nbytes,
        ),
        Way("CaseIndex, pooled, numpy", lambda q: plain.kneighbors(q, k)[1], few, plain.embeddings.nbytes),
        Way(
            "CaseIndex, pooled, faiss (default)",
            lambda q: pooled.kneighbors(q, k)[1],
            few,
            pooled.embeddings.nbytes,
        ),
    ]


def measure(ways: Sequence[Way], repeats: int) -> list[Measured]:
    """Time all ways in turns, so that a slow moment of the machine hits each of them."""
    single: list[list[tuple[float, float]]] = [[] for _ in ways]
    batch: list[list[tuple[float, float]]] = [[] for _ in ways]
    positions = [way.search(way.queries) for way in ways]  # also warms up
    for _ in range(repeats):
        for i, way in enumerate(ways):
            count = len(way.queries)
            single[i].append(clock(lambda way=way: [way.search(q[None]) for q in way.queries], count))  # type: ignore[misc]
            batch[i].append(clock(lambda way=way: way.search(way.queries), count))  # type: ignore[misc]
    out = []
    for i, way in enumerate(ways):
        tracemalloc.start()
        way.search(way.queries)
        extra = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        alone, together = (
            [statistics.median(t[j] for t in runs[i]) for j in (0, 1)] for runs in (single, batch)
        )
        out.append(Measured(alone[0], alone[1], together[0], together[1], extra, positions[i]))
    return out


def clock(work: Callable[[], object], count: int) -> tuple[float, float]:
    """Wall and CPU seconds per query."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def show(
    ways: Sequence[Way], measured: Sequence[Measured], train: Sequence[Case], test: Sequence[Case]
) -> None:
    """Print the table; ratios are reference / row, so that more is better."""
    titles = (
        "one at a time, wall",
        "CPU",
        "in a batch, wall",
        "CPU",
        "memory",
        "extra",
        "same top k",
        "vote",
    )
    print("| way | " + " | ".join(titles) + " |")
    print("|---" * (len(titles) + 1) + "|")
    first, reference = measured[0], ways[0]
    for way, m in zip(ways, measured, strict=True):
        same = np.mean(
            [len(set(a) & set(b)) / len(a) for a, b in zip(m.positions, first.positions, strict=True)]
        )
        cells = [
            f"{1e3 * mine:.3f} ms ({theirs / mine:.1f}x)"
            for mine, theirs in (
                (m.single_wall, first.single_wall),
                (m.single_cpu, first.single_cpu),
                (m.batch_wall, first.batch_wall),
                (m.batch_cpu, first.batch_cpu),
            )
        ]
        cells += [
            f"{way.held / 2**20:.1f} MiB ({reference.held / way.held:.0f}x)",
            f"{m.extra / 2**20:.2f} MiB ({first.extra / m.extra:.0f}x)",
            f"{same:.0%}",
            f"{vote(m.positions, train, test):.3f}",
        ]
        print(f"| {way.name} | " + " | ".join(cells) + " |")


def vote(positions: Positions, train: Sequence[Case], test: Sequence[Case]) -> float:
    """Accuracy of the neighbours' majority label (the nearest one's on a tie)."""
    right = 0
    for row, case in zip(positions, test, strict=True):
        labels = [train[int(p)].label for p in row]
        counts = Counter(labels)
        right += max(labels, key=lambda label: (counts[label], -labels.index(label))) == case.label
    return right / len(test)


if __name__ == "__main__":
    main()
