"""Fine-tune a vision-language model by a recipe, in one process or several; killed, it goes on."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gsco.disk import as_readable_as_others, dump_json, write_atomic
from gsco.errors import ModelError, RunError
from gsco.generalist.chat_markup import stop_ids
from gsco.generalist.finetune.adapter import with_adapter
from gsco.generalist.finetune.batches import Collator, OrderedRecords
from gsco.generalist.finetune.encoding import Encoded, Encoder
from gsco.generalist.finetune.meta import Annotation, read_meta
from gsco.generalist.finetune.order import FILLER, training_order
from gsco.generalist.finetune.preparation import Prepared, prepare, statistics, write_skipped
from gsco.generalist.finetune.recipe import FinetuneRecipe
from gsco.generalist.training_files import same_or_new
from gsco.generalist.vlm import VLM, LoadOptions, load_vlm
from gsco.progress import Progress

Data = tuple[tuple[Annotation, ...], list[Prepared]]
PARALLEL = Path(__file__).parent / "parallel"
"""Shipped settings of DeepSpeed ZeRO-3 (``zero3.json``) and FSDP (``fsdp.json``)."""


def finetune(
    recipe: FinetuneRecipe, out: Path, *, root: Path = Path(), progress: Progress | None = None
) -> Path:
    """Train a LoRA adapter and write it to `out`; a second call after a kill goes on to the same weights.

    Several processes, as ``torchrun`` or ``accelerate launch`` start them, share each step; their number
    changes neither the order of records nor, up to floating point and dropout, the loss.

    Args:
        recipe: what to do.
        out: folder of the adapter; ``work/`` inside it holds checkpoints until training is done.
        root: the folder that relative paths of the recipe and its meta files count from.
        progress: told what, done, in all; by the first process only.

    Returns:
        `out`, with ``adapter_config.json``, ``adapter_model.safetensors`` (float32), ``training.json``,
        ``training_log.jsonl``, ``data_statistics.json`` and ``skipped.jsonl``.

    Raises:
        DatasetError: the data cannot be read, or no record of it can be used.
        ModelError: the model cannot be loaded or trained.
        RunError: `out` holds a finished training or one by another recipe; a loss that is no number.
    """
    import torch

    first = int(os.environ.get("RANK", "0")) == 0
    progress = progress if first else None
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    recipe.accumulation(processes)
    if (out / "training.json").exists():
        raise RunError("holds a finished training", where=str(out), remedy="Name another folder.")
    train = read_meta(root / recipe.data, base=root)
    held_out = read_meta(root / recipe.held_out, base=root) if recipe.held_out else ()
    facts = {
        "recipe": recipe.model_dump(mode="json"),
        "data_sha256": [source.digest() for source in train],
        "held_out_sha256": [source.digest() for source in held_out],
    }
    work = out / "work"
    if first:
        work.mkdir(parents=True, exist_ok=True)
        same_or_new(work / "facts.json", facts)
    arguments = _arguments(recipe, work, processes, evaluate=bool(held_out))
    vlm = _load(recipe, root)
    encoder = Encoder(
        vlm.processor, stops=stop_ids(vlm.model, vlm.processor.tokenizer), image_settings=recipe.image
    )
    data = {
        name: (
            sources,
            _prepared(sources, encoder, work / f"{name}.jsonl", recipe.max_tokens, first, progress),
        )
        for name, sources in (("train", train), ("held_out", held_out))
        if sources
    }
    if first:
        _write_statistics(out, data)
    torch.manual_seed(recipe.seed)
    model = with_adapter(
        vlm.model,
        rank=recipe.lora.rank,
        alpha=recipe.lora.alpha,
        dropout=recipe.lora.dropout,
        projector=recipe.train_projector,
        vision=recipe.train_vision,
    )
    trainer = _trainer(recipe, model, arguments, encoder, data, out, processes, progress)
    _train(trainer, work)
    if first:
        _finish(out, work, {**facts, "steps": trainer.state.global_step, "processes": processes})
    return out


def _arguments(recipe: FinetuneRecipe, work: Path, processes: int, *, evaluate: bool) -> Any:
    """Settings of the Trainer; made before the model is loaded, since ZeRO-3 shards it while it is read."""
    import torch
    from transformers import TrainingArguments

    fsdp, zero3 = (recipe.parallel == kind and processes > 1 for kind in ("fsdp", "zero3"))
    shared: dict[str, Any] = {}
    if fsdp:
        settings = json.loads((PARALLEL / "fsdp.json").read_text(encoding="utf-8"))
        shared = {
            "fsdp": True,
            "fsdp_config": {**settings, "activation_checkpointing": recipe.gradient_checkpointing},
        }
    elif zero3:
        if importlib.util.find_spec("deepspeed") is None:
            raise ModelError(
                "ZeRO-3 needs deepspeed", remedy="Run `pip install deepspeed`, or set `parallel: fsdp`."
            )
        shared = {"deepspeed": str(PARALLEL / "zero3.json")}
    # FSDP recomputes by itself; the Trainer's argument has had two names
    known = inspect.signature(TrainingArguments).parameters
    word = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    if recipe.gradient_checkpointing and not fsdp:
        shared |= {word: True, f"{word}_kwargs": {"use_reentrant": False}}
    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=1,  # the order holds all epochs in one row
        per_device_train_batch_size=recipe.records_at_once,
        per_device_eval_batch_size=recipe.records_at_once,
        gradient_accumulation_steps=recipe.accumulation(processes),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup,  # below 1 it is a share
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.clip,
        bf16=recipe.precision == "bf16",
        ddp_find_unused_parameters=recipe.train_vision,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=recipe.evaluate_every,
        save_steps=recipe.save_every,
        save_total_limit=2,  # the older one goes only when the newer one is whole
        seed=recipe.seed,
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_num_workers=recipe.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        **shared,
    )
    if zero3:  # the model is sharded while it is read, so DeepSpeed must know the processes by then
        _ = arguments.device  # joins them
        importlib.import_module("deepspeed").init_distributed()
    return arguments


def _load(recipe: FinetuneRecipe, root: Path) -> VLM:
    """The model on the CPU (the Trainer moves it), quantised weights on this process's GPU."""
    folder = root / recipe.model
    spec = str(folder.resolve()) if folder.exists() else recipe.model
    rank = os.environ.get("LOCAL_RANK", "0")
    vlm = load_vlm(
        spec,
        LoadOptions(
            dtype="bfloat16" if recipe.precision == "bf16" else "float32",
            device="cpu",
            device_map=f"cuda:{rank}" if recipe.quantization else None,
            quantization=recipe.quantization,
        ),
    )
    for config in (vlm.model.config, vlm.model.config.get_text_config()):
        config.use_cache = False
    if recipe.quantization:
        from peft import prepare_model_for_kbit_training

        prepare_model_for_kbit_training(vlm.model, use_gradient_checkpointing=recipe.gradient_checkpointing)
    return vlm


