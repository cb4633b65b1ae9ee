"""Teach MedDr-nano's projector to speak the language model's words, before any language model runs.

See `gsco.generalist.nano.naming` for what it learns. It takes minutes instead of hours, and without it a
language model of this size learned to read evidence long before it looked at an image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from gsco.generalist.nano.assemble import assemble_base, load_base
from gsco.generalist.nano.naming import Shown, Words, balanced_accuracy, balanced_order, held_out, naming_loss
from gsco.generalist.nano.vision_store import VisionStore


@dataclass(frozen=True, slots=True)
class AlignConfig:
    """How the projector is aligned: passes over the images, batch, peak learning rate, stored views, seed."""

    epochs: int = 14
    batch_size: int = 32
    learning_rate: float = 7e-4
    weight_decay: float = 0.05
    views: int = 2
    seed: int = 0


def align_projector(
    examples: Sequence[Shown],
    out: Path,
    *,
    config: AlignConfig | None = None,
    base: Path | None = None,
    cache: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Train the projector and write ``projector.safetensors`` and ``align.json`` to `out`.

    The epoch with the best accuracy on held-out images (grouped) is kept.

    Args:
        examples: images with what they show.
        out: folder to write to.
        config: see `AlignConfig`.
        base: folder of the base model; assembled from the embedded parts by default.
        cache: cache folder of the assembled base.
        progress: told what, done, in all.

    Returns:
        `out`.
    """
    from safetensors.torch import save_file

    config = config or AlignConfig()
    folder = base or assemble_base(cache=cache)
    model, tokenizer = load_base(folder)
    out.mkdir(parents=True, exist_ok=True)
    store = VisionStore.build(
        [e.image for e in examples],
        model,
        out / "work",
        views=config.views,
        seed=config.seed,
        progress=progress,
    )
    words = Words(model.get_input_embeddings().weight.detach(), tokenizer)
    train, judge = held_out(examples, config.seed)
    plain = np.zeros(len(examples), dtype=np.int64)
    projector = model.model.multi_modal_projector
    optimizer = torch.optim.AdamW(
        projector.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    steps = config.epochs * (len(train) // config.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps + 1)
    rng = np.random.default_rng([config.seed, 1])
    torch.manual_seed(config.seed)  # of dropout
    best: tuple[float, dict[str, torch.Tensor]] | None = None
    history = []
    for epoch in range(config.epochs):
        order = balanced_order(rng, examples, train)
        losses = []
        for start in range(0, len(order) - config.batch_size + 1, config.batch_size):
            rows = order[start : start + config.batch_size]
            tokens = _tokens(store, examples, rows, rng.integers(config.views, size=len(rows)))
            keep = torch.from_numpy(rng.permutation(tokens.shape[1])[: tokens.shape[1] * 7 // 10].copy())
            loss = naming_loss(projector(functional.dropout(tokens[:, keep], 0.15)), examples, rows, words)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        accuracy = balanced_accuracy(
            examples,
            judge,
            words,
            lambda rows: projector(_tokens(store, examples, rows, plain[: len(rows)])),
        )
        history.append({"epoch": epoch + 1, "loss": round(float(np.mean(losses)), 4), "accuracy": accuracy})
        score = float(np.mean(list(accuracy.values())))
        if best is None or score > best[0]:
            best = (score, {k: v.detach().clone() for k, v in projector.state_dict().items()})
        if progress:
            progress(f"aligning the eye, held-out accuracy {score:.3f}", epoch + 1, config.epochs)
    if best is None:
        raise ValueError("no epochs to train for")
    save_file(best[1], out / "projector.safetensors", metadata={"format": "pt"})
    facts = {"config": asdict(config), "images": len(examples), "held_out": len(judge), "history": history}
    (out / "align.json").write_text(json.dumps(facts, indent=2) + "\n")
    return out


def _tokens(
    store: VisionStore, examples: Sequence[Shown], rows: Sequence[int], views: NDArray[np.int64]
) -> torch.Tensor:
    stacked = np.stack([store.get(str(examples[r].image), int(v)) for r, v in zip(rows, views, strict=True)])
    return torch.from_numpy(stacked).float()
