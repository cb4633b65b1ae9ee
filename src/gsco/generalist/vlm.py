"""Loading an image-text-to-text model of transformers with its processor, whole or as an adapter on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gsco.errors import ModelError

_REMEDY = "Name a model folder that transformers can read, or a hub id that can be reached."


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a model is loaded, as transformers offers it.

    Attributes:
        dtype: of the weights; ``auto`` is that of the checkpoint.
        device: one device; a GPU where there is one by default.
        device_map: ``auto`` spreads the layers over all devices; goes before `device`.
        quantization: ``4bit`` or ``8bit`` weights by bitsandbytes.
    """

    dtype: str | torch.dtype = "auto"
    device: str | None = None
    device_map: str | None = None
    quantization: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``from_pretrained``.

        Raises:
            ModelError: an unknown dtype or quantization, or bitsandbytes is not installed.
        """
        out: dict[str, Any] = {"dtype": self.dtype}
        if isinstance(self.dtype, str) and self.dtype != "auto":
            found = getattr(torch, self.dtype, None)
            if not isinstance(found, torch.dtype):
                raise ModelError(
                    f"no dtype {self.dtype!r}", remedy="Choose auto, float32, bfloat16 or float16."
                )
        if self.device_map is not None:
            out["device_map"] = self.device_map
        if self.quantization is not None:
            out["quantization_config"] = _quantization(self.quantization)
        return out


@dataclass(frozen=True, slots=True)
class VLM:
    """A loaded model.

    Attributes:
        model: in evaluation mode.
        processor: with a tokenizer and a chat template.
        image: settings of the image processor that the model was fine-tuned with.
        folders: where its weights were read, the adapter's and the base's; empty for a hub id.
    """

    model: Any
    processor: Any
    image: Mapping[str, Any] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()


def load_vlm(spec: str, options: LoadOptions | None = None) -> VLM:
    """Load a folder or hub id (``HF_HUB_OFFLINE`` is obeyed); no code from the model's folder is run.

    Args:
        spec: a model, or a folder with an adapter that `gsco.generalist.finetune` made of one.
        options: see `LoadOptions`.

    Raises:
        ModelError: it is missing, or not an image-text-to-text model with a processor and chat template.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    import gsco.generalist.internvl_chat.modeling  # noqa: F401  makes converted models known

    logging.disable_progress_bar()  # whoever calls shows progress of its own

    options = options or LoadOptions()
    folder = Path(spec)
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        return _adapted(folder, options)
    if folder.exists() and not (folder / "config.json").exists():
        raise ModelError(
            "holds no model (no config.json)", where=spec, remedy="Name a transformers model folder."
        )
    arguments = options.arguments()
    try:
        config = AutoConfig.from_pretrained(spec)
        if type(config) not in AutoModelForImageTextToText._model_mapping:
            raise ModelError(
                f"is a {config.model_type!r} model, which does not take an image and text to text",
                where=spec,
                remedy="Name an image-text-to-text model (InternVL, LLaVA, Qwen-VL, ...).",
            )
        model = AutoModelForImageTextToText.from_pretrained(spec, **arguments)
        processor = AutoProcessor.from_pretrained(spec)
        if options.device_map is None and options.quantization is None:
            model = model.to(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"cannot be loaded ({said[0]})", where=spec, remedy=_REMEDY) from error
    if getattr(processor, "tokenizer", None) is None or not getattr(processor, "chat_template", None):
        raise ModelError("has no processor with a tokenizer and a chat template", where=spec)
    return VLM(model.eval(), processor, folders=(folder,) if folder.exists() else ())


def _adapted(folder: Path, options: LoadOptions) -> VLM:
    """The base that an adapter names, with the adapter folded in (left beside quantised weights)."""
    from peft import PeftModel

    try:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        image = json.loads((folder / "training.json").read_text(encoding="utf-8"))["recipe"]["image"]
        whole = load_vlm(str(base["base_model_name_or_path"]), options)
    except FileNotFoundError as error:
        raise ModelError(f"is no adapter of gsco ({error.filename} is missing)", where=str(folder)) from None
    except (ValueError, KeyError) as error:
        raise ModelError(f"is no adapter of gsco ({error})", where=str(folder)) from error
    try:
        model = PeftModel.from_pretrained(whole.model, str(folder))
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise ModelError(
            f"the adapter does not fit its base ({str(error).splitlines()[0]})", where=str(folder)
        ) from error
    merged = model if options.quantization else model.merge_and_unload()
    return VLM(merged.eval(), whole.processor, image, (folder, *whole.folders))


def _quantization(kind: str) -> Any:
    import importlib.util

    if kind not in {"4bit", "8bit"}:
        raise ModelError(f"no quantization {kind!r}", remedy="Choose 4bit or 8bit.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"{kind} weights need bitsandbytes", remedy="Run `pip install bitsandbytes` (it needs a GPU)."
        )
    from transformers import BitsAndBytesConfig

    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
