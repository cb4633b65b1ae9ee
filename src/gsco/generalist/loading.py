"""`load_generalist`: from a short name to a generalist."""

from __future__ import annotations

from pathlib import Path

from gsco.cases.paths import expanded
from gsco.errors import ModelError
from gsco.generalist.base import Generalist

HELP = (
    "nano (embedded default), nano:int8, a folder or hub id of an image-text-to-text model, "
    "a MedDr-nano adapter folder, or openai:http://HOST:PORT/v1#MODEL"
)


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
        spec: ``nano``; ``nano:int8`` (its matrix products in int8); the folder of a MedDr-nano adapter; a
            folder or hub id of an image-text-to-text model of transformers;
            ``openai:http://host:port/v1#model``, a model on an OpenAI-compatible server;
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
    folder = expanded(spec)
    from gsco.generalist.nano.assemble import check_adapter, is_merged

    shipped = spec in ("nano", "nano:int8")
    if shipped or (folder / "adapter_config.json").exists() or is_merged(folder):
        if not shipped and not is_merged(folder):
            check_adapter(folder)
        from gsco.generalist.nano.backend import NanoGeneralist

        return NanoGeneralist.from_pretrained(
            None if shipped else folder,
            cache=cache,
            precision="int8" if spec == "nano:int8" else "fp32",
        )
    looks_like_path = folder.is_absolute() or spec.startswith((".", "~")) or spec.count("/") != 1
    if not folder.exists() and looks_like_path:
        raise ModelError("there is no such model folder", where=spec, remedy=f"Name one of: {HELP}.")
    from gsco.generalist.transformers_backend import TransformersGeneralist

    return TransformersGeneralist.from_pretrained(str(folder) if folder.exists() else spec)
