"""The training loop of networks: resumable after every epoch, the same numbers for the same seed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gsco.cases import ImageRef
from gsco.disk import whole_file, writing
from gsco.errors import ModelError
from gsco.specialists.augment import Augmentation, augment
from gsco.specialists.backbones import pad_to, weights_mark
from gsco.specialists.calibration import as_probabilities, class_weights, judge, log_loss
from gsco.specialists.features import decoded
from gsco.specialists.machine import Engine
from gsco.specialists.schedule import Schedule
from gsco.specialists.trained import TrainingJob


@dataclass(frozen=True, slots=True)
class Trained:
    """What training gives.

    Attributes:
        state: the (averaged) weights of the best epoch, on the CPU.
        epochs: epochs run.
        best_epoch: the one kept, from 1.
        figure: what it was kept for, lower is better: its class-weighted validation log loss, or minus its
            validation AUC (nan without validation cases).
        checkpoint: the file from which a killed training goes on; to be removed when the weights are saved.
    """

    state: dict[str, torch.Tensor]
    epochs: int
    best_epoch: int
    figure: float
    checkpoint: Path


def train_network(
    model: nn.Module,
    job: TrainingJob,
    schedule: Schedule,
    augmentation: Augmentation | None,
    *,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    what: str,
) -> Trained:
    """Train all weights of a classifier.

    The loss is cross entropy, or binary cross entropy by label where a case may have several. After each
    epoch everything needed to go on is written to the job's cache; when the same job is asked for again
    after a kill, it continues from there and ends with the same weights.

    Args:
        model: network from normalised (N, 3, side, side) to logits; it is changed.
        job: cases, seed, cache, machine, progress.
        schedule: how long and how fast.
        augmentation: what may be done to training pictures; None leaves them as they are.
        mean / std: of the network's normalisation, for values in [0, 1], shape (3,).
        what: name for progress lines and part of the checkpoint's identity.

    Raises:
        ImageError: an image cannot be read.
        ModelError: the weights ran away: no epoch left finite ones.
        StorageError: the checkpoint cannot be written.
    """
    path = _checkpoint_path(job, schedule, augmentation, model, what)
    job.say(f"{what}: reading images", 0, len(job.train) + len(job.val))
    train = _pixels([case.image for case in job.train], schedule.size)
    val = _pixels([case.image for case in job.val], schedule.size)
    loss_of = _Loss(job, schedule)
    epochs = schedule.epochs(len(train))
    steps = math.ceil(len(train) / schedule.batch)
    prepare = _Normalise(mean, std, schedule.pad)
    model = model.to(device=job.machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    engine = Engine(model, _optimiser(model, schedule), job.machine)
    average = _copy(model.state_dict())
    best: dict[str, Any] = {"figure": math.inf, "epoch": 0, "state": average}
    start = 0
    saved = _read(path)
    if saved is not None:
        model.load_state_dict(saved["model"])
        engine.optimiser.load_state_dict(saved["optimiser"])
        best, start = saved["best"], int(saved["epoch"])
        average = saved["average"] if schedule.average else _copy(model.state_dict())
    for epoch in range(start, epochs):
        if schedule.patience is not None and job.val and epoch - best["epoch"] >= schedule.patience:
            break
        job.say(f"{what}: epoch {epoch + 1}", epoch, epochs)
        # all chance of an epoch comes from (seed, epoch), so that it is the same after a resume
        with _seeded(job.seed, epoch) as generator:
            order = schedule.order(job.train_targets, generator)
            model.train()
            for step in range(steps):
                rows = order[step * schedule.batch : (step + 1) * schedule.batch]
                if len(rows) < 2 * job.machine.processes:  # batch norm needs two, in each process
                    continue
                rows = rows[job.machine.rank :: job.machine.processes]
                for group in engine.optimiser.param_groups:
                    group["lr"] = schedule.lr * schedule.share(epoch, step, epochs, steps)
                pictures = _float(train[rows])
                if augmentation is not None:
                    pictures = augment(pictures, augmentation, generator)
                engine.optimiser.zero_grad(set_to_none=True)
                for part in _parts(len(rows), schedule.accumulate):
                    batch = prepare(pictures[part]).to(engine.device)
                    with engine.forward():
                        logits = engine.model(batch)
                    share = len(range(*part.indices(len(rows)))) / len(rows)
                    engine.backward(loss_of(logits.float(), rows[part]) * share)
                engine.step(schedule.clip)
                if schedule.average:
                    done = epoch * steps + step
                    _blend(average, model.state_dict(), min(schedule.average, (done + 1) / (done + 10)))
        if not schedule.average:
            average = _copy(model.state_dict())
        figure = engine.agreed(_judged(model, average, val, job, prepare, schedule)) if job.val else math.nan
        if not job.val or figure < best["figure"]:
            best = {"figure": figure, "epoch": epoch + 1, "state": _copy(average)}
        start = epoch + 1
        if job.machine.is_first:
            state = {"model": model.state_dict(), "optimiser": engine.optimiser.state_dict()}
            if schedule.average:
                state["average"] = average
            _write(path, {**state, "best": best, "epoch": start})
    job.say(f"{what}: trained", epochs, epochs)
    kept = {key: value.cpu() for key, value in best["state"].items()}
    if not best["epoch"] or not all(value.isfinite().all() for value in kept.values()):
        path.unlink(missing_ok=True)  # or the same command would end here again
        raise ModelError(
            f"training of {what} diverged: no epoch gave finite answers",
            remedy="Train it with --precision fp32, another seed, or by another recipe.",
        )
    return Trained(kept, start, int(best["epoch"]), float(best["figure"]), path)


class _Loss:
    """The loss of some rows of the training cases, from their logits."""

    def __init__(self, job: TrainingJob, schedule: Schedule) -> None:
        self.targets = torch.from_numpy(job.train_targets).to(job.machine.device)
        self.smoothing = schedule.smoothing
        if job.multi_label:
            often = job.train_targets.sum(axis=0)
            rarity = (len(job.train) - often) / np.maximum(often, 1)
            weights = np.where(often > 0, rarity**schedule.balance, 1.0)
        else:
            weights = class_weights(job.train_targets, len(job.options), schedule.balance)
        self.weights = torch.from_numpy(weights).float().to(job.machine.device)

    def __call__(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        targets = self.targets[rows.to(self.targets.device)]
        if targets.ndim == 1:
            return nn.functional.cross_entropy(
                logits, targets, weight=self.weights, label_smoothing=self.smoothing
            )
        smooth = targets.float() * (1 - self.smoothing) + self.smoothing / 2
        return nn.functional.binary_cross_entropy_with_logits(logits, smooth, pos_weight=self.weights)


class _Normalise:
    """Pictures in [0, 1] to the network's input: normalised, then padded with zeros."""

    def __init__(self, mean: NDArray[np.float32], std: NDArray[np.float32], pad: int | None) -> None:
        self.centre = torch.from_numpy(mean)[None, :, None, None]
        self.scale = torch.from_numpy(std)[None, :, None, None]
        self.pad = pad

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        centred = pad_to((pixels - self.centre) / self.scale, self.pad)
        return centred.contiguous(memory_format=torch.channels_last)


