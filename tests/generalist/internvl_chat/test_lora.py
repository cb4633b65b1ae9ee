"""LoRA of the old layout, as the reference wraps it: an adapter's folder, and unmerged in a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from gsco.errors import ModelError
from gsco.generalist.internvl_chat import convert_adapter, convert_checkpoint
from gsco.generalist.merging import merge_adapter

from .old_layout import (
    ONE_SHARD,
    State,
    config_of,
    difference,
    expected_of,
    load,
    outputs,
    state_of,
    write_old,
)

RANK = 3
TARGETS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
           "mlp.down_proj", "mlp.up_proj"]  # fmt: skip
VISION = {"attn.qkv": (96, 32), "attn.proj": (32, 32), "mlp.fc1": (64, 32), "mlp.fc2": (32, 64)}


@pytest.fixture(scope="module")
def wrapped() -> Any:
    """The tiny language model, wrapped by peft as InternVL's ``wrap_llm_lora`` does; random matrices."""
    settings = config_of(ONE_SHARD)["llm_config"]
    settings.pop("architectures")
    model = LlamaForCausalLM(LlamaConfig(**settings))
    text = {k.removeprefix("language_model."): v for k, v in state_of(ONE_SHARD).items() if "language" in k}
    model.load_state_dict(text)
    lora = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, lora_dropout=0.05, target_modules=TARGETS, task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, lora)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return adapted


def vision_lora(state: State, prefix: str = "vision_model.base_model.model") -> State:
    torch.manual_seed(2)
    made = {}
    for layer in range(6):
        for name, (high, wide) in VISION.items():
            module = f"{prefix}.encoder.layers.{layer}.{name}"
            made[f"{module}.lora_A.default.weight"] = torch.randn(RANK, wide) * 0.3
            made[f"{module}.lora_B.default.weight"] = torch.randn(high, RANK) * 0.3
    return made


def unmerged(folder: Path, wrapped: Any, *, vision: bool = False) -> Path:
    """A checkpoint as the reference's trainer leaves it: wrapped parts saved as they are."""

    def change(state: State) -> None:
        for key in [key for key in state if key.startswith("language_model.")]:
            del state[key]
        state |= {f"language_model.{key}": value.clone() for key, value in wrapped.state_dict().items()}
        if vision:
            for key in [key for key in state if key.startswith("vision_model.")]:
                inner = key.removeprefix("vision_model.")
                for name in VISION:
                    inner = inner.replace(f"{name}.", f"{name}.base_layer.")
                state[f"vision_model.base_model.model.{inner}"] = state.pop(key)
            state |= vision_lora(state)

    return write_old(folder, change=change, use_llm_lora=RANK, use_backbone_lora=RANK if vision else 0)


def logits_of_peft(wrapped: Any) -> torch.Tensor:
    """Text-only logits of the wrapped language model, peft's own arithmetic."""
    with torch.inference_mode():
        out: torch.Tensor = wrapped.eval()(input_ids=torch.arange(12)[None]).logits
    return out


def test_unmerged_checkpoint(tmp_path: Path, wrapped: Any) -> None:
    made = convert_checkpoint(unmerged(tmp_path / "old", wrapped), tmp_path / "new")
    assert made.merged == 14
    model = load(tmp_path / "new")
    with torch.inference_mode():
        found = model(input_ids=torch.arange(12)[None]).logits
    torch.testing.assert_close(found, logits_of_peft(wrapped), rtol=0, atol=1e-5)
    expected = expected_of(ONE_SHARD)
    assert difference(outputs(model, expected), expected) > 0.01  # LoRA does change something


@pytest.mark.parametrize("whole", [False, True], ids=["language_model_alone", "whole_model"])
def test_adapter_folder(tmp_path: Path, wrapped: Any, converted: Callable[..., Path], whole: bool) -> None:
    wrapped.save_pretrained(tmp_path / "old")
    if whole:
        path = tmp_path / "old" / "adapter_model.safetensors"
        inner = {k.replace("base_model.model.", "", 1): v for k, v in load_file(path).items()}
        save_file({f"base_model.model.language_model.{k}": v for k, v in inner.items()}, path)
    base = converted(ONE_SHARD)
    made = convert_adapter(tmp_path / "old", tmp_path / "new", base=base)
    assert (made.modules, made.rank) == (14, RANK)
    model = PeftModel.from_pretrained(load(base), str(tmp_path / "new")).eval()
    with torch.inference_mode():
        found = model(input_ids=torch.arange(12)[None]).logits
    torch.testing.assert_close(found, logits_of_peft(wrapped), rtol=0, atol=1e-5)


