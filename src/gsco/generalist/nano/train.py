"""Train MedDr-nano's adapter (LoRA on the language model, the whole projector) with the HF Trainer.

The eye is frozen, so its tokens are computed once, for several views of each image, and kept on disk.
Records are put into batches of like length in a fixed, shuffled order; a killed training resumes from
its last checkpoint with the same batches.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from gsco.disk import dump_json, whole_file, write_atomic
from gsco.generalist.nano.assemble import assemble_base, check_adapter, load_base
from gsco.generalist.nano.dialogue import encode_answer, encode_prompt
from gsco.generalist.nano.eye_training import eye_within, open_eye, shipped
from gsco.generalist.nano.vision_store import VisionStore
from gsco.generalist.records import Record
from gsco.generalist.training_files import forget_after, same_or_new
from gsco.progress import Progress

LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How the adapter is trained.

    Attributes:
        epochs: passes over the records.
        batch_size: records per optimiser step.
        lora_rank / lora_alpha: size and scale of the LoRA matrices.
        learning_rate: peak, of LoRA; `projector_learning_rate` of the projector.
        warmup_ratio: share of steps until the peak; cosine decay to zero after it.
        weight_decay: on LoRA and projector matrices.
        views: stored views of each image, the first one plain.
        bf16: matrix products in bfloat16, weights and optimiser in float32. More than twice as fast on a
            processor that has such products (AVX512-BF16, AMX), slower on others.
        seed: of everything.
        save_steps: steps between checkpoints.
    """

    epochs: float = 1.0
    batch_size: int = 8
    lora_rank: int = 16
    lora_alpha: int = 32
    learning_rate: float = 4e-4
    projector_learning_rate: float = 1e-3
    warmup_ratio: float = 0.04
    weight_decay: float = 0.01
    views: int = 4
    bf16: bool = False
    seed: int = 0
    save_steps: int = 50


class _Batches(TorchDataset[dict[str, Any]]):
    """Tokenised records in training order, batches of like length next to each other."""

    def __init__(
        self, records: Sequence[Record], tokenizer: Any, store: VisionStore, config: TrainConfig
    ) -> None:
        self.store = store
        rng = np.random.default_rng(config.seed)
        self.items = []
        for record in records:
            prompt = encode_prompt(tokenizer, record.prompt, image=record.image is not None)
            answer = encode_answer(tokenizer, record.answer)
            view = int(rng.integers(config.views))
            self.items.append((prompt, answer, record.image, view))
        size = config.batch_size
        order = rng.permutation(len(self.items))
        window = size * 16
        batches = []
        for start in range(0, len(order), window):
            part = sorted(order[start : start + window], key=lambda i: len(self.items[i][0]))
            batches += [part[i : i + size] for i in range(0, len(part), size)]
        full = [b for b in batches if len(b) == size]
        self.order = [int(i) for b in rng.permutation(len(full)) for i in full[b]]
        self.order += [int(i) for b in batches if len(b) != size for i in b]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        prompt, answer, image, view = self.items[self.order[index]]
        return {
            "input_ids": prompt + answer,
            "labels": [-100] * len(prompt) + answer,
            "vision_tokens": None if image is None else self.store.get(str(image), view),
        }