def _parts(n: int, parts: int) -> list[slice]:
    """`n` rows in at most so many parts, none of one row only (batch norm needs two)."""
    each = max(2, math.ceil(n / max(1, parts)))
    starts = list(range(0, n, each))
    if len(starts) > 1 and n - starts[-1] < 2:
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], n], strict=True)]


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


def _optimiser(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    if schedule.optimiser == "adam":
        return torch.optim.Adam(trained, lr=schedule.lr)
    decayed = [p for p in trained if p.ndim > 1 or schedule.decay_all]
    plain = [p for p in trained if p.ndim <= 1 and not schedule.decay_all]
    groups = [
        {"params": decayed, "weight_decay": schedule.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=schedule.lr)


def _copy(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}


def _blend(average: dict[str, torch.Tensor], state: dict[str, torch.Tensor], keep: float) -> None:
    for key, value in state.items():
        if value.is_floating_point():
            average[key].lerp_(value.detach(), 1 - keep)
        else:
            average[key].copy_(value)


def _judged(
    model: nn.Module,
    average: dict[str, torch.Tensor],
    val: torch.Tensor,
    job: TrainingJob,
    prepare: _Normalise,
    schedule: Schedule,
) -> float:
    """The validation figure of the averaged weights, lower is better: weighted log loss, or minus the AUC."""
    own = _copy(model.state_dict())
    model.load_state_dict(average)
    model.eval()
    with torch.inference_mode():
        blocks = [prepare(_float(block)).to(job.machine.device) for block in torch.split(val, 64)]
        logits = torch.cat([model(block).float().cpu() for block in blocks]).numpy()
    model.load_state_dict(own)
    if not np.isfinite(logits).all():
        return math.inf
    targets = job.val_targets
    probabilities = as_probabilities(logits, multi_label=job.multi_label)
    if schedule.keep == "auc":
        area = judge(probabilities, targets)["auc"]
        return 0.0 if math.isnan(area) else -area
    if job.multi_label:
        return log_loss(probabilities, targets)
    weights = class_weights(targets, len(job.options), schedule.balance)[targets]
    picked = probabilities[np.arange(len(targets)), targets]
    return float((weights * -np.log(np.maximum(picked, 1e-12))).sum() / weights.sum())


@contextmanager
def _seeded(seed: int, epoch: int) -> Iterator[torch.Generator]:
    """Torch's global generator (dropout) and one of our own, both seeded; the global one is given back."""
    number = int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:7], "big")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        yield torch.Generator().manual_seed(number + 1)


def _checkpoint_path(
    job: TrainingJob, schedule: Schedule, augmentation: Augmentation | None, model: nn.Module, what: str
) -> Path:
    changes = None if augmentation is None else asdict(augmentation)
    machine = asdict(replace(job.machine, rank=0))  # all processes of one training share its checkpoint
    settings = [asdict(schedule), changes, what, weights_mark(model), machine]
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
    with writing(path, remedy="Name another cache.", also=RuntimeError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as draft:
            torch.save(state, draft)
