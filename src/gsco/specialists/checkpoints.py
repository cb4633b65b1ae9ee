"""Checkpoints of the reference: weights in a ``.pth`` whose name says all the rest.

``{dataset}_{size}_{procedure}_{architecture}_s{seed}_best.pth``, a plain state dict, as the MedMNIST+
benchmark and the reference's specialists have it. Pickles are read with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsco.cases import Dataset
from gsco.cases.medmnist_names import MEDMNIST_2D
from gsco.disk import whole_file, writing
from gsco.errors import ModelError
from gsco.specialists.architectures import OWN, REFERENCE
from gsco.specialists.epochs_head import EpochsHead
from gsco.specialists.networks import NetworkSpecialist
from gsco.specialists.procedures import PADDED, PROCEDURES
from gsco.specialists.registry import training_job
from gsco.specialists.trained import TrainedSpecialist

if TYPE_CHECKING:
    import torch

_NAME = re.compile(
    rf"(?P<dataset>.+)_(?P<size>[1-9][0-9]*)_(?P<procedure>{'|'.join(PROCEDURES)})_"
    r"(?P<architecture>.+)_s(?P<seed>[0-9]+)_(?P<which>best|final)\.pth"
)
_INSIDE = ("net", "state_dict", "model")
"""Keys under which others put the state dict."""


@dataclass(frozen=True, slots=True)
class CheckpointName:
    """What the name of a checkpoint says.

    Attributes:
        dataset: flag of the dataset, as in ``medmnist.INFO`` (``"pneumoniamnist"``).
        size: side of its pictures in pixels; below 224 they are padded with zeros to 224.
        procedure: ``endToEnd`` or ``linearProbing`` (``kNN`` has no weights of its own).
        architecture: timm name, or ``alexnet``.
        seed: of the training.
        which: ``best`` (on validation) or ``final``.
    """

    dataset: str
    size: int
    procedure: str
    architecture: str
    seed: int
    which: str = "best"

    @classmethod
    def parse(cls, name: str) -> CheckpointName:
        """Read a file name.

        Raises:
            ModelError: it is not of the reference's form.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise ModelError(
                "the name is not of the form {dataset}_{size}_{procedure}_{architecture}_s{seed}_best.pth",
                where=name,
                remedy="Rename the file, e.g. pneumoniamnist_28_endToEnd_resnet18_s9930641_best.pth.",
            )
        parts = found.groupdict()
        return cls(
            parts["dataset"],
            int(parts["size"]),
            parts["procedure"],
            parts["architecture"],
            int(parts["seed"]),
            parts["which"],
        )

    def __str__(self) -> str:
        return (
            f"{self.dataset}_{self.size}_{self.procedure}_{self.architecture}_s{self.seed}_{self.which}.pth"
        )


def import_checkpoint(
    path: Path | str, *, dataset: Dataset | None = None, cache: Path | None = None
) -> NetworkSpecialist:
    """A specialist from a checkpoint of the reference.

    Args:
        path: the ``.pth`` file; its name says dataset, size, procedure, architecture and seed.
        dataset: the options, in the order of the network's outputs, and validation cases to calibrate on.
            Without one, the options are those of the MedMNIST set that the name says, and nothing is
            calibrated.
        cache: where features are kept, if anywhere.

    Raises:
        ModelError: another name, or that of a kNN, not a state dict, other tensors than the architecture
            has, another number of classes, or a dataset nobody knows.
    """
    from gsco.specialists.named_networks import create_network

    path = Path(path)
    said = CheckpointName.parse(path.name)
    if said.procedure == "kNN":
        raise ModelError(
            "is named after a kNN, which has no weights of its own",
            where=str(path),
            remedy=f"Train it: gsco specialist train --arch {said.architecture} --procedure knn --data DATA",
        )
    state = read_state(path)
    options, multi_label = _options(said, dataset)
    pad = _padding(said.size)
    model, _ = create_network(
        said.architecture, pretrained=False, num_classes=len(options), side=pad or said.size
    )
    _check(model, state, len(options), path)
    config = model.pretrained_cfg
    made = NetworkSpecialist(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem),
        recipe=f"{said.procedure}:{said.architecture}",
        options=options,
        architecture=said.architecture,
        size=said.size,
        mean=config["mean"],
        std=config["std"],
        pad=pad,
        multi_label=multi_label,
    )
    made.adopt(state)
    made.details.update(
        imported=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        dataset=said.dataset,
        seed=said.seed,
        pretrained=True,
    )
    if dataset is not None:
        trained_on = dict(made.details)
        made.calibrate(training_job(dataset, cache=cache or Path()))
        calibrated_on = dataset.name if made.details["n_val"] else None
        made.details = {**trained_on, "calibrated_on": calibrated_on, "n_val": made.details["n_val"]}
    return made


