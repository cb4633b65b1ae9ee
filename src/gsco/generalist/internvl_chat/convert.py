"""From InternVL-Chat V1.x to the native class, shard by shard, in little memory, and on after a kill."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsco.cases.paths import expanded
from gsco.disk import dump_json, write_atomic, writing
from gsco.errors import ModelError, StorageError
from gsco.generalist.internvl_chat import chat_template as chat
from gsco.generalist.internvl_chat.checkpoint import Checkpoint, read_checkpoint, read_json
from gsco.generalist.internvl_chat.config_map import Layout, native_config, read_layout
from gsco.generalist.internvl_chat.journal import DRAFT, Journal, is_finished
from gsco.generalist.internvl_chat.plan import Plan, check_against_model, make_plan
from gsco.generalist.internvl_chat.tensors import FLOATS, header_bytes
from gsco.progress import Progress

_SPARE = 64 << 20  # bytes beside the shards: tokenizer, configuration, what a file system needs itself


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was done.

    Attributes:
        folder: the native model folder.
        shards: number of weight files written.
        bytes: bytes of all tensors.
        dtype: types of the weights, as PyTorch names them.
        vision_layers: layers of the vision tower now, and before.
        kept_shards: shards that an earlier, killed conversion had finished.
        merged: weights into which LoRA matrices were merged.
        processor: whether tokenizer, image processor and chat template stand beside the weights.
        system_message: where the chat template's system message comes from; empty without a processor.
        notes: what a person should know.
    """

    folder: Path
    shards: int
    bytes: int
    dtype: str
    vision_layers: tuple[int, int]
    kept_shards: int
    merged: int
    processor: bool
    system_message: str
    notes: tuple[str, ...] = ()


