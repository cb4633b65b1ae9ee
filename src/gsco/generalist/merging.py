"""An adapter and the model it belongs to, as one model folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gsco.cases.paths import expanded
from gsco.disk import as_readable_as_others, dump_json, writing
from gsco.errors import ModelError
from gsco.generalist.nano.assemble import check_adapter, load_nano

RECORD = "merge.json"
"""What was merged into what, beside the merged weights."""

_NANO = "meddr-nano"
_CARRIED = ("training.json", "training_log.jsonl")  # what the adapter's folder says of its training
_FROM_BASE = ("conversion.json",)


@dataclass(frozen=True, slots=True)
class Merged:
    """What was merged.

    Attributes:
        base: folder name or hub id of the model that the adapter was trained on.
        adapter: name of the adapter's folder.
        adapter_sha256: of the adapter's weights.
        modules: number of matrices that the adapter changed.
    """

    base: str
    adapter: str
    adapter_sha256: str
    modules: int


def merge_adapter(
    adapter: str | Path, out: str | Path, *, base: str | Path | None = None, dtype: str | None = None
) -> Merged:
    """Fold an adapter of peft into its base and save the result, with processor or tokenizer.

    The whole model is held in memory. The folder appears when it is complete.

    Args:
        adapter: folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        out: new or empty folder.
        base: folder or hub id of the base; as the adapter states by default.
        dtype: PyTorch's name of the type to load and save in; the base's own by default.

    Raises:
        ModelError: adapter or base is missing, they do not fit, or `out` is not empty.
        StorageError: `out` cannot be written.
    """
    folder, target = expanded(adapter), expanded(out)
    config, weights = _adapter_files(folder)
    named = str(base if base is not None else config.get("base_model_name_or_path") or "")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelError("is not empty", where=str(target), remedy="Name a new folder for the merged model.")
    if named == _NANO:
        check_adapter(folder)
        model, companion = load_nano(folder)
    else:
        model, companion = _load_and_merge(folder, named, dtype)
    record = Merged(
        base=Path(named).name if expanded(named).exists() else named,
        adapter=folder.resolve().name,
        adapter_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        modules=_modules(weights),
    )
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".merge-") as place:
            draft = Path(place) / target.name
            model.save_pretrained(str(draft))
            companion.save_pretrained(str(draft))
            as_readable_as_others(*draft.glob("*.safetensors"))
            for origin, names in ((folder, _CARRIED), (expanded(named), _FROM_BASE)):
                for name in names:
                    if (origin / name).is_file():
                        shutil.copyfile(origin / name, draft / name)
            (draft / RECORD).write_text(dump_json(asdict(record)), encoding="utf-8")
            draft.replace(target)
    return record


def _adapter_files(folder: Path) -> tuple[dict[str, Any], Path]:
    path, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not path.is_file() or not weights.is_file():
        raise ModelError(
            "holds no adapter (adapter_config.json, adapter_model.safetensors)",
            where=str(folder),
            remedy="Name the folder that training wrote.",
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"is not JSON ({error})", where=str(path)) from error
    return config, weights


def _load_and_merge(folder: Path, base: str, dtype: str | None) -> tuple[Any, Any]:
    """The merged model and its processor."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import gsco.generalist.internvl_chat.modeling  # noqa: F401  makes its classes known

    if not base:
        raise ModelError("does not say what its base is", where=str(folder), remedy="Name it with --base.")
    try:
        model = AutoModelForImageTextToText.from_pretrained(base, dtype=dtype or "auto")
        processor = AutoProcessor.from_pretrained(base)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"the adapter's base cannot be loaded ({str(error).strip().splitlines()[0]})",
            where=base,
            remedy="Name its folder with --base.",
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # keys that do not fit are counted below
            adapted = PeftModel.from_pretrained(model, str(folder), torch_device="cpu")
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            strange = set(get_peft_model_state_dict(adapted)) ^ set(file.keys())
        if strange:
            raise ValueError(f"{len(strange)} matrices are not in both, {min(strange)} first")
        return adapted.merge_and_unload(safe_merge=True), processor
    except (RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"does not fit {base} ({str(error).strip().splitlines()[0]})",
            where=str(folder),
            remedy="Name the base that it was trained on with --base.",
        ) from error


def _modules(weights: Path) -> int:
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        return sum(".lora_A." in name for name in file.keys())  # noqa: SIM118  no mapping
