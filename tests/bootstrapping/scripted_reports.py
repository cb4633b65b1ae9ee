"""A generalist that writes reports by rule, and a small set to write them about."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gsco.cases import load_dataset
from gsco.generalist import OptionScores, Request

PLACES = ("apex", "base", "hilum", "mid zone", "lingula", "fissure", "upper lobe", "lower lobe")


class Writer:
    """Reads the diagnosis in the prompt; every third report is half a one."""

    def __init__(self, name: str = "writer", *, die_after: int | None = None) -> None:
        self.name = name
        self.fingerprint = f"scripted:{name}"
        self.batches = 0
        self._die_after = die_after

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 64) -> list[str]:
        if self._die_after is not None and self.batches >= self._die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        self.batches += 1
        return [self._write(request) for request in requests]

    def score_options(self, requests: Sequence[Request]) -> list[OptionScores]:
        raise NotImplementedError

    def _write(self, request: Request) -> str:
        assert request.image is not None
        number = int(request.image.path.stem)
        found = re.search(r"(?:diagnosis is known:|Diagnosis:) ([^.\n]+)", request.prompt)
        assert found
        label = found[1]
        words = " ".join(PLACES[int(digit, 8)] for digit in f"{number:o}")
        if number % 3 == 2:
            return f"Findings: The image shows {label}."
        if label == "normal":
            return f"Findings: The {words} appears clear, image {words} too.\nImpression: Normal chest."
        return f"Findings: There is {label} near the {words}, seen in the {words}.\nImpression: {label}."


def make_set(folder: Path, n: int = 24) -> Path:
    """`n` images, pneumonia and normal in turn, four of them for testing."""
    (folder / "images").mkdir(parents=True)
    rows = ["image,label,split"]
    for i in range(n):
        pixels = np.full((32, 32), i * 10 % 255, np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        rows.append(f"images/{i}.png,{('pneumonia', 'normal')[i % 2]},{'test' if i >= n - 4 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "dataset.yaml").write_text("modality: chest X-ray\n", encoding="utf-8")
    return folder


if __name__ == "__main__":  # makes a round and is killed in it
    from gsco.bootstrapping.rounds import bootstrap
    from gsco.bootstrapping.subjects import Settings

    data, out, batches = sys.argv[1:]
    bootstrap(
        load_dataset(data),
        Settings(("writer",), drafts=2),
        Path(out),
        load=lambda spec: Writer(spec, die_after=int(batches)),
    )
