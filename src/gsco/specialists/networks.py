"""Specialists that are a whole network trained on the set: fine-tuned, or from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gsco.cases import ImageRef
from gsco.cases.images import load_image
from gsco.specialists.augment import Augmentation, augmentation_for
from gsco.specialists.backbones import Backbone
from gsco.specialists.features import decoded, extract
from gsco.specialists.heads import images_of, standardise
from gsco.specialists.linear import fit_logistic
from gsco.specialists.named_networks import DEFAULT_BACKBONE, check_size, create_network
from gsco.specialists.schedule import Schedule
from gsco.specialists.trained import Fields, Tensors, TrainedSpecialist, TrainingJob
from gsco.specialists.training import train_network

SMALL_CNN = "small_cnn"
_TINY = 40  # pictures no larger than this are not worth more than 64 pixels


class NetworkSpecialist(TrainedSpecialist):
    """A network whose every weight was trained on the set.

    Attributes:
        architecture: timm name, or ``small_cnn``.
        size: side in pixels to which a picture is stretched.
        pad: side to which that is padded with zeros; None where it is not.
    """

    kind: ClassVar[str] = "network"

    def __init__(
        self,
        *,
        name: str,
        recipe: str,
        options: tuple[str, ...],
        architecture: str,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        pad: int | None = None,
        multi_label: bool = False,
    ) -> None:
        super().__init__(name=name, recipe=recipe, options=options, multi_label=multi_label)
        self.architecture = architecture
        self.size = size
        self.pad = pad
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self._state: dict[str, NDArray[Any]] = {}
        self._network: Backbone | None = None

    def fit(
        self,
        job: TrainingJob,
        model: nn.Module,
        schedule: Schedule,
        augmentation: Augmentation | None,
    ) -> NetworkSpecialist:
        """Train `model` on the job, keep the weights of its best epoch, calibrate on validation."""
        check_size(model, self.architecture, self.pad or self.size)
        trained = train_network(
            model,
            job,
            schedule,
            augmentation,
            mean=np.asarray(self.mean, dtype=np.float32),
            std=np.asarray(self.std, dtype=np.float32),
            what=self.name,
        )
        self.adopt(trained.state)
        self.details.update(
            epochs=trained.epochs,
            best_epoch=trained.best_epoch,
            threads=torch.get_num_threads(),
            machine=str(job.machine),
            schedule=str(schedule),
            augmentation=str(augmentation),
        )
        self.calibrate(job)
        trained.checkpoint.unlink(missing_ok=True)
        return self

    def adopt(self, state: dict[str, torch.Tensor]) -> None:
        """Take over the weights of a state dict."""
        counters = "num_batches_tracked"
        self._state = {
            k: v.detach().contiguous().numpy() for k, v in state.items() if not k.endswith(counters)
        }
        self._network = None

    def state_dict(self) -> dict[str, torch.Tensor]:
        """A copy of the weights, as the network's own ``state_dict`` has them."""
        state = {key: torch.from_numpy(np.array(value)) for key, value in self._state.items()}
        norms = [key.removesuffix("running_mean") for key in state if key.endswith("running_mean")]
        # counters are not kept, since inference does not need them; whoever loads strictly does
        return state | {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}

    def plain_network(self) -> nn.Module:
        """The network in eval mode as PyTorch has it, with nothing fused; gradients pass through it.

        Raises:
            ValueError: the weights are not of this architecture.
        """
        model: nn.Module = create_network(
            self.architecture, pretrained=False, num_classes=len(self.options), side=self.pad or self.size
        )[0]
        missing, unexpected = model.load_state_dict(self.state_dict(), strict=False)
        wrong = list(missing) + list(unexpected)
        if wrong:
            raise ValueError(f"{self.architecture} has other tensors, e.g. {wrong[0]}")
        return model.eval()

    @property
    def network(self) -> Backbone:
        """The network, ready for inference."""
        if self._network is None:
            self._network = Backbone(
                self.plain_network(),
                name=self.architecture,
                size=self.size,
                mean=self.mean,
                std=self.std,
                pad=self.pad,
            )
        return self._network

    def logits(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        """Uncalibrated logits, (N, options)."""
        network = self.network
        arrays = decoded(images, lambda image: network.prepare(image), None, ahead=32)
        out: list[NDArray[np.float32]] = []
        for start in range(0, len(images), 16):
            block = [next(arrays) for _ in range(min(16, len(images) - start))]
            out += network.apply(block, lambda batch: [network.model(batch)])
        return np.concatenate(out).astype(np.float64)

    def _config(self) -> dict[str, Any]:
        return {
            "architecture": self.architecture,
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "pad": self.pad,
        }

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return self._state

    @classmethod
    def _restore(
        cls, base: Fields, config: Fields, tensors: Tensors, cache: Path | None
    ) -> TrainedSpecialist:
        made = cls(**base, **config)
        made._state = tensors
        _ = made.network  # so that a misfit is found here and not at the first image
        return made


def fine_tuned(job: TrainingJob, name: str, recipe: str, backbone: str) -> TrainedSpecialist:
    """All weights of a pretrained backbone trained on the set.

    The size is 112 pixels, or 64 where the pictures themselves are tiny, so that two cores need minutes;
    a network that takes one size only is given that.
    """
    size = job.size or (None if job.pad else own_size(backbone)) or (64 if is_tiny(job) else 112)
    pad = job.padding(size)
    shown = (16_000 if size <= 64 else 6_000) // (3 if job.quick else 1)
    least = 2 if job.quick else 3
    schedule = Schedule(size=size, images=shown, least=least, most=20, lr=5e-4, smoothing=0.1, pad=pad)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        model, learned = create_network(
            backbone, pretrained=True, scratch_ok=True, num_classes=len(job.options), side=pad or size
        )
    config = model.pretrained_cfg
    made = NetworkSpecialist(
        name=name,
        recipe=recipe,
        options=job.options,
        architecture=architecture_of(model, backbone),
        size=size,
        mean=config["mean"],
        std=config["std"],
        pad=pad,
        multi_label=job.multi_label,
    )
    if learned:
        job.say(f"{name}: starting point", 0, 1)
        start_head(model, job, size, made.mean, made.std)
    return made.fit(job, model, schedule, augmentation_for(job.dataset.task.modality))


def from_scratch(job: TrainingJob, name: str, recipe: str) -> TrainedSpecialist:
    """A `SmallCNN` at 64 pixels, trained from random weights."""
    size = job.size or 64
    pad = job.padding(size)
    shown = 24_000 // (4 if job.quick else 1)
    schedule = Schedule(
        size=size,
        images=shown,
        least=3 if job.quick else 5,
        most=50,
        lr=3e-3,
        average=0.99,
        patience=15,
        pad=pad,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        model, _ = create_network(SMALL_CNN, pretrained=False, num_classes=len(job.options))
    half = (0.5, 0.5, 0.5)
    made = NetworkSpecialist(
        name=name,
        recipe=recipe,
        options=job.options,
        architecture=SMALL_CNN,
        size=size,
        mean=half,
        std=half,
        pad=pad,
        multi_label=job.multi_label,
    )
    return made.fit(job, model, schedule, augmentation_for(job.dataset.task.modality))


def start_head(model: Any, job: TrainingJob, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Set the classifier of a pretrained network to a logistic regression on its own pooled features.

    Fine-tuning from there bends the features less than from a random classifier, whose first gradients
    are noise (Kumar et al., 2022), and needs fewer epochs. A classifier that is not one linear layer on
    globally pooled features is left as it is.
    """
    classifier = model.get_classifier()
    frozen = Backbone(model.eval(), name=job.dataset.name, size=size, mean=mean, std=std)
    if job.multi_label or not isinstance(classifier, nn.Linear) or classifier.in_features != frozen.channels:
        return
    features = extract(frozen, images_of(job.train), cache=None)
    centre, inverse = standardise(features)
    weight, bias = fit_logistic((features - centre) * inverse, job.train_targets, len(job.options), 0.01)
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(weight * inverse))
        classifier.bias.copy_(torch.from_numpy(bias - (weight * inverse) @ centre))


def architecture_of(model: Any, name: str) -> str:
    """The name by which a network is built again: of one from a folder, what the folder's config says."""
    return str(model.pretrained_cfg.get("architecture") or name) if Path(name).is_dir() else name


def own_size(backbone: str) -> int | None:
    """The side that a network of fixed size (a ViT) was made for, else None."""
    import timm

    if Path(backbone).is_dir():
        return None
    name = DEFAULT_BACKBONE if backbone == "embedded" else backbone
    config = timm.get_pretrained_cfg(name)
    return int(config.input_size[-1]) if config is not None and config.fixed_input_size else None


def is_tiny(job: TrainingJob) -> bool:
    """Whether the first training pictures are no larger than MedMNIST's smallest."""
    return all(max(load_image(case.image).size) <= _TINY for case in job.train[:4])
