"""`load_generalist`: from a short name to a generalist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from gsco.cases.paths import expanded
from gsco.errors import ModelError
from gsco.generalist.base import Generalist

if TYPE_CHECKING:
    from gsco.generalist.nano.reader import Precision

HELP = (
    "nano (embedded default), a folder or hub id of an image-text-to-text model, the folder of an adapter, "
    "or openai:http://HOST:PORT/v1#MODEL"
)
_OPTIONS = ("dtype", "device", "device_map", "quantization")


def check_spec(spec: str) -> None:
    """Refuse what must not end in a file before it does: a server's address with a key in it.

    Raises:
        ModelError: it is one, or no address at all.
    """
    if spec.startswith("openai:"):
        from gsco.generalist.openai_address import parse_address

        parse_address(spec)


def load_generalist(spec: str = "nano", *, cache: Path | None = None) -> Generalist:
    """Load the generalist that `spec` names.

    Args:
        spec: ``nano``; the folder of an adapter of MedDr-nano or of another model; a folder or hub id of an
            image-text-to-text model of transformers, with options behind a question mark
            (``model?dtype=bfloat16&device_map=auto``, see `gsco.generalist.vlm.LoadOptions`; MedDr-nano takes
            ``nano?dtype=int8`` alone); ``openai:http://host:port/v1#model``, a model on an
            OpenAI-compatible server;
            ``scripted:<rule>`` (a written rule, for tests).
        cache: cache folder of the embedded parts.

    Raises:
        ModelError: a folder that is missing or holds another kind of model; a server that is not there.
    """
    if spec.startswith("openai:"):
        from gsco.generalist.openai_client import OpenAIGeneralist

        return OpenAIGeneralist.from_spec(spec)
    if spec.startswith("scripted:"):
        from gsco.generalist.scripted import ScriptedGeneralist

        return ScriptedGeneralist(spec.removeprefix("scripted:"))
    spec, options = _options(spec)
    folder = expanded(spec)
    from gsco.generalist.nano.assemble import check_adapter, is_merged

    merged, adapter = is_merged(folder), (folder / "adapter_config.json").exists()
    if spec == "nano" or merged or (adapter and not is_vlm_adapter(folder)):
        if adapter and not merged and spec != "nano":
            check_adapter(folder)
        from gsco.generalist.nano.backend import NanoGeneralist

        return NanoGeneralist.from_pretrained(
            None if spec == "nano" else folder, cache=cache, precision=_precision(spec, options)
        )
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


def _precision(spec: str, options: dict[str, str]) -> Precision:
    """What MedDr-nano is asked to compute in."""
    asked = options.get("dtype", "float32")
    if set(options) - {"dtype"} or asked not in ("float32", "int8"):
        raise ModelError(
            "MedDr-nano takes no such option", where=spec, remedy="Write ?dtype=int8, or leave it out."
        )
    return "int8" if asked == "int8" else "fp32"


def is_vlm_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter that `gsco.generalist.finetune` made of a vision-language model."""
    try:
        facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        return "model" in facts["recipe"] and not (folder / "config.json").exists()
    except (OSError, ValueError, KeyError, TypeError):
        return False
