"""What is wrong with a checkpoint is said in one line, before anything is written."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gsco.errors import ModelError, StorageError, UserError
from gsco.generalist.internvl_chat import convert_checkpoint

from .old_layout import ONE_SHARD, THREE_SHARDS, State, config_of, copy_of, write_old


def refused(source: Path, out: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        convert_checkpoint(source, out, **options)
    text = str(error.value)
    assert "\n" not in text
    assert error.value.where
    assert error.value.remedy
    assert not (out / "config.json").exists()
    return text


def test_not_a_folder(tmp_path: Path) -> None:
    assert "there is no such folder" in refused(tmp_path / "none", tmp_path / "new")
    (tmp_path / "file").touch()
    assert "is not a folder" in refused(tmp_path / "file", tmp_path / "new")
    assert "holds no config.json" in refused(tmp_path, tmp_path / "new")


def test_a_hub_id_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="cannot be fetched from the hub") as error:
        convert_checkpoint("nobody/no-such-model", tmp_path / "new")
    assert "\n" not in str(error.value)


def test_a_config_that_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    assert "is not JSON" in refused(tmp_path, tmp_path / "new")


def test_generation_settings_that_are_not_json_are_told_before_any_work(tmp_path: Path) -> None:
    folder = write_old(tmp_path / "old")
    (folder / "generation_config.json").write_text("{")
    assert "generation_config.json: is not JSON" in refused(folder, tmp_path / "new")
    assert not list((tmp_path / "new").glob("*.safetensors"))


def test_a_missing_shard(tmp_path: Path) -> None:
    folder = copy_of(THREE_SHARDS, tmp_path / "old")
    (folder / "model-00002-of-00003.safetensors").unlink()
    said = refused(folder, tmp_path / "new")
    assert "lacks 1 of 3 shards: model-00002-of-00003.safetensors" in said


def test_no_weights(tmp_path: Path) -> None:
    folder = write_old(tmp_path / "old")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        convert_checkpoint(folder, tmp_path / "new")


def test_a_shard_that_is_cut_off(tmp_path: Path) -> None:
    folder = write_old(tmp_path / "old")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10_000])
    assert f"is cut off: {len(whole) - 10_000:,} of {len(whole):,} bytes" in refused(folder, tmp_path / "new")
    path.write_bytes(whole[:500])
    assert "cut off within its header" in refused(folder, tmp_path / "new")
    path.write_bytes(b"<!DOCTYPE html><html>")
    assert "is not a safetensors file" in refused(folder, tmp_path / "new")
    path.write_bytes((20).to_bytes(8, "little") + b'{"a": {"dtype": "X"}')
    assert "header that cannot be read" in refused(folder, tmp_path / "new")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "llava"}, "no checkpoint in the layout of InternVL-Chat (model_type 'llava')"),
        ({"model_type": "internvl"}, "is a model of transformers already"),
        ({"llm_config": None}, "no checkpoint in the layout"),
        ({"llm_config": {"architectures": ["InternLM2ForCausalLM"]}}, "has InternLM2ForCausalLM"),
        ({"ps_version": "v2"}, "pixel shuffle v2"),
        ({"select_layer": -9}, "select_layer -9 is outside of 6 layers"),
        ({"img_context_token_id": None}, "the image's token is unknown"),
        ({"vision_config": {"image_size": 56}}, "lacks or garbles 'num_hidden_layers'"),
    ],
)
def test_another_layout(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    folder = write_old(tmp_path / "old", **change)
    with pytest.raises(ModelError) as error:
        convert_checkpoint(folder, tmp_path / "new")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def _add(state: State) -> None:
    state["qllama.query_tokens"] = torch.zeros(2)


def _remove(state: State) -> None:
    del state["vision_model.encoder.layers.1.norm1.weight"]


def _reshape(state: State) -> None:
    state["mlp1.1.weight"] = torch.zeros(48, 64)


def _narrow_qkv(state: State) -> None:
    state["vision_model.encoder.layers.0.attn.qkv.weight"] = torch.zeros(95, 32)


def _quantise(state: State) -> None:
    state["mlp1.1.weight"] = torch.zeros(48, 128, dtype=torch.int8)


def _twice(state: State) -> None:
    name = "language_model.model.layers.0.self_attn.q_proj"
    state[f"{name}.base_layer.weight"] = state[f"{name}.weight"].clone()


def _half_a_lora(state: State) -> None:
    state["language_model.model.layers.0.self_attn.q_proj.lora_A.default.weight"] = torch.zeros(4, 48)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_add, "holds 1 tensors that are not of InternVL-Chat's layout: qllama.query_tokens"),
        (_remove, "lacks 1 tensors of the model"),
        (_reshape, "mlp1.1.weight has shape 48 x 64, config.json asks for 48 x 128"),
        (_narrow_qkv, "has shape 95 x 32, config.json asks for 32 x 32 three times"),
        (_quantise, "is of type I8, which is quantised"),
        (_twice, "twice"),
        (_half_a_lora, "do not fit config.json (rank 0)"),
    ],
)
def test_other_tensors(tmp_path: Path, change: Callable[[State], None], said: str) -> None:
    assert said in refused(write_old(tmp_path / "old", change=change), tmp_path / "new")


def test_keys_left_over(tmp_path: Path) -> None:
    vision = {**config_of(ONE_SHARD)["vision_config"], "num_hidden_layers": 5}
    said = refused(write_old(tmp_path / "old", vision_config=vision), tmp_path / "new")
    assert "tensors are left over" in said


def test_an_index_that_promises_more(tmp_path: Path) -> None:
    folder = copy_of(THREE_SHARDS, tmp_path / "old")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["mlp1.9.weight"] = "model-00003-of-00003.safetensors"
    path.write_text(json.dumps(index))
    assert "lack 1 tensors that its index names: mlp1.9.weight" in refused(folder, tmp_path / "new")


def test_an_unknown_type(tmp_path: Path) -> None:
    assert "there is no type 'int4'" in refused(ONE_SHARD, tmp_path / "new", dtype="int4")


def test_a_folder_with_something_else_in_it(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "thesis.tex").touch()
    assert "is not empty" in refused(ONE_SHARD, tmp_path / "new")


def test_a_folder_of_another_conversion(tmp_path: Path) -> None:
    convert_checkpoint(ONE_SHARD, tmp_path / "new")
    for other in ({"source": THREE_SHARDS}, {"source": ONE_SHARD, "drop_unused_layers": True}):
        with pytest.raises(ModelError, match="of another checkpoint, or with other options"):
            convert_checkpoint(out=tmp_path / "new", **other)  # type: ignore[arg-type]


def test_a_disk_that_is_too_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert "0.0 GB are free" in refused(ONE_SHARD, tmp_path / "new")


def test_a_disk_that_becomes_full(tmp_path: Path, converted: Callable[..., Path]) -> None:
    """The operating system refuses to make any file longer than 180 kB: the third shard's draft."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (180_000, before[1]))
    try:
        with pytest.raises(StorageError, match="no space left") as error:
            convert_checkpoint(THREE_SHARDS, tmp_path / "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new" / "config.json").exists()
    assert convert_checkpoint(THREE_SHARDS, tmp_path / "new").kept_shards == 2
    for path in converted(THREE_SHARDS).iterdir():
        assert (tmp_path / "new" / path.name).read_bytes() == path.read_bytes()


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gsco.cli import main

    with pytest.raises(SystemExit) as stop:
        main(["generalist", "convert", str(tmp_path / "none"), "--out", str(tmp_path / "new")])
    assert stop.value.code == 2
    assert (
        capsys.readouterr().err.strip().splitlines()[-1].startswith(f"gsco: {tmp_path / 'none'}: there is no")
    )
    with pytest.raises(SystemExit) as stop:
        main(["generalist", "convert", str(ONE_SHARD), "--out", str(tmp_path / "new"), "--json"])
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out)["vision_layers"] == [6, 6]
