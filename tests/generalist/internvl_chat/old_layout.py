"""Checkpoints in the old layout: those beside this file, and changed copies of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

TINY = Path(__file__).parent / "v12_tiny"
THREE_SHARDS = TINY / "select_minus1_three_shards"
ONE_SHARD = TINY / "select_minus4_one_shard"
BOTH = (THREE_SHARDS, ONE_SHARD)

State = dict[str, torch.Tensor]


def state_of(folder: Path) -> State:
    state: State = {}
    for path in sorted(folder.glob("model*.safetensors")):
        state |= load_file(path)
    return state


def expected_of(folder: Path) -> State:
    return load_file(folder / "expected.safetensors")


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def write_old(
    folder: Path,
    *,
    source: Path = ONE_SHARD,
    change: Callable[[State], object] | None = None,
    **config: Any,
) -> Path:
    """A copy with tensors changed in place and keys of ``config.json`` replaced (`None` removes one)."""
    folder.mkdir(parents=True, exist_ok=True)
    state = state_of(source)
    if change:
        change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    written = {key: value for key, value in {**config_of(source), **config}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(written))
    return folder


def copy_of(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    return folder


def load(folder: Path) -> Any:
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder).eval()


def outputs(model: Any, inputs: State) -> State:
    """Visual tokens and logits for the input of `expected_of`."""
    with torch.inference_mode():
        seen = model.get_image_features(inputs["pixel_values"]).pooler_output
        said = model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"]).logits
    return {"visual_tokens": seen, "logits": said}


def difference(found: State, expected: State) -> float:
    return max(float((found[key] - expected[key]).abs().max()) for key in ("visual_tokens", "logits"))