def convert_checkpoint(
    source: str | Path,
    out: str | Path,
    *,
    drop_unused_layers: bool = False,
    dtype: str | None = None,
    system: str | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Write a checkpoint of InternVL-Chat V1.x (MedDr) as a model folder of transformers.

    Loaded by ``AutoModelForImageTextToText`` wherever `gsco.generalist.internvl_chat.modeling` was imported,
    and by ``--generalist FOLDER``. Logits are those of the original implementation. Files are read and
    written a few megabytes at a time; each shard appears by rename when it is whole. Called again after a
    kill, finished shards are checked by their hash and kept.

    Args:
        source: folder, or hub id (``HF_HUB_OFFLINE`` is obeyed).
        out: folder to write: new, empty, or of a conversion of the same that was interrupted.
        drop_unused_layers: leave out the layers of the vision tower that the projector never reads.
        dtype: ``bfloat16``, ``float16`` or ``float32`` for all weights; as they are by default.
        system: system message of the chat template, where not the checkpoint's own.
        progress: told the shard being written, bytes done, bytes in all.

    Raises:
        ModelError: the checkpoint is missing, broken, incomplete or of another layout; or `out` holds
            something else.
        StorageError: `out` cannot be written, or the disk is too full.
    """
    if dtype is not None and dtype not in FLOATS:
        raise ModelError(
            f"there is no type {dtype!r}", where="--dtype", remedy=f"One of {', '.join(FLOATS)}."
        )
    folder, name = locate_checkpoint(source)
    target = expanded(out)
    checkpoint = read_checkpoint(folder)
    layout = read_layout(checkpoint.config, str(folder))
    plan = make_plan(
        checkpoint, layout, where=str(folder), dtype=dtype, drop_unused_layers=drop_unused_layers
    )
    processor, notes, said = _processor(folder, layout, system)
    config = _config(folder, checkpoint, layout, plan, processor, dtype, drop_unused_layers)
    check_against_model(plan, _shapes(config), str(folder))
    generation = _generation_config(folder, config, processor)
    options = {"drop_unused_layers": drop_unused_layers, "dtype": dtype, "system": system}
    with writing(target, remedy="Name another folder; called again, it goes on."):
        journal = Journal.open(target, name, checkpoint.fingerprint, options)
        kept = _write_shards(plan, target, journal, progress)
        _write_small_files(plan, target, folder, config, generation, processor)
        journal.finish(_licence(folder))
    return Conversion(
        folder=target,
        shards=len(plan.shards),
        bytes=plan.nbytes,
        dtype=", ".join(_dtypes(plan)),
        vision_layers=(config.vision_config.num_hidden_layers, layout.vision_layers),
        kept_shards=kept,
        merged=len(checkpoint.lora),
        processor=processor is not None,
        system_message=said,
        notes=notes,
    )


def locate_checkpoint(source: str | Path) -> tuple[Path, str]:
    """The folder of a checkpoint, fetched where it is a hub id, and the name by which it is recorded.

    Raises:
        ModelError: there is no such folder, or the hub cannot be reached or has no such model.
    """
    folder = expanded(source)
    if folder.exists():
        return folder, folder.resolve().name
    text = str(source)
    if folder.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1:
        raise ModelError(
            "there is no such folder", where=text, remedy="Name a checkpoint's folder or hub id."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = [
        "*.json",
        "*.safetensors",
        "*.bin",
        "tokenizer.model",
        "conversation.py",
        "README.md",
        "LICENSE*",
    ]
    try:
        return Path(snapshot_download(text, allow_patterns=wanted)), text
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelError(
            f"cannot be fetched from the hub ({str(error).strip().splitlines()[0]})",
            where=text,
            remedy="Name a folder that holds it, or try again with a network.",
        ) from error


def _processor(folder: Path, layout: Layout, system: str | None) -> tuple[Any, tuple[str, ...], str]:
    """The processor, notes, and where its system message is from; no processor without a tokenizer."""
    from gsco.generalist.internvl_chat import processing

    tokenizer = processing.load_tokenizer(folder)
    if tokenizer is None:
        return None, ("the checkpoint has no tokenizer: only weights were converted",), ""
    if layout.template != chat.TEMPLATE:
        return None, (f"its chat template {layout.template!r} is not known: only weights were converted",), ""
    vocabulary = tokenizer.get_vocab()
    absent = [t for t in (processing.START, processing.IMAGE_TOKEN, processing.END) if t not in vocabulary]
    if absent:
        raise ModelError(
            f"its tokenizer does not know {', '.join(absent)}",
            where=str(folder),
            remedy="Fetch added_tokens.json and tokenizer_config.json, too.",
        )
    message, said = (system, "--system") if system is not None else chat.system_message(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    made = processing.InternVLChatV1Processor(
        processing.image_processor(layout.image_size),
        tokenizer,
        image_seq_length=layout.image_tokens,
        chat_template=chat.chat_template(message),
    )
    return made, (), said


def _config(
    folder: Path,
    checkpoint: Checkpoint,
    layout: Layout,
    plan: Plan,
    processor: Any,
    dtype: str | None,
    drop_unused_layers: bool,
) -> Any:
    image_token = (
        processor.image_token_id if processor is not None else checkpoint.config.get("img_context_token_id")
    )
    if image_token is None:
        raise ModelError(
            "has neither a tokenizer nor img_context_token_id, so the image's token is unknown",
            where=str(folder),
            remedy="Put tokenizer.model and tokenizer_config.json of the release beside the weights.",
        )
    names = {name for held in checkpoint.tensors.values() for name in held}
    types = _dtypes(plan)
    return native_config(
        checkpoint.config,
        layout,
        image_token_id=int(image_token),
        norm_type="layer_norm" if any(name.endswith(".norm1.bias") for name in names) else "rms_norm",
        tied="language_model.lm_head.weight" not in names,
        dtype=dtype or (types[0] if types else None),
        drop_unused_layers=drop_unused_layers,
    )


def _dtypes(plan: Plan) -> list[str]:
    """PyTorch's names of the weights' types, the most frequent by bytes first."""
    size: dict[str, int] = {}
    for shard in plan.shards:
        for out in shard.values():
            size[out.info.dtype] = size.get(out.info.dtype, 0) + out.info.nbytes
    long = {short: name for name, short in FLOATS.items()}
    return [long.get(kind, kind) for kind in sorted(size, key=lambda k: -size[k])]


def _shapes(config: Any) -> dict[str, tuple[int, ...]]:
    import torch

    from gsco.generalist.internvl_chat.modeling import InternVLChatV1ForConditionalGeneration

    with torch.device("meta"):
        model = InternVLChatV1ForConditionalGeneration(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    return shapes


def _write_shards(plan: Plan, target: Path, journal: Journal, progress: Progress | None) -> int:
    """Write what is not there yet; the number of shards that were."""
    for draft in target.glob(f"{DRAFT}*"):
        draft.unlink()
    total, done, kept = plan.nbytes, 0, 0
    todo = []
    for name, shard in zip(plan.shard_names, plan.shards, strict=True):
        size = sum(out.info.nbytes for out in shard.values())
        if is_finished(target / name, journal.held["shards"].get(name)):
            kept, done = kept + 1, done + size
        else:
            todo.append((name, shard, size))
    needed, free = sum(size for *_, size in todo), shutil.disk_usage(target).free
    if todo and needed + _SPARE > free:
        raise StorageError(
            f"needs {(needed + _SPARE) / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            where=str(target),
            remedy="Free some space or name a folder on another disk.",
        )
    for name, shard, _ in todo:
        digest = hashlib.sha256()
        draft = target / f"{DRAFT}{name}"
        with draft.open("wb") as file:
            head = header_bytes({key: out.info for key, out in shard.items()})
            digest.update(head)
            file.write(head)
            for out in shard.values():
                for piece in out.chunks():
                    digest.update(piece)
                    file.write(piece)
                    done += len(piece)
                    if progress:
                        progress(name, done, total)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target / name)
        journal.held["shards"][name] = {"sha256": digest.hexdigest(), "bytes": (target / name).stat().st_size}
        journal.save()
    return kept


def _write_small_files(
    plan: Plan, target: Path, source: Path, config: Any, generation: Any, processor: Any
) -> None:
    """Tokenizer and the like first, ``config.json`` last: without it the folder is no model yet."""
    if len(plan.shards) > 1:
        where = {
            key: name for name, shard in zip(plan.shard_names, plan.shards, strict=True) for key in shard
        }
        index = {"metadata": {"total_size": plan.nbytes}, "weight_map": dict(sorted(where.items()))}
        write_atomic(target / "model.safetensors.index.json", dump_json(index))
    if processor is not None:
        processor.save_pretrained(str(target))
    generation.save_pretrained(str(target))
    home = Path(__file__).parent
    for code in ("modeling.py", "processing.py"):  # as saving such a model does, see `modeling.register`
        shutil.copyfile(home / code, target / code)
    for licence in sorted(source.glob("LICENSE*")):
        shutil.copyfile(licence, target / licence.name)
    write_atomic(target / "config.json", config.to_json_string(use_diff=True))


def _generation_config(source: Path, config: Any, processor: Any) -> Any:
    """Greedy, and ending where the chat template ends a turn."""
    from transformers import GenerationConfig

    ends: list[int] = []
    if processor is not None:
        ends.append(processor.tokenizer.convert_tokens_to_ids(chat.END))
    given = source / "generation_config.json"
    old = read_json(given) if given.exists() else {}
    for end in (old.get("eos_token_id"), config.text_config.eos_token_id):
        ends += end if isinstance(end, list) else [] if end is None else [end]
    pad = processor.tokenizer.pad_token_id if processor is not None else config.text_config.pad_token_id
    return GenerationConfig(
        bos_token_id=config.text_config.bos_token_id,
        eos_token_id=list(dict.fromkeys(ends)) or None,
        pad_token_id=pad if pad is not None else (ends[0] if ends else None),
        do_sample=False,
    )


def _licence(source: Path) -> str | None:
    """The licence that the checkpoint's card states in its first lines, if it does."""
    card = source / "README.md"
    if not card.exists():
        return None
    for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:40]:
        if line.startswith("license:"):
            return line.removeprefix("license:").strip() or None
    return None
