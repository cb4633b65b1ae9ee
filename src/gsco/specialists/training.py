"""The training loop of networks: resumable after every epoch, the same numbers for the same seed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gsco.cases import ImageRef
from gsco.errors import StorageError
from gsco.specialists.augment import Augmentation, augment
from gsco.specialists.backbones import weights_mark
from gsco.specialists.calibration import class_weights, softmax
from gsco.specialists.features import decoded
from gsco.specialists.trained import TrainingJob


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a network is trained.

    Attributes:
        size: side of the square input.
        images: training pictures shown in all; epochs follow from it, within `least` and `most`.
        least / most: bounds of the number of epochs.
        batch: pictures per step.
        lr: peak learning rate (linear warm-up over a tenth of the steps, then cosine to 1 %).
        weight_decay: of AdamW, on weights of more than one dimension.
        smoothing: label smoothing.
        average: decay of the moving average of the weights, which is what is kept.
        patience: epochs without a better validation loss after which training stops.
    """

    size: int
    images: int
    least: int = 5
    most: int = 30
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.05
    smoothing: float = 0.05
    average: float = 0.98
    patience: int = 8

    def epochs(self, n: int) -> int:
        """Number of epochs for `n` training cases."""
        return max(self.least, min(self.most, round(self.images / max(1, n))))


@dataclass(frozen=True, slots=True)
class Trained:
    """What training gives.

    Attributes:
        state: the averaged weights of the best epoch.
        epochs: epochs run.
        best_epoch: the one kept, from 1.
        val_loss: its class-weighted validation log loss (nan without validation cases).
        checkpoint: the file from which a killed training goes on; to be removed when the weights are saved.
    """

    state: dict[str, torch.Tensor]
    epochs: int
    best_epoch: int
    val_loss: float
    checkpoint: Path


def train_network(
    model: nn.Module,
    job: TrainingJob,
    schedule: Schedule,
    augmentation: Augmentation,
    *,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    what: str,
) -> Trained:
    """Train all weights of a classifier.

    The loss is cross entropy with label smoothing, classes weighted by the inverse square root of their
    frequency. After each epoch everything needed to go on is written to the job's cache; when the same
    job is asked for again after a kill, it continues from there and ends with the same weights.

    Args:
        model: network from normalised (N, 3, size, size) to logits; it is changed.
        job: cases, seed, cache, progress.
        schedule: how long and how fast.
        augmentation: what may be done to training pictures.
        mean / std: of the network's normalisation, for values in [0, 1], shape (3,).
        what: name for progress lines and part of the checkpoint's identity.

    Raises:
        ImageError: an image cannot be read.
        StorageError: the checkpoint cannot be written.
    """
    path = _checkpoint_path(job, schedule, augmentation, model, what)
    job.say(f"{what}: reading images", 0, len(job.train) + len(job.val))
    train = _pixels([case.image for case in job.train], schedule.size)
    val = _pixels([case.image for case in job.val], schedule.size)
    targets = torch.from_numpy(job.train_targets)
    weights = torch.from_numpy(class_weights(job.train_targets, len(job.options))).float()
    epochs = schedule.epochs(len(train))
    steps = math.ceil(len(train) / schedule.batch)
    centre, scale = torch.from_numpy(mean)[None, :, None, None], torch.from_numpy(std)[None, :, None, None]

    def normalise(pixels: torch.Tensor) -> torch.Tensor:
        return ((pixels - centre) / scale).contiguous(memory_format=torch.channels_last)

    model = model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(_groups(model, schedule.weight_decay), lr=schedule.lr)
    average = {key: value.detach().clone() for key, value in model.state_dict().items()}
    best: dict[str, Any] = {"loss": math.inf, "epoch": 0, "state": average}
    start = 0
    saved = _read(path)
    if saved is not None:
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        average, best, start = saved["average"], saved["best"], int(saved["epoch"])
    for epoch in range(start, epochs):
        if epoch - best["epoch"] >= schedule.patience and job.val:
            break
        job.say(f"{what}: epoch {epoch + 1}", epoch, epochs)
        # all chance of an epoch comes from (seed, epoch), so that it is the same after a resume
        with _seeded(job.seed, epoch) as generator:
            order = torch.randperm(len(train), generator=generator)
            model.train()
            for step in range(steps):
                rows = order[step * schedule.batch : (step + 1) * schedule.batch]
                if len(rows) < 2:  # batch norm needs two
                    continue
                done = epoch * steps + step
                for group in optimiser.param_groups:
                    group["lr"] = schedule.lr * _rate(done, epochs * steps)
                pictures = augment(_float(train[rows]), augmentation, generator)
                loss = nn.functional.cross_entropy(
                    model(normalise(pictures)),
                    targets[rows],
                    weight=weights,
                    label_smoothing=schedule.smoothing,
                )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimiser.step()
                _blend(average, model.state_dict(), min(schedule.average, (done + 1) / (done + 10)))
        current = _val_loss(model, average, val, job, normalise) if job.val else math.nan
        if not job.val or current < best["loss"]:
            kept = {key: value.clone() for key, value in average.items()}
            best = {"loss": current, "epoch": epoch + 1, "state": kept}
        _write(
            path,
            {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average,
                "best": best,
                "epoch": epoch + 1,
            },
        )
        start = epoch + 1
    job.say(f"{what}: trained", epochs, epochs)
    return Trained(best["state"], start, int(best["epoch"]), float(best["loss"]), path)