def _collate(items: list[dict[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    length = max(len(item["input_ids"]) for item in items)
    out: dict[str, torch.Tensor] = {
        "input_ids": torch.full((len(items), length), pad),
        "attention_mask": torch.zeros((len(items), length), dtype=torch.long),
        "labels": torch.full((len(items), length), -100),
    }
    for row, item in enumerate(items):
        n = len(item["input_ids"])
        out["input_ids"][row, :n] = torch.tensor(item["input_ids"])
        out["labels"][row, :n] = torch.tensor(item["labels"])
        out["attention_mask"][row, :n] = 1
    seen = [torch.from_numpy(np.array(i["vision_tokens"])) for i in items if i["vision_tokens"] is not None]
    if seen:
        out["vision_tokens"] = torch.stack(seen).float()
    return out


class _NanoTrainer(Trainer):
    """The HF Trainer with the records' own order and two learning rates."""

    train_config: TrainConfig
    optimizer: torch.optim.Optimizer | None

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def create_optimizer(self, *_: Any, **__: Any) -> torch.optim.Optimizer:
        if self.optimizer is None:
            config = self.train_config
            named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
            eye = [p for n, p in named if "multi_modal_projector" in n]
            lora = [p for n, p in named if "multi_modal_projector" not in n]
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": lora, "lr": config.learning_rate},
                    {"params": eye, "lr": config.projector_learning_rate},
                ],
                weight_decay=config.weight_decay,
                betas=(0.9, 0.99),
            )
        return self.optimizer


class _Log(TrainerCallback):
    """Each logged step as a line of ``training_log.jsonl``, and to the caller's progress."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        self.path = path
        self.progress = progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        forget_after(self.path, state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        kept = {
            k: round(v, 6) for k, v in (logs or {}).items() if k in ("loss", "learning_rate", "grad_norm")
        }
        if kept:
            with self.path.open("a", encoding="utf-8") as out:
                out.write(json.dumps({"step": state.global_step, **kept}) + "\n")
        if self.progress:
            loss = f", loss {kept['loss']:.3f}" if "loss" in kept else ""
            self.progress(f"training{loss}", state.global_step, state.max_steps)


def train_nano(
    records: Sequence[Record],
    out: Path,
    *,
    config: TrainConfig | None = None,
    init: Path | None = None,
    projector: Path | None = None,
    eye: Path | None = None,
    base: Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train an adapter on `records` and write it to `out`; a second call after a kill goes on.

    Args:
        records: one-turn conversations.
        out: folder of the adapter; ``work/`` inside it holds checkpoints and stored vision tokens until done.
        config: see `TrainConfig`.
        init: adapter to start from (same rank), instead of a fresh one; a taught eye in it goes on looking.
        projector: ``projector.safetensors`` of a taught eye to start from; goes before that of `init`.
        eye: ``eye.safetensors`` of a taught eye (`gsco.generalist.nano.eye_training`) that looks in the place
            of the base's, and goes into the adapter; the same for all trainings of one adapter.
        base: folder of the base model; assembled from the embedded parts by default.
        cache: cache folder of the assembled base.
        progress: told stage, done, total.

    Returns:
        `out`, with ``adapter_config.json``, ``adapter_model.safetensors`` (float16), ``training.json``
        and ``training_log.jsonl``.

    Raises:
        RunError: `out` holds a training of other records or another configuration.
        ModelError: the base is missing, or `init` is no such adapter.
    """
    config = config or TrainConfig()
    if init is not None:
        check_adapter(init)
    base = base or assemble_base(cache=cache)
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    facts = _facts(records, config, init, projector, eye)
    same_or_new(work / "facts.json", facts)
    torch.manual_seed(config.seed)
    model, tokenizer = load_base(base)
    taught = load_file(eye) if eye is not None else eye_within(init) if init is not None else {}
    if taught:
        open_eye(model, taught)
    images = [r.image for r in records if r.image is not None]
    store = VisionStore.build(images, model, work, views=config.views, seed=config.seed, progress=progress)
    model = get_peft_model(
        model,
        LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=0.0,
            target_modules=LORA_TARGETS,
            modules_to_save=["multi_modal_projector", *(["vision_tower"] if taught else [])],
        ),
    )
    for name, parameter in model.named_parameters():
        if "vision_tower" in name:
            parameter.requires_grad_(False)  # its tokens are on disk
    if init is not None:
        _load_into(model, init)
    if projector is not None:
        trained = model.base_model.model.model.multi_modal_projector.modules_to_save["default"]
        trained.load_state_dict(load_file(projector))
    if not torch.cuda.is_available():  # on a CPU the fused attention's backward pass takes twice as long
        model.base_model.model.model.language_model.set_attn_implementation("eager")
    data = _Batches(records, tokenizer, store, config)
    steps = int(np.ceil(len(data) / config.batch_size) * config.epochs)
    trainer = _NanoTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(work),
            max_steps=steps,
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=round(config.warmup_ratio * steps),
            max_grad_norm=1.0,
            logging_steps=min(10, max(steps, 1)),  # a short stage has a log, too
            save_steps=config.save_steps,
            save_total_limit=1,
            seed=config.seed,
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            bf16=config.bf16,
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_num_workers=0,
        ),
        train_dataset=data,
        data_collator=lambda items: _collate(items, int(tokenizer.pad_token_id)),
        callbacks=[_Log(out / "training_log.jsonl", progress)],
    )
    trainer.train_config = config
    checkpoints = sorted(work.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    complete = [c for c in checkpoints if (c / "trainer_state.json").exists()]
    trainer.train(resume_from_checkpoint=str(complete[-1]) if complete else None)
    _save(model, out)
    write_atomic(out / "training.json", dump_json({**facts, "steps": steps}))
    shutil.rmtree(work)
    return out


def _facts(
    records: Sequence[Record],
    config: TrainConfig,
    init: Path | None,
    projector: Path | None,
    eye: Path | None,
) -> dict[str, Any]:
    digest = hashlib.sha256()
    for record in records:
        digest.update(f"{record.id}\0{record.prompt}\0{record.answer}\n".encode())
    count: dict[str, int] = {}
    for record in records:
        key = f"{record.kind}:{record.source}"
        count[key] = count.get(key, 0) + 1
    return {
        "records": len(records),
        "records_sha256": digest.hexdigest(),
        "records_by_kind_and_source": dict(sorted(count.items())),
        "config": asdict(config),
        "init_sha256": None if init is None else _sha256(init / "adapter_model.safetensors"),
        "projector_sha256": None if projector is None else _sha256(projector),
        **({} if eye is None else {"eye_sha256": _sha256(eye)}),
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _load_into(model: Any, folder: Path) -> None:
    from peft import set_peft_model_state_dict

    state = {k: v.float() for k, v in load_file(folder / "adapter_model.safetensors").items()}
    set_peft_model_state_dict(model, state)


def _save(model: Any, out: Path) -> None:
    model.save_pretrained(str(out))
    path = out / "adapter_model.safetensors"
    held = {
        k: (shipped(v) if "vision_tower" in k else v.half()).contiguous() for k, v in load_file(path).items()
    }
    with whole_file(path) as draft:
        save_file(held, draft, metadata={"format": "pt"})
    (out / "README.md").unlink(missing_ok=True)  # peft's own card knows nothing; ours is written beside it
    config = json.loads((out / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "meddr-nano"
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