def export_checkpoint(
    specialist: TrainedSpecialist,
    folder: Path | str,
    *,
    dataset: str | None = None,
    seed: int | None = None,
) -> Path:
    """Write a network's weights as the reference's scripts read them; the path of the file.

    Args:
        specialist: a whole network, or a linear head that is the last layer of one.
        folder: where the file goes.
        dataset: flag of the dataset, for the name; the one it was trained on when None.
        seed: of the training, for the name; its own when None.

    Raises:
        ModelError: the specialist is not one network, or one that the reference's scripts would build or feed
            otherwise than it was trained.
        StorageError: the file cannot be written.
    """
    import torch

    if isinstance(specialist, NetworkSpecialist):
        procedure, architecture = "endToEnd", specialist.architecture
        state = specialist.state_dict()
    elif isinstance(specialist, EpochsHead):
        procedure, architecture = "linearProbing", specialist.backbone_name
        state = specialist.plain_network().state_dict()
    else:
        raise ModelError(
            f"specialist {specialist.name!r} is a {specialist.kind}, not one network",
            remedy="Networks that are trained whole and linearProbing have a checkpoint.",
        )
    size = specialist.size or PADDED
    _check_form(architecture, size, specialist.pad, where=specialist.name)
    about = specialist.details
    name = CheckpointName(
        dataset or str(about["dataset"]),
        size,
        procedure,
        architecture,
        int(about["seed"]) if seed is None else seed,
    )
    path = Path(folder) / str(name)
    with writing(path, also=RuntimeError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as draft:
            torch.save(state, draft)
    return path


def _check_form(architecture: str, size: int, pad: int | None, *, where: str) -> None:
    """ModelError where a checkpoint's name, which is all that is known of it, would say another network."""
    told = (
        f"architecture {architecture!r} is of this package alone"
        if architecture in {*OWN} - {*REFERENCE}
        else f"it was trained on {size} pixels {f'padded to {pad}' if pad else 'without padding'}"
        if pad != _padding(size)
        else None
    )
    if told:
        raise ModelError(
            f"the reference's scripts would answer otherwise than this specialist: {told}",
            where=where,
            remedy=f"Train it with --arch and --procedure end-to-end; they pad to {PADDED} pixels.",
        )


def _padding(size: int) -> int | None:
    """The side to which the reference pads pictures of this size."""
    return PADDED if size < PADDED else None


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a state dict, on the CPU.

    Raises:
        ModelError: there is no such file, or it is not a state dict.
    """
    import pickle

    import torch

    remedy = "Save one with torch.save(model.state_dict(), path)."
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise ModelError("there is no such file", where=str(path), remedy="Check the path.") from None
    except OSError as error:
        raise ModelError(
            f"cannot be read ({error.strerror})", where=str(path), remedy="Give a file that can be."
        ) from None
    if empty:
        raise ModelError("is an empty file", where=str(path), remedy=remedy)
    try:
        with warnings.catch_warnings():  # of a pickle that is refused next
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError):
        raise ModelError(
            "is not a state dict: it holds more than tensors, or is damaged", where=str(path), remedy=remedy
        ) from None
    for key in _INSIDE:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if (
        not isinstance(found, dict)
        or not found
        or not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in found.items())
    ):
        what = f"a {type(found).__name__}" if not isinstance(found, dict) else "a mapping of other things"
        raise ModelError(f"is not a state dict but {what}", where=str(path), remedy=remedy)
    return {key.removeprefix("module."): value for key, value in found.items()}


def _options(said: CheckpointName, dataset: Dataset | None) -> tuple[tuple[str, ...], bool]:
    if dataset is not None:
        return dataset.task.keys, dataset.task.multi_label
    known = MEDMNIST_2D.get(said.dataset.lower())
    if known is None:
        raise ModelError(
            f"nobody knows the classes of dataset {said.dataset!r}",
            where=str(said),
            remedy="Give a dataset with the same options (--data).",
        )
    return tuple(str(i) for i in range(len(known.labels))), known.multi_label


def _check(model: Any, state: dict[str, torch.Tensor], n_options: int, path: Path) -> None:
    """ModelError where tensors are missing, left over, or of another shape."""
    own = model.state_dict()
    counters = "num_batches_tracked"
    head = {f"{name}.weight" for name, module in model.named_modules() if module is model.get_classifier()}
    for key in sorted(head & set(state)):
        if state[key].shape[0] != n_options and state[key].shape[1:] == own[key].shape[1:]:
            raise ModelError(
                f"has {state[key].shape[0]} classes, and the dataset has {n_options} options",
                where=str(path),
                remedy="Give the dataset that it was trained on.",
            )
    missing = [key for key in own if key not in state and not key.endswith(counters)]
    extra = [key for key in state if key not in own]
    other = [key for key in own if key in state and state[key].shape != own[key].shape]
    if missing or extra or other:
        what = (
            f"lacks {missing[0]}"
            if missing
            else f"has {extra[0]}, which it should not"
            if extra
            else f"has {other[0]} of shape {tuple(state[other[0]].shape)}, not {tuple(own[other[0]].shape)}"
        )
        raise ModelError(
            f"is of another architecture than its name says: it {what}", where=str(path), remedy="Rename it."
        )