def _pixels(refs: list[ImageRef], size: int) -> torch.Tensor:
    """All pictures stretched to the square, uint8 (N, 3, size, size)."""
    from PIL import Image

    def prepare(image: Image.Image) -> NDArray[np.uint8]:
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)

    if not refs:
        return torch.zeros((0, 3, size, size), dtype=torch.uint8)
    arrays = np.stack(list(decoded(refs, prepare, None, ahead=64)))
    return torch.from_numpy(arrays).permute(0, 3, 1, 2)


def _float(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.to(torch.float32).div_(255)


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate at a step."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


def _blend(average: dict[str, torch.Tensor], state: dict[str, torch.Tensor], keep: float) -> None:
    for key, value in state.items():
        if value.is_floating_point():
            average[key].lerp_(value.detach(), 1 - keep)
        else:
            average[key].copy_(value)


def _val_loss(
    model: nn.Module, average: dict[str, torch.Tensor], val: torch.Tensor, job: TrainingJob, normalise: Any
) -> float:
    """Class-weighted log loss of the averaged weights on validation."""
    own = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(average)
    model.eval()
    with torch.inference_mode():
        logits = torch.cat([model(normalise(_float(block))) for block in torch.split(val, 64)])
    model.load_state_dict(own)
    targets = job.val_targets
    weights = class_weights(targets, len(job.options))[targets]
    picked = softmax(logits.numpy())[np.arange(len(targets)), targets]
    return float((weights * -np.log(np.maximum(picked, 1e-12))).sum() / weights.sum())


@contextmanager
def _seeded(seed: int, epoch: int) -> Iterator[torch.Generator]:
    """Torch's global generator (dropout) and one of our own, both seeded; the global one is given back."""
    number = int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:7], "big")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        yield torch.Generator().manual_seed(number + 1)


def _checkpoint_path(
    job: TrainingJob, schedule: Schedule, augmentation: Augmentation, model: nn.Module, what: str
) -> Path:
    settings = [asdict(schedule), asdict(augmentation), what, weights_mark(model)]
    text = json.dumps([job.key(), settings, torch.get_num_threads(), torch.__version__])
    return job.cache / "training" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.pt"


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged checkpoint costs time, not correctness: start again
        return None
    return saved


def _write(path: Path, state: dict[str, Any]) -> None:
    draft = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, draft)
        draft.replace(path)
    except (OSError, RuntimeError) as error:
        raise StorageError(
            f"cannot be written ({error})", where=str(path), remedy="Free some space, or name another cache."
        ) from error
