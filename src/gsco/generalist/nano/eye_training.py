"""Teach MedDr-nano's eye: backbone and projector together, towards the names of what images show.

See `gsco.generalist.nano.naming` for what is learned. The backbone's batch norms keep their statistics:
kinds of images that look nothing alike are in one batch. What is kept is a moving average of the weights, of
the epoch that names held-out images best. Called again after a kill it goes on, and ends the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from gsco.cases import load_image
from gsco.disk import dump_json, whole_file, write_atomic
from gsco.generalist.nano.assemble import assemble_base, load_base
from gsco.generalist.nano.eye import augment, to_pixels
from gsco.generalist.nano.naming import Shown, Words, balanced_accuracy, balanced_order, held_out, naming_loss
from gsco.generalist.training_files import same_or_new
from gsco.progress import Progress

if TYPE_CHECKING:
    from gsco.generalist.nano.modeling import MedDrNanoForConditionalGeneration

STORED = 256  # side of the pictures that views are cut from


@dataclass(frozen=True, slots=True)
class EyeConfig:
    """How the eye is taught.

    Attributes:
        epochs: passes over the images, each label of a set equally often.
        batch_size: images of one step.
        learning_rate: peak, of the backbone; `projector_learning_rate` of the projector. Both rise over a
            tenth of the steps and fall to nothing as a cosine.
        weight_decay: on matrices.
        average: decay of the moving average of the weights.
        kept: share of an image's tokens that the projector sees in a step.
        first_block: stem and blocks before this one stay as they are: they have a hundredth of the weights
            and take more than half of the time.
        seed: of everything.
    """

    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 4e-4
    projector_learning_rate: float = 1e-3
    weight_decay: float = 0.05
    average: float = 0.98
    kept: float = 0.7
    first_block: int = 2
    seed: int = 0


def teach_eye(
    examples: Sequence[Shown],
    out: Path,
    *,
    config: EyeConfig | None = None,
    base: Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train backbone and projector; write ``eye.safetensors``, ``projector.safetensors`` and ``eye.json``.

    Args:
        examples: images with what they show.
        out: folder to write to; ``work/`` inside it holds what a killed training goes on from.
        config: see `EyeConfig`.
        base: folder of the base model; assembled from the embedded parts by default.
        cache: cache folder of the assembled base.
        progress: told what, done, in all.

    Returns:
        `out`, finished where it holds ``eye.json``.

    Raises:
        RunError: `out` holds an unfinished training of other images or another configuration.
        StorageError: it cannot be written.
    """
    config = config or EyeConfig()
    model, tokenizer = load_base(base or assemble_base(cache=cache))
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    named = [(str(e.image), e.options, e.truth) for e in examples]
    same_or_new(work / "facts.json", {"config": asdict(config), "images": named})
    words = Words(model.get_input_embeddings().weight.detach(), tokenizer)
    pictures = _pictures(examples, work, progress)
    train, judge = held_out(examples, config.seed)
    training = _Training(model, config, steps=max(1, len(train) // config.batch_size))
    history = training.resume(work / "checkpoint.pt")
    for epoch in range(len(history), config.epochs):
        rng = np.random.default_rng([config.seed, epoch])
        torch.manual_seed(int(rng.integers(2**31)))  # of dropout
        losses = []
        order = balanced_order(rng, examples, train)
        for step in range(training.steps):
            rows = order[step * config.batch_size : (step + 1) * config.batch_size]
            views = [augment(Image.fromarray(pictures[r]), rng) for r in rows]
            tokens = training.look(torch.stack([to_pixels(view) for view in views]))
            kept = rng.permutation(tokens.shape[1])[: max(1, round(tokens.shape[1] * config.kept))]
            shown = functional.dropout(tokens[:, torch.from_numpy(kept.copy())], 0.15)
            loss = naming_loss(training.projector(shown), examples, rows, words)
            losses.append(training.step(loss, epoch))
            if progress:
                done = epoch * training.steps + step + 1
                progress(f"teaching the eye, loss {losses[-1]:.3f}", done, config.epochs * training.steps)
        with training.averaged():
            accuracy = balanced_accuracy(
                examples,
                judge,
                words,
                lambda rows: training.projector(training.look(_plain(pictures, rows))),
            )
        history.append({"epoch": epoch + 1, "loss": round(float(np.mean(losses)), 4), "accuracy": accuracy})
        training.save(work / "checkpoint.pt", history)
    kept_epoch, states = training.best
    for name, state in states.items():
        with whole_file(out / f"{name}.safetensors") as draft:
            rounded = {key: shipped(value).contiguous() for key, value in state.items()}
            save_file(rounded if name == "eye" else state, draft, metadata={"format": "pt"})
    facts = {"config": asdict(config), "images": len(examples), "held_out": len(judge), "history": history}
    write_atomic(out / "eye.json", dump_json({**facts, "kept_epoch": kept_epoch}))
    shutil.rmtree(work)
    return out


def open_eye(model: MedDrNanoForConditionalGeneration, state: dict[str, torch.Tensor]) -> None:
    """Put a taught backbone, of ``eye.safetensors`` or `eye_within`, into a base model."""
    model.model.vision_tower.backbone.load_state_dict(state)


def eye_within(adapter: Path) -> dict[str, torch.Tensor]:
    """The backbone that an adapter brings; nothing where it looks with the base's eye."""
    start = "base_model.model.model.vision_tower.backbone."
    held = load_file(adapter / "adapter_model.safetensors")
    return {key.removeprefix(start): value for key, value in held.items() if key.startswith(start)}


def shipped(tensor: torch.Tensor) -> torch.Tensor:
    """Matrices in float16; norms and their statistics, which are few and may be large, as they are.

    The language model is trained behind an eye that is rounded already, so that it looks the same in use.
    """
    return tensor.half() if tensor.ndim > 1 else tensor


class _Training:
    """Backbone and projector with their optimiser, moving average and best epoch."""

    def __init__(self, model: MedDrNanoForConditionalGeneration, config: EyeConfig, *, steps: int) -> None:
        self.backbone: nn.Module = model.model.vision_tower.backbone
        self.projector: nn.Module = model.model.multi_modal_projector
        self.backbone.eval()  # batch norms keep their statistics
        stem = [self.backbone.conv_stem, self.backbone.bn1] if config.first_block else []
        still = [*stem, *self.backbone.blocks[: config.first_block]]
        for module in still:
            module.requires_grad_(False)
        self.config = config
        self.steps = steps
        self.parts = {"eye": self.backbone, "projector": self.projector}
        rates = {"eye": config.learning_rate, "projector": config.projector_learning_rate}
        groups: list[dict[str, Any]] = []
        for name, part in self.parts.items():
            for matrices in (True, False):
                some = [p for p in part.parameters() if p.requires_grad and (p.ndim > 1) == matrices]
                decay = config.weight_decay if matrices else 0.0
                groups.append({"params": some, "weight_decay": decay, "peak": rates[name]})
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        self.done = 0
        self.average = self._states()
        self.best: tuple[int, dict[str, dict[str, torch.Tensor]]] = (0, self._states())
        self._score = -1.0

    def look(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, 224, 224) to tokens before the projector (B, 49, 1280)."""
        maps: torch.Tensor = self.backbone(pixels.contiguous(memory_format=torch.channels_last))
        return maps.flatten(2).transpose(1, 2)

    def step(self, loss: torch.Tensor, epoch: int) -> float:
        """One step of the optimiser; returns the loss."""
        total = self.config.epochs * self.steps
        warm = max(1, total // 10)
        rest = (self.done - warm) / max(1, total - warm)
        share = (self.done + 1) / warm if self.done < warm else (1 + float(np.cos(np.pi * rest))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        decay = min(self.config.average, (self.done + 1) / (self.done + 10))
        for name, part in self.parts.items():
            for key, value in part.state_dict().items():
                if value.is_floating_point():
                    self.average[name][key].lerp_(value.detach(), 1 - decay)
        self.done += 1
        return float(loss.detach())

    def averaged(self) -> _Swapped:
        """While it lasts, the parts have their averaged weights."""
        return _Swapped(self.parts, self.average)

    def save(self, path: Path, history: list[dict[str, Any]]) -> None:
        """Keep all that is needed to go on, and the best epoch so far."""
        score = float(np.mean(list(history[-1]["accuracy"].values())))
        if score > self._score:
            states = {name: {k: v.clone() for k, v in state.items()} for name, state in self.average.items()}
            self._score, self.best = score, (len(history), states)
        content = {
            "parts": self._states(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
            "best": {"epoch": self.best[0], "score": self._score, "states": self.best[1]},
            "history": history,
        }
        with whole_file(path) as draft:
            torch.save(content, draft)

    def resume(self, path: Path) -> list[dict[str, Any]]:
        """Go on from a checkpoint; returns the history of the epochs that are done."""
        if not path.exists():
            return []
        saved = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(saved["parts"][name])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average, self.done = saved["average"], int(saved["done"])
        self.best = (int(saved["best"]["epoch"]), saved["best"]["states"])
        self._score = float(saved["best"]["score"])
        history: list[dict[str, Any]] = saved["history"]
        return history

    def _states(self) -> dict[str, dict[str, torch.Tensor]]:
        return {
            name: {key: value.detach().clone() for key, value in part.state_dict().items()}
            for name, part in self.parts.items()
        }


class _Swapped:
    """Modules with other weights for a while."""

    def __init__(self, parts: dict[str, nn.Module], states: dict[str, dict[str, torch.Tensor]]) -> None:
        self.parts = parts
        self.states = states
        self.own: dict[str, dict[str, torch.Tensor]] = {}

    def __enter__(self) -> None:
        for name, part in self.parts.items():
            self.own[name] = {key: value.detach().clone() for key, value in part.state_dict().items()}
            part.load_state_dict(self.states[name])

    def __exit__(self, *_: object) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(self.own[name])


def _pictures(examples: Sequence[Shown], work: Path, progress: Progress | None) -> NDArray[np.uint8]:
    """All images as squares, uint8 (n, 256, 256, 3), decoded once and kept on disk."""
    path = work / "pictures.npy"
    if not path.exists():
        with whole_file(path) as draft:
            shape = (len(examples), STORED, STORED, 3)
            array = np.lib.format.open_memmap(draft, mode="w+", dtype=np.uint8, shape=shape)
            for i, example in enumerate(examples):
                image = load_image(example.image)
                array[i] = np.asarray(image.resize((STORED, STORED), Image.Resampling.BICUBIC))
                if progress:
                    progress("reading images", i + 1, len(examples))
            array.flush()
    found: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return found


def _plain(pictures: NDArray[np.uint8], rows: Sequence[int]) -> torch.Tensor:
    return torch.stack([to_pixels(Image.fromarray(pictures[r])) for r in rows])