def _prepared(
    sources: Sequence[Annotation],
    encoder: Encoder,
    log: Path,
    max_tokens: int,
    first: bool,
    progress: Progress | None,
) -> list[Prepared]:
    """What is known of the records; the first process looks at them, the others wait for it."""
    ready = log.with_suffix(".ready")
    while not first and not ready.exists():  # no barrier: it would give up on a long pass
        time.sleep(0.5)
    found = prepare(sources, encoder, log, max_tokens=max_tokens, progress=progress)
    if first:
        ready.touch()
    return found


def _write_statistics(out: Path, data: dict[str, Data]) -> None:
    table = {name: statistics(*part) for name, part in data.items()}
    write_atomic(out / "data_statistics.json", dump_json(table))
    write_skipped(out / "skipped.jsonl", data)


def _trainer(
    recipe: FinetuneRecipe,
    model: Any,
    arguments: Any,
    encoder: Encoder,
    data: dict[str, Data],
    out: Path,
    processes: int,
    progress: Progress | None,
) -> Any:
    from transformers import PrinterCallback

    from gsco.generalist.finetune.loop import AnswerTrainer, Log, Seal

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # what is trained is kept in full precision
    sources, prepared = data["train"]
    usable = {(one.source, one.line): one for one in prepared if not one.skipped}
    records = [
        usable[number, line]
        for number, source in enumerate(sources)
        for line in source.taken()
        if (number, line) in usable
    ]
    order = training_order(
        [record.tokens for record in records],
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        seed=recipe.seed,
        by_length=recipe.group_by_length,
    )
    tokenizer = encoder.processor.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    shows = any(record.images for record in records)
    trainer = AnswerTrainer(
        model=model,
        args=arguments,
        train_dataset=OrderedRecords(sources, records, order, encoder, seed=recipe.seed),
        eval_dataset=_held_out(data, encoder, recipe.records_at_once * processes),
        data_collator=Collator(int(pad or 0), blank=_blank(encoder) if shows and processes > 1 else None),
        callbacks=[Log(out / "training_log.jsonl", progress)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Seal(trainer.accelerator.wait_for_everyone))
    return trainer


def _held_out(data: dict[str, Data], encoder: Encoder, at_once: int) -> OrderedRecords | None:
    if "held_out" not in data:
        return None
    sources, prepared = data["held_out"]
    records = [one for one in prepared if not one.skipped]
    order = sorted(range(len(records)), key=lambda i: -records[i].tokens)
    order += [FILLER] * (-len(order) % at_once)
    return OrderedRecords(sources, records, order, encoder, crop=False)


def _blank(encoder: Encoder) -> Encoded:
    from PIL import Image

    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
    ]
    return encoder(messages, [Image.new("RGB", (64, 64))]).without_labels()


def _train(trainer: Any, work: Path) -> None:
    from gsco.generalist.finetune.loop import last_checkpoint

    checkpoint = last_checkpoint(work)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model(str(work / "final"))
    trainer.accelerator.wait_for_everyone()


def _finish(out: Path, work: Path, facts: dict[str, Any]) -> None:
    """Put the adapter into its folder; ``training.json`` comes last and says that it is whole."""
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        as_readable_as_others(work / "final" / name)
        os.replace(work / "final" / name, out / name)  # noqa: PTH105
    write_atomic(out / "training.json", dump_json(facts))
    shutil.rmtree(work)
