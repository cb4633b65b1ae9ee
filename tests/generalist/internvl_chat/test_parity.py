"""A converted model computes what the original implementation computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from gsco.errors import ModelError
from gsco.generalist.internvl_chat import convert_checkpoint
from gsco.generalist.internvl_chat.modeling import InternVLChatV1ForConditionalGeneration

from .old_layout import (
    BOTH,
    ONE_SHARD,
    THREE_SHARDS,
    State,
    config_of,
    difference,
    expected_of,
    load,
    outputs,
    state_of,
    write_old,
)

Converted = Callable[..., Path]


@pytest.mark.parametrize("drop", [False, True], ids=["all_layers", "used_layers"])
@pytest.mark.parametrize("source", BOTH, ids=lambda folder: folder.name)
def test_same_visual_tokens_and_logits(
    converted: Converted, source: Path, drop: bool, tmp_path: Path
) -> None:
    model = load(converted(source, drop_unused_layers=drop))
    expected = expected_of(source)
    found = outputs(model, expected)
    assert difference(found, expected) <= 2e-6
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, InternVLChatV1ForConditionalGeneration)
    assert difference(outputs(again, expected), found) == 0
    image = {"input_ids": expected["input_ids"], "pixel_values": expected["pixel_values"]}
    written = [m.generate(**image, max_new_tokens=12, do_sample=False) for m in (model, again)]
    assert written[0].tolist() == written[1].tolist()
    first = expected["logits"][:, -1].argmax(-1)
    assert written[0][:, expected["input_ids"].shape[1]].tolist() == first.tolist()


def test_native_token_order_would_be_wrong(converted: Converted) -> None:
    """The check above would see the trap it is there for."""
    from transformers import InternVLModel

    model = load(converted(ONE_SHARD))
    expected = expected_of(ONE_SHARD)
    model.model.__class__ = InternVLModel
    assert difference(outputs(model, expected), expected) > 0.1


def test_shards_mirror_those_of_the_checkpoint(converted: Converted) -> None:
    assert {path.name for path in converted(ONE_SHARD).glob("*.safetensors*")} == {"model.safetensors"}
    assert {path.name for path in converted(THREE_SHARDS).glob("*.safetensors*")} == {
        *(path.name for path in THREE_SHARDS.glob("model*.safetensors")),
        "model.safetensors.index.json",
    }


def test_dropped_layers_are_gone(converted: Converted) -> None:
    kept = AutoConfig.from_pretrained(converted(ONE_SHARD, drop_unused_layers=True))
    assert (kept.vision_config.num_hidden_layers, kept.vision_feature_layer) == (3, -1)
    every = AutoConfig.from_pretrained(converted(ONE_SHARD))
    assert (every.vision_config.num_hidden_layers, every.vision_feature_layer) == (6, -4)
    sizes = [
        (converted(ONE_SHARD, drop_unused_layers=drop) / "model.safetensors").stat().st_size
        for drop in (True, False)
    ]
    assert sizes[0] < sizes[1]


def test_pickled_shards(tmp_path: Path) -> None:
    folder = write_old(tmp_path / "old")
    state = state_of(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    shards = {"pytorch_model-1-of-2.bin": names[:60], "pytorch_model-2-of-2.bin": names[60:]}
    for file, held in shards.items():
        torch.save({name: state[name] for name in held}, folder / file)
    where = {name: file for file, held in shards.items() for name in held}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    assert convert_checkpoint(folder, tmp_path / "new").shards == 2
    expected = expected_of(ONE_SHARD)
    assert difference(outputs(load(tmp_path / "new"), expected), expected) <= 2e-6


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    folder = write_old(tmp_path / "old")
    (folder / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="broken, or holds more than tensors"):
        convert_checkpoint(folder, tmp_path / "new")
    assert not (tmp_path / "ran").exists()


_WITHOUT_US = """
import sys
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
held = load_file(sys.argv[2])
found = model(input_ids=held["input_ids"], pixel_values=held["pixel_values"]).logits
assert "gsco" not in sys.modules
print(float((found - held["logits"]).detach().abs().max()))
"""


def test_other_programs_can_load_it(converted: Converted, tmp_path: Path) -> None:
    """With the code that stands beside the weights, where a person allows that to be run."""
    command = [
        sys.executable,
        "-c",
        _WITHOUT_US,
        str(converted(ONE_SHARD)),
        str(ONE_SHARD / "expected.safetensors"),
    ]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    out = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert float(out.stdout) <= 2e-6


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype(tmp_path: Path, dtype: str) -> None:
    made = convert_checkpoint(THREE_SHARDS, tmp_path / "new", dtype=dtype)
    assert made.dtype == dtype
    model = load(tmp_path / "new")
    assert model.dtype == getattr(torch, dtype)
    old = state_of(THREE_SHARDS)["mlp1.1.weight"]
    assert torch.equal(model.model.multi_modal_projector.linear_1.weight, old.to(model.dtype))


def test_too_large_for_float16(tmp_path: Path) -> None:
    def enlarge(state: State) -> None:
        state["mlp1.1.weight"][0, 0] = 1e6

    with pytest.raises(ModelError, match="beyond the range of float16"):
        convert_checkpoint(write_old(tmp_path / "old", change=enlarge), tmp_path / "new", dtype="float16")


def test_rotary_base_and_norm_are_kept(tmp_path: Path) -> None:
    """Yi turns more slowly than Llama's default, and InternViT-300M has another norm than the 6B one."""

    def with_biases(state: State) -> None:
        for name in [key for key in state if ".norm1." in key or ".norm2." in key]:
            state[name.replace("weight", "bias")] = torch.zeros_like(state[name])

    old = config_of(ONE_SHARD)
    slow = {
        **old["llm_config"],
        "rope_theta": 5_000_000.0,
        "max_length": 20,
        "top_k": 50,
        "_name_or_path": "x",
    }
    folder = write_old(tmp_path / "old", change=with_biases, llm_config=slow)
    convert_checkpoint(folder, tmp_path / "new")
    model = load(tmp_path / "new")
    frequencies = model.model.language_model.rotary_emb.inv_freq
    assert float(frequencies[-1]) == pytest.approx(5_000_000.0 ** (-10 / 12), rel=1e-6)
    assert model.config.vision_config.norm_type == "layer_norm"
    assert model.config.tie_word_embeddings is False


def test_tables_of_early_transformers_are_left_out(tmp_path: Path) -> None:
    def add(state: State) -> None:
        state["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(6)

    convert_checkpoint(write_old(tmp_path / "old", change=add), tmp_path / "new")
    assert not any("inv_freq" in key for key in load_file(tmp_path / "new" / "model.safetensors"))


def test_a_tied_output_matrix(tmp_path: Path) -> None:
    def tie(state: State) -> None:
        del state["language_model.lm_head.weight"]

    convert_checkpoint(write_old(tmp_path / "old", change=tie), tmp_path / "new")
    model = load(tmp_path / "new")
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
