"""A model card from what a model's folder says of itself. What it does not say is named, never filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gsco.cases.paths import expanded
from gsco.errors import ModelError

MARK = "<!-- made by `gsco generalist card` -->"
"""Stands in every card that was made here, so that one written by hand is not replaced."""

_KINDS = {
    "internvl_chat_v1": "InternVL of transformers with the visual tokens of InternVL-Chat V1.x (as MedDr)",
    "meddr_nano": "MedDr-nano: InternVL of transformers with a small convolutional eye",
}


def make_card(folder: str | Path) -> str:
    """The card of a generalist's folder (model or adapter) as Markdown with a YAML head.

    Read are ``config.json``, ``adapter_config.json``, headers of the weights, ``conversion.json``,
    ``merge.json``, ``training.json`` and the licence that a present card states.

    Raises:
        ModelError: the folder holds neither a model nor an adapter.
    """
    home = expanded(folder)
    config, adapter = _read(home, "config.json"), _read(home, "adapter_config.json")
    if not config and not adapter:
        raise ModelError(
            "holds neither config.json nor adapter_config.json",
            where=str(home),
            remedy="Name a model's or an adapter's folder.",
        )
    conversion, merge, training = (
        _read(home, name) for name in ("conversion.json", "merge.json", "training.json")
    )
    licence = licence_of(home) or conversion.get("licence")
    base = merge.get("base") or (None if config else adapter.get("base_model_name_or_path"))
    base = base or conversion.get("source")
    parts = [_head(licence, base, adapter=not config), MARK, f"# {home.resolve().name}", ""]
    parts += ["**Research use only, not a medical device.**", "", *_facts(home, config, adapter), ""]
    parts += [*_origin(conversion, merge, adapter, base), *_training(training)]
    unknown = [
        name
        for name, known in (
            ("its licence", licence),
            ("what it was made from", base),
            ("the data and settings of its training", training),
        )
        if not known
    ]
    said = _joined([*unknown, "how well it does"]).capitalize()
    parts += ["## Not stated", "", f"{said}: the files in this folder do not say. Add what you know.", ""]
    return "\n".join(parts)


def licence_of(home: Path) -> str | None:
    """The licence in the YAML head of the folder's ``README.md``, if there is one."""
    card = home / "README.md"
    if not card.is_file():
        return None
    head = re.match(r"---\n(.*?)\n---\n", card.read_text(encoding="utf-8", errors="replace"), re.S)
    found = re.search(r"^license:\s*(\S+)\s*$", head[1], re.M) if head else None
    return found[1] if found else None


def _read(home: Path, name: str) -> dict[str, Any]:
    path = home / name
    if not path.is_file():
        return {}
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"is not JSON ({error})", where=str(path)) from error
    return held if isinstance(held, dict) else {}


def _head(licence: str | None, base: str | None, *, adapter: bool) -> str:
    lines = ["---"]
    if licence:
        lines.append(f"license: {licence}")
    lines += [f"library_name: {'peft' if adapter else 'transformers'}", "pipeline_tag: image-text-to-text"]
    if base and re.fullmatch(r"[\w.-]+/[\w.-]+", base):  # only a hub id means anything to others
        lines.append(f"base_model: {base}")
    return "\n".join([*lines, "tags: [medical, research-only]", "---"])


def _facts(home: Path, config: Mapping[str, Any], adapter: Mapping[str, Any]) -> list[str]:
    rows: list[tuple[str, Any]] = []
    if config:
        kind = str(config.get("model_type"))
        vision, text = config.get("vision_config") or {}, config.get("text_config") or {}
        rows += [("class", _KINDS.get(kind, f"`{kind}` of transformers"))]
        rows += [("vision tower", _described(vision)), ("language model", _described(text))]
        rows += [("image", _image(vision.get("image_size"), config.get("image_seq_length")))]
    else:
        what = f"{adapter.get('peft_type')}, rank {adapter.get('r')}, alpha {adapter.get('lora_alpha')}"
        rows += [("kind", what), ("belongs to", adapter.get("base_model_name_or_path"))]
    rows += _weights(home)
    return ["| part | is |", "|---|---|", *(f"| {name} | {said} |" for name, said in rows if said)]


def _described(part: Mapping[str, Any]) -> str:
    words = [f"`{part['model_type']}`"] if part.get("model_type") else []
    if part.get("architecture"):
        words.append(str(part["architecture"]))
    for key, word in (
        ("num_hidden_layers", "layers"),
        ("hidden_size", "wide"),
        ("vocab_size", "tokens known"),
    ):
        if isinstance(part.get(key), int):
            words.append(f"{part[key]:,} {word}")
    return ", ".join(words)


def _image(size: Any, tokens: Any) -> str:
    sides = size if isinstance(size, list) else [size] * 2
    words = [f"{sides[0]} x {sides[1]} px"] if all(isinstance(side, int) for side in sides) else []
    return ", ".join([*words, *([f"{tokens} visual tokens"] if isinstance(tokens, int) else [])])


def _weights(home: Path) -> list[tuple[str, str]]:
    """Numbers, types and bytes of what the folder holds, from the headers."""
    from gsco.generalist.internvl_chat.tensors import ITEM_BYTES, SafetensorsFile

    numbers, size, types = 0, 0, set()
    files = sorted(home.glob("*.safetensors"))
    for path in files:
        for info in SafetensorsFile(path).infos.values():
            numbers += info.nbytes // ITEM_BYTES[info.dtype]
            size += info.nbytes
            types.add(info.dtype)
    if not files:
        return []
    shards = f" in {len(files)} files" if len(files) > 1 else ""
    return [("weights", f"{numbers:,} numbers, {', '.join(sorted(types))}, {size / 1e9:.3g} GB{shards}")]


def _origin(
    conversion: Mapping[str, Any], merge: Mapping[str, Any], adapter: Mapping[str, Any], base: str | None
) -> list[str]:
    lines = []
    if conversion:
        options = conversion.get("options") or {}
        extras = []
        if options.get("drop_unused_layers"):
            extras.append("without the vision layers that are never read")
        if options.get("dtype"):
            extras.append(f"weights rounded to {options['dtype']}")
        lines.append(
            f"- Converted by `gsco generalist convert` from {conversion.get('source')}"
            + (f", {_joined(extras)}" if extras else "")
            + "."
        )
    if merge:
        lines.append(
            f"- The adapter {merge.get('adapter')} ({merge.get('modules')} matrices, SHA-256 "
            f"`{str(merge.get('adapter_sha256'))[:16]}…`) was merged into {merge.get('base')}."
        )
    if adapter and base:
        lines.append(f"- An adapter; it needs its base, {base}.")
    return ["## Made from", "", *lines, ""] if lines else []


def _training(training: Mapping[str, Any]) -> list[str]:
    """The training record as it stands: simple values as rows, one level of nesting opened."""
    rows = []
    for key, value in training.items():
        if isinstance(value, Mapping):
            rows += [
                (f"{key}.{inner}", held) for inner, held in value.items() if not isinstance(held, dict | list)
            ]
        elif not isinstance(value, list):
            rows.append((key, value))
    if not rows:
        return []
    table = [f"| {key} | {value} |" for key, value in rows]
    return ["## Training", "", "From `training.json`:", "", "| setting | value |", "|---|---|", *table, ""]


def _joined(words: list[str]) -> str:
    return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1] if words else ""