def test_both_ways_agree(tmp_path: Path, wrapped: Any, converted: Callable[..., Path]) -> None:
    """Vision and language: an adapter merged by peft is the unmerged checkpoint merged by the conversion."""
    wrapped.save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    text = {
        key.replace("base_model.model.", "base_model.model.language_model.", 1): value
        for key, value in load_file(path).items()
    }
    seen = vision_lora({}, "base_model.model.vision_model")
    save_file({**text, **{k.replace(".default", ""): v for k, v in seen.items()}}, path)
    inputs = expected_of(ONE_SHARD)
    for drop in (False, True):
        base = converted(ONE_SHARD, drop_unused_layers=drop)
        home = tmp_path / f"drop_{drop}"
        old = unmerged(home / "old", wrapped, vision=True)
        convert_checkpoint(old, home / "folded", drop_unused_layers=drop)
        folded = outputs(load(home / "folded"), inputs)
        convert_adapter(tmp_path / "adapter", home / "adapter", base=base)
        model = PeftModel.from_pretrained(load(base), str(home / "adapter")).eval()
        assert difference(outputs(model.base_model.model, inputs), folded) <= 1e-5


def test_merge(tmp_path: Path, wrapped: Any, with_tokenizer: Path) -> None:
    base = tmp_path / "base"
    convert_checkpoint(with_tokenizer, base)
    wrapped.save_pretrained(tmp_path / "old")
    convert_adapter(tmp_path / "old", tmp_path / "adapter", base=base)
    (tmp_path / "adapter" / "training.json").write_text('{"steps": 7}')
    record = merge_adapter(tmp_path / "adapter", tmp_path / "full")
    assert (record.base, record.modules) == ("base", 14)
    with torch.inference_mode():
        found = load(tmp_path / "full")(input_ids=torch.arange(12)[None]).logits[..., :320]
    torch.testing.assert_close(found, logits_of_peft(wrapped), rtol=0, atol=1e-5)
    names = {path.name for path in (tmp_path / "full").iterdir()}
    assert {"merge.json", "training.json", "conversion.json", "processor_config.json"} <= names
    assert not list(tmp_path.glob(".merge-*"))
    with pytest.raises(ModelError, match="is not empty"):
        merge_adapter(tmp_path / "adapter", tmp_path / "full")


def test_merge_with_another_base(
    tmp_path: Path, wrapped: Any, with_tokenizer: Path, converted: Callable[..., Path]
) -> None:
    wrapped.save_pretrained(tmp_path / "old")
    convert_adapter(tmp_path / "old", tmp_path / "adapter", base=converted(ONE_SHARD))
    with pytest.raises(ModelError, match="base cannot be loaded"):
        merge_adapter(tmp_path / "adapter", tmp_path / "full", base=tmp_path / "none")
    base = tmp_path / "base"
    convert_checkpoint(with_tokenizer, base)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    held = load_file(path)
    held["base_model.model.model.language_model.layers.9.mlp.up_proj.lora_A.weight"] = torch.zeros(RANK, 48)
    save_file(held, path)
    with pytest.raises(ModelError, match="1 matrices are not in both"):
        merge_adapter(tmp_path / "adapter", tmp_path / "full", base=base)
    assert not (tmp_path / "full").exists()


def test_merge_without_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no adapter"):
        merge_adapter(tmp_path, tmp_path / "full")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "kind 'IA3', not LORA"),
        ({"modules_to_save": ["lm_head"]}, "more than LoRA matrices"),
        ({"rank_pattern": {"q_proj": 8}}, "ranks that differ"),
        ({"r": 5}, "does not fit the base"),
    ],
)
def test_adapters_that_cannot_be_converted(
    tmp_path: Path, wrapped: Any, converted: Callable[..., Path], change: dict[str, Any], said: str
) -> None:
    wrapped.save_pretrained(tmp_path / "old")
    path = tmp_path / "old" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=said) as error:
        convert_adapter(tmp_path / "old", tmp_path / "new", base=converted(ONE_SHARD))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_the_command_line(
    tmp_path: Path, wrapped: Any, converted: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from gsco.cli import main

    wrapped.save_pretrained(tmp_path / "old")
    command = ["generalist", "convert", str(tmp_path / "old"), "--out", str(tmp_path / "new")]
    for wrong, said in (
        ([*command, "--dtype", "float16"], "--dtype is for whole checkpoints"),
        (["generalist", "convert", str(ONE_SHARD), "--out", "x", "--base", "y"], "--base is for adapters"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main([*command, "--base", str(converted(ONE_SHARD)), "--json"])
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out)["modules"] == 14


def test_an_adapter_needs_its_converted_base(
    tmp_path: Path, wrapped: Any, converted: Callable[..., Path]
) -> None:
    wrapped.save_pretrained(tmp_path / "old")
    with pytest.raises(ModelError, match="needs the converted model"):
        convert_adapter(tmp_path / "old", tmp_path / "new", base=None)
    with pytest.raises(ModelError, match="not a converted InternVL-Chat"):
        convert_adapter(tmp_path / "old", tmp_path / "new", base=ONE_SHARD)
    path = tmp_path / "old" / "adapter_model.safetensors"
    save_file({"base_model.model.transformer.h.0.attn.lora_A.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(ModelError, match="not of InternVL-Chat's layout"):
        convert_adapter(tmp_path / "old", tmp_path / "new", base=converted(ONE_SHARD))
