"""What several tests of runs share: a tiny dataset and the log read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "cases.jsonl").read_text(encoding="utf-8").splitlines()]


def small_dataset(
    folder: Path,
    *,
    n: int = 24,
    labels: tuple[str, ...] = ("a", "b"),
    splits: tuple[str, ...] = ("train", "val", "test"),
) -> Path:
    """Images of two brightness levels with noise: cheap and learnable."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = ["image,label,split"]
    for i in range(n):
        label = i % len(labels)
        level = 60 + 120 * label
        pixels = np.clip(rng.normal(level, 30, (32, 32)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i:02}.png")
        rows.append(f"images/{i:02}.png,{labels[label]},{splits[(i // len(labels)) % len(splits)]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder
