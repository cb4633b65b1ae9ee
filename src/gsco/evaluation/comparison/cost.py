"""What a specialist costs: bytes and weights, and, apart from all figures, time."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from gsco.cases import ImageRef
from gsco.evaluation.comparison.answers import Contestant
from gsco.specialists.chosen import runtime_of

BATCH = 16


def size_of(contestant: Contestant) -> dict[str, Any]:
    """``recipe``, ``runtime`` (what computes its answers), ``folder``, ``size_mb`` (its folder, 10^6 bytes),
    ``parameters`` (numbers it keeps), ``backbone`` and ``backbone_parameters`` (of the frozen network it
    stands on, else None), ``reliability``.
    """
    specialist, folder = contestant.specialist, contestant.folder
    backbone = getattr(specialist, "backbone_name", None)
    return {
        "recipe": getattr(specialist, "recipe", None),
        "runtime": runtime_of(specialist),
        "folder": str(folder),
        "fingerprint": contestant.fingerprint,
        "reliability": specialist.reliability,
        "size_mb": round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6, 3),
        "parameters": _stored(folder),
        "backbone": backbone,
        "backbone_parameters": None if backbone is None else _weights(backbone),
    }


def measure(contestant: Contestant, images: Sequence[ImageRef]) -> dict[str, Any]:
    """Milliseconds an image, from the file to the probabilities, with nothing read from any cache.

    Args:
        contestant: read again from its folder, without a cache.
        images: up to 16 are used; the first one warms up and does not count.

    Returns:
        ``ms_single``: median over images asked for one by one; ``ms_batch``: mean over all asked for at
        once; ``cpu_ms_batch``: the same in processor time; ``images``; ``threads``.
    """
    import torch

    from gsco.specialists import load_specialist

    specialist = load_specialist(contestant.folder, cache=None)
    some = list(images[:BATCH])
    specialist.predict(some[:1])
    single = []
    for image in some:
        started = time.perf_counter()
        specialist.predict([image])
        single.append(time.perf_counter() - started)
    started, busy = time.perf_counter(), time.process_time()
    specialist.predict(some)
    took, worked = time.perf_counter() - started, time.process_time() - busy
    return {
        "ms_single": round(1000 * statistics.median(single), 2),
        "ms_batch": round(1000 * took / len(some), 2),
        "cpu_ms_batch": round(1000 * worked / len(some), 2),
        "images": len(some),
        "threads": torch.get_num_threads(),
    }


def _stored(folder: Path) -> int | None:
    """How many numbers the safetensors of a folder hold; None where there are none."""
    total, files = 0, sorted(folder.rglob("*.safetensors"))
    for path in files:
        with path.open("rb") as file:  # the header says it: 8 bytes of its length, then JSON
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, entry in header.items():
            if name != "__metadata__":
                count = 1
                for side in entry["shape"]:
                    count *= side
                total += count
    return total if files else None


@lru_cache(maxsize=8)
def _weights(backbone: str) -> int:
    from gsco.specialists.named_networks import create_network

    model, _ = create_network(backbone, pretrained=False, num_classes=0)
    return sum(int(weight.numel()) for weight in model.parameters())
