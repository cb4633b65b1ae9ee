"""LoRA adapters that were trained with the old classes, as adapters (peft) of the converted model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsco.cases.paths import expanded
from gsco.disk import dump_json, whole_file, write_atomic, writing
from gsco.errors import ModelError
from gsco.generalist.internvl_chat.checkpoint import listed, read_json
from gsco.generalist.internvl_chat.key_map import native_pieces, vision_layer
from gsco.generalist.internvl_chat.tensors import open_tensors, read_tensor

if TYPE_CHECKING:
    import torch

_WRAPPED = "base_model.model."  # what peft puts before the names of the model it wraps
_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
_KEPT = ("r", "lora_alpha", "lora_dropout", "bias", "use_rslora", "fan_in_fan_out", "peft_type")


@dataclass(frozen=True, slots=True)
class ConvertedAdapter:
    """What was written.

    Attributes:
        folder: the adapter's folder.
        modules: number of adapted matrices.
        rank: LoRA's rank.
    """

    folder: Path
    modules: int
    rank: int


def is_adapter(source: str | Path) -> bool:
    """Whether a folder holds an adapter of peft."""
    return (expanded(source) / "adapter_config.json").exists()


def convert_adapter(source: str | Path, out: str | Path, *, base: str | Path | None) -> ConvertedAdapter:
    """Write a LoRA adapter of the old InternVL-Chat classes as one of the converted model.

    The adapter may have been saved from the language model alone, as the reference wraps it, or from the
    whole model. A LoRA of the vision tower's fused ``attn.qkv`` becomes three that share their first matrix.

    Args:
        source: folder with ``adapter_config.json`` and ``adapter_model.safetensors`` (or ``.bin``).
        out: new or empty folder.
        base: folder of the converted model, which the adapter will name as its base.

    Raises:
        ModelError: no such adapter, no base, or matrices of another layout.
        StorageError: `out` cannot be written.
    """
    folder, target = expanded(source), expanded(out)
    config = read_json(folder / "adapter_config.json")
    native = _base_config(base)
    _check_kind(config, folder)
    matrices = _matrices(folder, config, native)
    modules = sorted({name.rpartition(".lora_")[0].removeprefix(_WRAPPED) for name in matrices})
    made = {
        **{key: config[key] for key in _KEPT if key in config},
        "base_model_name_or_path": str(base),
        "target_modules": modules,
        "inference_mode": True,
    }
    _write(target, matrices, made)
    return ConvertedAdapter(target, len(modules), int(config["r"]))


def _base_config(base: str | Path | None) -> dict[str, Any]:
    if base is None:
        raise ModelError(
            "an adapter needs the converted model it belongs to", where="--base", remedy="Name its folder."
        )
    config = read_json(expanded(base) / "config.json")
    if config.get("model_type") != "internvl_chat_v1":
        raise ModelError(
            f"is a {config.get('model_type')!r} model, not a converted InternVL-Chat V1.x",
            where=str(base),
            remedy="Convert the adapter's base model first.",
        )
    return config


def _check_kind(config: dict[str, Any], folder: Path) -> None:
    wrong = None
    if config.get("peft_type") != "LORA" or not isinstance(config.get("r"), int):
        wrong = f"is an adapter of kind {config.get('peft_type')!r}, not LORA"
    elif config.get("modules_to_save") or config.get("use_dora"):
        wrong = "holds more than LoRA matrices (modules_to_save or DoRA)"
    elif config.get("rank_pattern") or config.get("alpha_pattern"):
        wrong = "has ranks that differ by module"
    if wrong:
        raise ModelError(wrong, where=str(folder), remedy="Merge it with the code that trained it.")


def _matrices(folder: Path, config: dict[str, Any], native: dict[str, Any]) -> dict[str, torch.Tensor]:
    """LoRA matrices by the names that peft gives them for the converted model."""
    path = next((folder / name for name in _FILES if (folder / name).exists()), None)
    if path is None:
        raise ModelError(f"holds no {' or '.join(_FILES)}", where=str(folder))
    file = open_tensors(path)
    layers = native["vision_config"]["num_hidden_layers"]
    out: dict[str, torch.Tensor] = {}
    strange = []
    for name in file.infos:
        found = _LORA.fullmatch(name)
        old = _old_name(found["module"]) if found else None
        pieces = native_pieces(f"{old}.weight") if old else ()
        if not pieces or found is None:
            strange.append(name)
            continue
        layer = vision_layer(f"{old}.weight")
        if layer is not None and layer >= layers:
            continue  # a layer that was left out, since nothing reads it
        matrix = read_tensor(file, name)
        for piece in pieces:
            module = piece.name.removesuffix(".weight")
            part = matrix
            if found["side"] == "B" and piece.third is not None:
                part = matrix.chunk(3)[piece.third]
            out[f"{_WRAPPED}{module}.lora_{found['side']}.weight"] = part.clone()
    if strange:
        raise ModelError(
            f"holds {len(strange)} matrices that are not of InternVL-Chat's layout: {listed(strange)}",
            where=str(path),
        )
    if not out:
        raise ModelError("holds no LoRA matrix of a layer that the base has", where=str(path))
    _check_shapes(out, native, int(config["r"]), path)
    return out


def _old_name(module: str) -> str:
    """The module's name in the old model, whichever part of it peft had wrapped."""
    plain = module.replace(_WRAPPED, "")
    first = plain.split(".")[0]
    if first in {"language_model", "vision_model", "mlp1"}:
        return plain
    return f"language_model.{plain}" if first in {"model", "lm_head"} else f"vision_model.{plain}"


def _check_shapes(matrices: dict[str, torch.Tensor], native: dict[str, Any], rank: int, path: Path) -> None:
    import torch
    from transformers import AutoConfig

    from gsco.generalist.internvl_chat.modeling import InternVLChatV1ForConditionalGeneration

    config = AutoConfig.for_model(**native)
    with torch.device("meta"):
        model = InternVLChatV1ForConditionalGeneration(config)
    weights = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, matrix in matrices.items():
        module, _, side = name.removeprefix(_WRAPPED).removesuffix(".weight").rpartition(".lora_")
        height, width = weights.get(f"{module}.weight", (0, 0))
        if tuple(matrix.shape) != ((rank, width) if side == "A" else (height, rank)):
            raise ModelError(
                f"{name} has shape {' x '.join(map(str, matrix.shape))}, which does not fit the base",
                where=str(path),
                remedy="Name the base that it was trained on.",
            )


def _write(target: Path, matrices: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Weights first, ``adapter_config.json`` last: without it the folder is no adapter yet."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with writing(target, also=SafetensorError):
        target.mkdir(parents=True, exist_ok=True)
        if any(not entry.name.startswith(".") for entry in target.iterdir()):
            raise ModelError("is not empty", where=str(target), remedy="Name a new folder for the adapter.")
        with whole_file(target / "adapter_model.safetensors") as draft:
            save_file({k: v.contiguous() for k, v in matrices.items()}, draft, metadata={"format": "pt"})
        write_atomic(target / "adapter_config.json", dump_json(config))
