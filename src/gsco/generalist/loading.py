"""`load_generalist`: from a short name to a generalist."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qsl

from gsco.cases.paths import expanded
from gsco.errors import ModelError
from gsco.generalist.base import Generalist

HELP = "nano (embedded default), a folder or hub id of an image-text-to-text model, the folder of an adapter"
_OPTIONS = ("dtype", "device", "device_map", "quantization")


def load_generalist(spec: str = "nano", *, cache: Path | None = None) -> Generalist:
    """Load the generalist that `spec` names.

    Args:
        spec: ``nano``; the folder of an adapter of MedDr-nano or of another model; a folder or hub id of an
            image-text-to-text model of transformers, with options behind a question mark
            (``model?dtype=bfloat16&device_map=auto``, see `gsco.generalist.vlm.LoadOptions`);
            ``scripted:<rule>`` (a written rule, for tests).
        cache: cache folder of the embedded parts.

    Raises:
        ModelError: a folder that is missing or holds another kind of model.
    """
    if spec.startswith("scripted:"):
        from gsco.generalist.scripted import ScriptedGeneralist

        return ScriptedGeneralist(spec.removeprefix("scripted:"))
    spec, options = _options(spec)
    folder = expanded(spec)
    if options and spec == "nano":
        raise ModelError("nano takes no options", where=spec, remedy="Leave out what stands behind the `?`.")
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

    return TransformersGeneralist.from_pretrained(str(folder) if folder.exists() else spec, **options)


def _options(spec: str) -> tuple[str, dict[str, str]]:
    """A spec without what stands behind its question mark, and that."""
    name, _, query = spec.partition("?")
    if not query:
        return spec, {}
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown or not options:
        raise ModelError(
            f"no option {(unknown or [query])[0]!r}", where=spec, remedy=f"There are: {', '.join(_OPTIONS)}."
        )
    return name, options


def is_vlm_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter that `gsco.generalist.finetune` made of a vision-language model."""
    try:
        facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        return "model" in facts["recipe"] and not (folder / "config.json").exists()
    except (OSError, ValueError, KeyError, TypeError):
        return False
