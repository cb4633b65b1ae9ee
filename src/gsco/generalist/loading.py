"""`load_generalist`: from a short name to a generalist."""

from __future__ import annotations

import json
from pathlib import Path

from gsco.cases.paths import expanded
from gsco.errors import ModelError
from gsco.generalist.base import Generalist

HELP = (
    "nano (embedded default), a folder or hub id of an image-text-to-text model, a MedDr-nano adapter folder"
)


def load_generalist(spec: str = "nano", *, cache: Path | None = None) -> Generalist:
    """Load the generalist that `spec` names.

    Args:
        spec: ``nano``; the folder of a MedDr-nano adapter; a folder or hub id of an image-text-to-text
            model of transformers; ``scripted:<rule>`` (a written rule, for tests).
        cache: cache folder of the embedded parts.

    Raises:
        ModelError: a folder that is missing or holds another kind of model.
    """
    if spec.startswith("scripted:"):
        from gsco.generalist.scripted import ScriptedGeneralist

        return ScriptedGeneralist(spec.removeprefix("scripted:"))
    folder = expanded(spec)
    if spec == "nano" or ((folder / "adapter_config.json").exists() and not is_vlm_adapter(folder)):
        from gsco.generalist.nano.assemble import check_adapter

        if spec != "nano":
            check_adapter(folder)
        from gsco.generalist.nano.backend import NanoGeneralist

        return NanoGeneralist.from_pretrained(None if spec == "nano" else folder, cache=cache)
    looks_like_path = folder.is_absolute() or spec.startswith((".", "~")) or spec.count("/") != 1
    if not folder.exists() and looks_like_path:
        raise ModelError("there is no such model folder", where=spec, remedy=f"Name one of: {HELP}.")
    from gsco.generalist.transformers_backend import TransformersGeneralist

    return TransformersGeneralist.from_pretrained(str(folder) if folder.exists() else spec)


def is_vlm_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter that was made of a vision-language model by `gsco generalist train`."""
    try:
        facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        return "model" in facts["recipe"] and not (folder / "config.json").exists()
    except (OSError, ValueError, KeyError, TypeError):
        return False
