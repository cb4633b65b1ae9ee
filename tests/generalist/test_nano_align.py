"""Alignment draws what an image shows towards its word."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from gsco.cases import ImageRef
from gsco.generalist.nano.align import AlignConfig, align_projector
from gsco.generalist.nano.naming import Shown

from .tiny import tiny_nano


def examples(folder: Path, n: int = 32) -> list[Shown]:
    options = (("benign",), ("malignant", "normal"))
    out = []
    for i in range(n):
        rng = np.random.default_rng(i)
        noise = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        noise[..., i % 2] += 150  # red against green
        Image.fromarray(noise).save(folder / f"{i}.png")
        out.append(Shown(ImageRef(folder / f"{i}.png"), options, i % 2, cluster=str(i)))
    return out


def test_what_differs_is_told_apart(base: Path, tmp_path: Path) -> None:
    config = AlignConfig(epochs=6, batch_size=8, views=1, learning_rate=5e-3)
    align_projector(examples(tmp_path), tmp_path / "out", config=config, base=base)
    facts = json.loads((tmp_path / "out" / "align.json").read_text())
    first, last = facts["history"][0], facts["history"][-1]
    assert last["loss"] < first["loss"]
    assert max(h["accuracy"]["benign / malignant"] for h in facts["history"]) == 1.0
    state = load_file(tmp_path / "out" / "projector.safetensors")
    model, _ = tiny_nano()
    model.model.multi_modal_projector.load_state_dict(state)


def test_the_same_seed_gives_the_same_projector(base: Path, tmp_path: Path) -> None:
    config = AlignConfig(epochs=1, batch_size=8, views=2)
    shown = examples(tmp_path, 16)
    first, second = (
        load_file(align_projector(shown, tmp_path / name, config=config, base=base) / "projector.safetensors")
        for name in ("one", "two")
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
