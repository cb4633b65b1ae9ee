"""Teach MedDr-nano's projector to speak the language model's words, before any language model runs.

Each image's projected tokens are drawn, on average, towards the input embedding of the name of what it
shows and away from the names of the other options (cosine, cross-entropy), at the norm that word
embeddings have. The language model then meets images as words it knows. This costs no pass through the
language model: minutes instead of hours, and without it a language model of this size learned to read
evidence long before it looked at an image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from gsco.cases import ImageRef
from gsco.generalist.nano.assemble import assemble_base, load_base
from gsco.generalist.nano.vision_store import VisionStore

SHARPNESS = 12.0  # cosine similarities times this are the logits
HELD_OUT = 8  # every eighth cluster of images judges the epochs


@dataclass(frozen=True, slots=True)
class Shown:
    """One image and what it shows.

    Attributes:
        image: the image.
        options: what it might show; each a tuple of names for the same thing.
        truth: position of what it shows.
        cluster: patient or group, kept together when a part is held out.
    """

    image: ImageRef
    options: tuple[tuple[str, ...], ...]
    truth: int
    cluster: str


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
    words = _Words(model.get_input_embeddings().weight.detach(), tokenizer)
    clusters = sorted({e.cluster for e in examples})
    held = set(np.random.default_rng(config.seed).permutation(clusters)[::HELD_OUT].tolist())
    train = [i for i, e in enumerate(examples) if e.cluster not in held]
    judge = [i for i, e in enumerate(examples) if e.cluster in held]
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
        order = _balanced_order(rng, examples, train)
        losses = []
        for start in range(0, len(order) - config.batch_size + 1, config.batch_size):
            rows = order[start : start + config.batch_size]
            tokens = _tokens(store, examples, rows, rng.integers(config.views, size=len(rows)))
            keep = torch.from_numpy(rng.permutation(tokens.shape[1])[: tokens.shape[1] * 7 // 10].copy())
            loss = _loss(projector(functional.dropout(tokens[:, keep], 0.15)), examples, rows, words)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        accuracy = _judge(projector, store, examples, judge or train, words)
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


class _Words:
    """Unit vectors of option names in the language model's embedding space, and the norm of embeddings."""

    def __init__(self, table: torch.Tensor, tokenizer: Any) -> None:
        self._table = table
        self._tokenizer = tokenizer
        self._known: dict[tuple[tuple[str, ...], ...], torch.Tensor] = {}
        self.norm = float(table.norm(dim=1).mean())

    def of(self, options: tuple[tuple[str, ...], ...]) -> torch.Tensor:
        """One row per option (n_options, D): its names' mean embedding, less what all options share."""
        if options not in self._known:
            rows = []
            for names in options:
                ids = [self._tokenizer(" " + name, add_special_tokens=False).input_ids for name in names]
                rows.append(torch.stack([self._table[torch.tensor(i)].mean(dim=0) for i in ids]).mean(dim=0))
            stacked = torch.stack(rows)
            self._known[options] = functional.normalize(stacked - stacked.mean(dim=0, keepdim=True), dim=1)
        return self._known[options]


def _tokens(
    store: VisionStore, examples: Sequence[Shown], rows: Sequence[int], views: NDArray[np.int64]
) -> torch.Tensor:
    stacked = np.stack([store.get(str(examples[r].image), int(v)) for r, v in zip(rows, views, strict=True)])
    return torch.from_numpy(stacked).float()


def _logits(projected: torch.Tensor, options: torch.Tensor) -> torch.Tensor:
    pooled = functional.normalize(projected.mean(dim=0), dim=0)
    logits: torch.Tensor = torch.mv(options, pooled).mul(SHARPNESS)
    return logits


def _loss(
    projected: torch.Tensor, examples: Sequence[Shown], rows: Sequence[int], words: _Words
) -> torch.Tensor:
    terms = [
        functional.cross_entropy(
            _logits(tokens, words.of(examples[r].options)), torch.tensor(examples[r].truth)
        )
        for tokens, r in zip(projected, rows, strict=True)
    ]
    size = (projected.norm(dim=-1) / words.norm - 1.0).square().mean()
    loss: torch.Tensor = torch.stack(terms).mean() + 0.3 * size
    return loss


def _balanced_order(rng: np.random.Generator, examples: Sequence[Shown], rows: Sequence[int]) -> list[int]:
    """As many draws as rows, every label of every label set equally often within its set."""
    groups: dict[tuple[Any, int], list[int]] = {}
    sizes: dict[Any, int] = {}
    for r in rows:
        groups.setdefault((examples[r].options, examples[r].truth), []).append(r)
        sizes[examples[r].options] = sizes.get(examples[r].options, 0) + 1
    weight = {r: 1.0 / len(members) for members in groups.values() for r in members}
    p = np.asarray([weight[r] * sizes[examples[r].options] for r in rows])
    return [int(r) for r in rng.choice(np.asarray(rows), size=len(rows), p=p / p.sum())]


@torch.inference_mode()
def _judge(
    projector: Any, store: VisionStore, examples: Sequence[Shown], rows: Sequence[int], words: _Words
) -> dict[str, float]:
    """Balanced accuracy by label set, named by its first names."""
    hits: dict[str, dict[int, list[bool]]] = {}
    for r in rows:
        shown = examples[r]
        tokens = projector(_tokens(store, examples, [r], np.zeros(1, dtype=np.int64)))[0]
        right = int(_logits(tokens, words.of(shown.options)).argmax()) == shown.truth
        name = " / ".join(names[0] for names in shown.options[:4])
        hits.setdefault(name, {}).setdefault(shown.truth, []).append(right)
    return {
        name: round(float(np.mean([np.mean(values) for values in by_label.values()])), 4)
        for name, by_label in hits.items()
    }
