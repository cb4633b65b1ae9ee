"""What all trained specialists share: one job to learn from, calibrated answers, a folder to live in."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, Dataset, ImageRef
from gsco.cases.names import prettify
from gsco.disk import make_folder, write_atomic
from gsco.errors import ModelError
from gsco.progress import Progress
from gsco.specialists.calibration import (
    class_reliability,
    fit_temperature,
    fit_thresholds,
    judge,
    judge_labels,
    sigmoid,
    softmax,
)
from gsco.specialists.conformal import ANSWERED, COVERAGE, ConformalSets, cut_of_share
from gsco.specialists.machine import ONE_CPU, Machine

FORMAT = "gsco-specialist"
Fields = dict[str, Any]
Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TrainingJob:
    """What a recipe learns from, and with what means.

    Attributes:
        dataset: for its task, name and card.
        train / val: labelled cases; a recipe may look at nothing else.
        seed: of everything drawn.
        cache: folder for features and checkpoints.
        quick: fewer epochs.
        size: side of the network's input in pixels, the recipe's own when None.
        pad: side to which normalised pictures are padded with zeros; the recipe's own when None, 0 for none.
        machine: device and precision of networks that are trained.
        progress: called with (what, done, in all).
        tag: what this job is, for progress lines (``"fold 1/3"``).
    """

    dataset: Dataset
    train: tuple[Case, ...]
    val: tuple[Case, ...]
    seed: int
    cache: Path
    quick: bool = False
    size: int | None = None
    pad: int | None = None
    machine: Machine = ONE_CPU
    progress: Progress | None = None
    tag: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        """Option keys in order."""
        return self.dataset.task.keys

    @property
    def multi_label(self) -> bool:
        """Whether a case may have several labels."""
        return self.dataset.task.multi_label

    @property
    def train_targets(self) -> NDArray[np.int64]:
        """Option positions of the training cases (N,), or 0/1 by label (N, options)."""
        return self.dataset.truth(self.train)

    @property
    def val_targets(self) -> NDArray[np.int64]:
        """The same of the validation cases."""
        return self.dataset.truth(self.val)

    def padding(self, size: int) -> int | None:
        """The side to which pictures of `size` pixels are padded; None where that asks for nothing."""
        return self.pad if self.pad and self.pad > size else None

    def with_train(self, train: tuple[Case, ...], *, tag: str = "") -> TrainingJob:
        """The same job with other training cases."""
        return replace(self, train=train, tag=tag)

    def key(self, train: Sequence[Case] | None = None) -> str:
        """Hash of everything that decides the result: cases, content, labels, options, seed, settings."""
        from gsco.specialists.features import image_keys

        cases = [*(self.train if train is None else train), *self.val]
        content = image_keys([case.image for case in cases])
        rows = [
            [
                case.id,
                case.labels if self.multi_label else case.label,
                case.split,
                case.patient_id,
                case.group,
            ]
            for case in cases
        ]
        settings = [list(self.options), self.dataset.task.modality, self.seed, self.quick, self.size]
        settings += [self.pad, self.machine.precision]
        digest = hashlib.sha256(json.dumps([rows, settings]).encode())
        digest.update(b"".join(content))
        return digest.hexdigest()

    def say(self, what: str, done: int, total: int) -> None:
        """Report progress, if anybody listens."""
        if self.progress:
            self.progress(f"{what} ({self.tag})" if self.tag else what, done, total)


class TrainedSpecialist(ABC):
    """A specialist made by this package; a `gsco.specialists.Specialist`.

    Attributes:
        name: unique among the specialists of a run, file-name safe.
        recipe: the registry name it was made by (``"linear_probe:resnet18"``).
        options: option keys in the order of the probabilities.
        names: what each option is called, ``{"0": "malignant", …}``; None where nobody took that down.
        multi_label: whether a case may have several labels; then each has a probability of its own.
        temperature: by which logits are divided, fitted on validation (single-label tasks).
        label_temperatures / thresholds: the same of each label, and above which probability it is said,
            both fitted on validation; shape (options,), multi-label tasks only.
        reliability: balanced accuracy on validation, or None.
        class_reliability: how often it is right there when it says each option, in [0, 1]; None where
            there are no validation cases, and in multi-label tasks, as the next two.
        abstains_below: confidence that the surest `ANSWERED` of the validation cases reach.
        conformal: how its label sets are made.
        val_metrics: figures on validation; see `gsco.specialists.calibration.judge`.
        details: settings chosen in training, and what it was trained on; they go on the card.
        fast: the same specialist as a graph of another runtime, which answers in its place; None where it
            computes itself. It is not saved; see `gsco.specialists.chosen`.
        runtime_note: a sentence about that choice, empty where nothing was ever chosen.
    """

    kind: ClassVar[str]

    def __init__(
        self, *, name: str, recipe: str, options: tuple[str, ...], multi_label: bool = False
    ) -> None:
        self.name = name
        self.recipe = recipe
        self.options = options
        self.names: dict[str, str] | None = None
        self.multi_label = multi_label
        self.temperature = 1.0
        self.label_temperatures = np.ones(len(options))
        self.thresholds = np.full(len(options), 0.5)
        self.reliability: float | None = None
        self.class_reliability: tuple[float, ...] | None = None
        self.abstains_below: float | None = None
        self.conformal: ConformalSets | None = None
        self.val_metrics: dict[str, float] = {}
        self.details: dict[str, Any] = {}
        self.fast: TrainedSpecialist | None = None
        self.runtime_note = ""

    @abstractmethod
    def logits(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        """Uncalibrated log-probabilities up to a constant per row, (N, options), computed by itself."""

    @abstractmethod
    def _tensors(self) -> dict[str, NDArray[Any]]:
        """All arrays that make this specialist."""

    @abstractmethod
    def _config(self) -> dict[str, Any]:
        """What `_restore` needs besides the tensors."""

    @classmethod
    @abstractmethod
    def _restore(
        cls, base: Fields, config: Fields, tensors: Tensors, cache: Path | None
    ) -> TrainedSpecialist:
        """Rebuild from what `_config` and `_tensors` gave; `base` holds the constructor's arguments."""

    def predict(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        """Calibrated probabilities, (N, options): rows sum to 1, or each label stands by itself."""
        if not images:
            return np.zeros((0, len(self.options)))
        return self.calibrated((self.fast or self).logits(images))

    def calibrated(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """What `predict` makes of logits (N, options)."""
        if self.multi_label:
            return sigmoid(logits, self.label_temperatures)
        return softmax(logits, self.temperature)

    def said(self, probabilities: NDArray[np.float64]) -> list[tuple[str, ...]]:
        """The labels that calibrated probabilities (N, options) amount to, by case.

        One for single-label tasks; for others those above their threshold, which may be none.
        """
        if self.multi_label:
            return [
                tuple(key for key, yes in zip(self.options, row, strict=True) if yes)
                for row in probabilities > self.thresholds
            ]
        return [(self.options[int(choice)],) for choice in probabilities.argmax(axis=1)]

    def calibrate(self, job: TrainingJob) -> None:
        """Fit the temperature, the label sets and abstention on validation; take down the figures there.

        What the options are called, and what data these are, is taken down, too.
        """
        self.names = {option.key: option.name for option in job.dataset.task.options}
        self.details.update(
            dataset=job.dataset.name,
            modality=job.dataset.task.modality,
            license=str(job.dataset.card.get("license") or job.dataset.card.get("licence") or "not stated"),
            n_train=len(job.train),
            n_val=len(job.val),
            seed=job.seed,
        )
        if not job.val:
            return
        logits = self.logits([case.image for case in job.val])
        if self.multi_label:
            self._calibrate_labels(logits, job.val_targets)
            return
        self.temperature = fit_temperature(logits, job.val_targets)
        probabilities = self.calibrated(logits)
        self.val_metrics = judge(probabilities, job.val_targets, ordinal=job.dataset.task.ordinal)
        self.reliability = self.val_metrics["balanced_accuracy"]
        self.class_reliability = class_reliability(probabilities, job.val_targets)
        self.abstains_below = cut_of_share(probabilities.max(axis=1), ANSWERED)
        self.conformal = ConformalSets.fit(probabilities, job.val_targets, coverage=COVERAGE)

    def _calibrate_labels(self, logits: NDArray[np.float64], targets: NDArray[np.int64]) -> None:
        """A temperature and a threshold for each label that occurs and is not everywhere."""
        for k in range(len(self.options)):
            if 0 < targets[:, k].sum() < len(targets):
                two = np.stack([np.zeros(len(logits)), logits[:, k]], axis=1)
                self.label_temperatures[k] = fit_temperature(two, targets[:, k])
        probabilities = self.calibrated(logits)
        self.thresholds = fit_thresholds(probabilities, targets)
        self.val_metrics = judge_labels(probabilities, targets, self.thresholds)
        known = self.val_metrics["balanced_accuracy"]
        self.reliability = None if math.isnan(known) else known

    def to_config(self) -> dict[str, Any]:
        """What ``config.json`` holds."""
        return {
            "format": FORMAT,
            "version": 1,
            "kind": self.kind,
            "name": self.name,
            "recipe": self.recipe,
            "options": list(self.options),
            "names": self.names,
            "temperature": self.temperature,
            **self._labels_config(),
            "reliability": self.reliability,
            "class_reliability": None if self.class_reliability is None else list(self.class_reliability),
            "abstains_below": self.abstains_below,
            "conformal": None if self.conformal is None else self.conformal.to_dict(),
            "val_metrics": {k: (None if math.isnan(v) else v) for k, v in self.val_metrics.items()},
            "details": self.details,
            "model": self._config(),
        }

    def _files(self) -> dict[str, bytes]:
        """The files that hold the tensors, by name."""
        from safetensors.numpy import save

        tensors = {key: np.ascontiguousarray(value) for key, value in self._tensors().items()}
        return {"model.safetensors": save(tensors, metadata={"format": "np"})}

    @classmethod
    def _read(cls, folder: Path) -> dict[str, NDArray[Any]]:
        """The tensors from the files that `_files` made; ModelError where they are missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        weights = folder / "model.safetensors"
        try:
            tensors: dict[str, NDArray[Any]] = load_file(weights)
        except FileNotFoundError:
            raise ModelError(
                "is incomplete: no model.safetensors", where=str(folder), remedy="Train it again."
            ) from None
        except (SafetensorError, OSError) as error:
            raise ModelError(f"is damaged ({error})", where=str(weights), remedy="Train it again.") from error
        return tensors

    def _card(self, config: dict[str, Any]) -> str:
        """The card that belongs to a config."""
        return card(config)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write ``config.json``, ``model.safetensors`` and a card (``README.md``).

        Raises:
            StorageError: the folder cannot be written.
        """
        folder = Path(folder)
        config = self.to_config()
        make_folder(folder)
        for name, content in self._files().items():
            write_atomic(folder / name, content)
        write_atomic(folder / "README.md", self._card(config))
        # last, since a folder with a config counts as whole
        write_atomic(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")

    def _labels_config(self) -> dict[str, Any]:
        if not self.multi_label:
            return {}
        fitted = {"temperatures": self.label_temperatures.tolist(), "thresholds": self.thresholds.tolist()}
        return {"multi_label": True, "labels": fitted}

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, cache: Path | None = None) -> TrainedSpecialist:
        """Read a folder written by `save_pretrained`; `cache` is where features are kept, if anywhere.

        Raises:
            ModelError: missing, damaged, or of another kind.
        """
        from gsco.specialists.loading import load_specialist

        specialist = load_specialist(folder, cache=cache)
        if not isinstance(specialist, cls):
            raise ModelError(
                f"holds a {specialist.kind} specialist, not a {cls.kind} one",
                where=str(folder),
                remedy="Use gsco.specialists.load_specialist, which takes any kind.",
            )
        return specialist


def card(config: dict[str, Any]) -> str:
    """The model card (Markdown) of a specialist's ``config.json``."""
    details = config["details"]
    options = ", ".join(_called(config, key) for key in config["options"])
    lines = [
        f"# Specialist `{config['name']}`",
        "",
        f"Recipe `{config['recipe']}`, options: {options}.",
        "",
        "**For research only. Not a medical device: do not use it to decide about a patient.**",
        "",
        "## Training data",
        "",
        f"Dataset `{details.get('dataset', 'unknown')}` ({details.get('modality', 'modality unknown')}), "
        f"{details.get('n_train', '?')} training and {details.get('n_val', '?')} validation cases. "
        f"Licence of the data: {details.get('license', 'not stated')}.",
        "",
        "## On validation",
        "",
        "The temperature (and, where there are epochs, the epoch) was chosen on these same cases, so the "
        "figures flatter a little.",
        "",
        "| figure | value |",
        "|---|---|",
    ]
    lines += [
        f"| {key} | {'' if value is None else f'{value:.4g}'} |"
        for key, value in sorted(config["val_metrics"].items())
    ]
    lines += _opinion_lines(config)
    lines += ["", "## Settings", "", "| setting | value |", "|---|---|"]
    settings = {**config["model"], **details, "temperature": config["temperature"]}
    lines += [f"| {key} | {value} |" for key, value in sorted(settings.items())]
    return "\n".join(lines) + "\n"


def _called(config: dict[str, Any], key: str) -> str:
    """An option's key, with its name where that says more."""
    name = (config.get("names") or {}).get(key, key)
    return f"`{key}`" if name in (key, prettify(key)) else f"`{key}` ({name})"


def _opinion_lines(config: dict[str, Any]) -> list[str]:
    """What it knows about its own answers; nothing for a folder made before that was taken down."""
    if config.get("class_reliability") is None:
        return []
    lines = [
        "",
        "## What its answers are worth",
        "",
        "How often it is right on validation when it says an option (drawn to its overall share of right "
        "answers by two cases).",
        "",
        "| it says | right |",
        "|---|---|",
    ]
    pairs = zip(config["options"], config["class_reliability"], strict=True)
    lines += [f"| {_called(config, key)} | {share:.3f} |" for key, share in pairs]
    cut, sets = config["abstains_below"], config["conformal"]
    return [
        *lines,
        "",
        f"It abstains below a confidence of {cut:.3f}, which the surest {ANSWERED:.0%} of the validation "
        f"cases reach. An option is in its label set (stated coverage {sets['coverage']:.0%}) where its "
        f"probability is at least {sets['threshold']:.3f}.",
    ]
