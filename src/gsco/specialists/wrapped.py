"""A Python function or a scikit-learn classifier as a specialist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from gsco.cases import ImageRef, load_image
from gsco.errors import ModelError, counted
from gsco.specialists.heads import FeatureSpecialist, images_of
from gsco.specialists.named_networks import DEFAULT_BACKBONE
from gsco.specialists.trained import Fields, Tensors, TrainedSpecialist, TrainingJob

if TYPE_CHECKING:
    from PIL import Image

Function = Callable[[list["Image.Image"]], Any]
_LEAST = 1e-12  # probabilities are held above it before their logarithm is taken
_PROBE = 64  # training rows whose answers are kept, to be compared when it is fitted again


def log_probabilities(probabilities: Any, name: str) -> NDArray[np.float64]:
    """Logits whose softmax is what was given.

    Args:
        probabilities: (N, options), not negative, rows of any positive sum.
        name: who gave them, for the message.

    Raises:
        ModelError: not finite, negative, or a row without any weight.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    if given.ndim != 2 or not np.isfinite(given).all() or (given < 0).any() or (given.sum(axis=1) <= 0).any():
        raise ModelError(
            f"specialist {name!r} gave numbers that are no probabilities",
            remedy="Give one finite row of numbers in [0, 1] for each image.",
        )
    return np.asarray(np.log(np.maximum(given / given.sum(axis=1, keepdims=True), _LEAST)))


class CallableSpecialist(TrainedSpecialist):
    """A function of pictures as a specialist, in this process only.

    Args:
        function: takes a list of RGB pictures (PIL), gives (N, options): logits or probabilities.
        options: option keys in the order of the columns.
        name: file-name safe.
        output: what the function gives.
        batch_size: pictures per call. One by default: then no number depends on which images are asked
            about together, which the conformance test would find.
    """

    kind: ClassVar[str] = "callable"

    def __init__(
        self,
        function: Function,
        options: Sequence[str],
        *,
        name: str,
        output: Literal["logits", "probabilities"] = "probabilities",
        batch_size: int = 1,
    ) -> None:
        super().__init__(name=name, recipe="callable", options=tuple(options))
        self.function, self.output, self.batch_size = function, output, batch_size

    def logits(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        """Uncalibrated logits, (N, options); ModelError where the function gives anything else."""
        rows = []
        for start in range(0, len(images), self.batch_size):
            block = [load_image(image) for image in images[start : start + self.batch_size]]
            given = np.asarray(self.function(block), dtype=np.float64)
            if given.shape != (len(block), len(self.options)):
                raise ModelError(
                    f"specialist {self.name!r} gave {given.shape} for {counted(len(block), 'picture')} and "
                    f"{len(self.options)} options",
                    remedy="Give one row for each picture and one column for each option.",
                )
            rows.append(given)
        both = np.concatenate(rows)
        return log_probabilities(both, self.name) if self.output == "probabilities" else both

    def save_pretrained(self, folder: Path | str) -> None:
        """A function has no file format but pickle, which runs code when it is read.

        Raises:
            ModelError: always.
        """
        raise _unsavable(self.name, folder)

    def _tensors(self) -> dict[str, NDArray[Any]]:
        raise _unsavable(self.name, "")

    def _config(self) -> dict[str, Any]:
        raise _unsavable(self.name, "")

    @classmethod
    def _restore(
        cls, base: Fields, config: Fields, tensors: Tensors, cache: Path | None
    ) -> TrainedSpecialist:
        raise ModelError(f"a specialist of kind {cls.kind!r} cannot be read from a folder")


class SklearnSpecialist(FeatureSpecialist):
    """A scikit-learn classifier on features of a frozen backbone.

    scikit-learn's estimators have no safe file format, so a saved folder holds what the classifier was
    fitted on, and it is fitted again when the folder is read; where that gives other answers than it did,
    the folder is refused. It takes a class that knows how to make the estimator: a subclass with
    `make_estimator` and a ``kind`` of its own, known by entry point (see `gsco.specialists.plugins`). An
    estimator that is handed over works in this process only.

    Args:
        estimator: with ``predict_proba``; what `make_estimator` gives when None. One that is fitted
            already, to option positions or keys, is used by `calibrate` alone, without `fit`.
        arguments: as for `FeatureSpecialist`; pooled features of the embedded backbone by default.

    Example:
        >>> forest = SklearnSpecialist(RandomForestClassifier(), name="forest", options=job.options)
        ... # doctest: +SKIP
        >>> forest.fit(job).predict(images)  # doctest: +SKIP
    """

    kind: ClassVar[str] = "sklearn"

    def __init__(self, estimator: Any = None, **arguments: Any) -> None:
        defaults = {"features": "pooled", "backbone_name": DEFAULT_BACKBONE, "size": None}
        super().__init__(**{"recipe": self.kind, **defaults, **arguments})
        self._handed_over = estimator is not None
        self.estimator = self.make_estimator() if estimator is None else estimator
        self.known = np.zeros((0, 0), dtype=np.float32)
        self.labels = np.zeros(0, dtype=np.int64)

    def make_estimator(self) -> Any:
        """A new, unfitted estimator, its ``random_state`` fixed; a subclass says which.

        Raises:
            ModelError: here.
        """
        raise ModelError(
            "no estimator is given", remedy="Hand one over, or write a subclass with make_estimator()."
        )

    def fit(self, job: TrainingJob) -> SklearnSpecialist:
        """Learn from the job's training cases, calibrate on its validation cases.

        Raises:
            ModelError: the task is multi-label.
        """
        if job.multi_label:
            raise ModelError(f"specialist {self.name!r} takes one label a case, and the task has several")
        self.known = self.embed(images_of([*job.train, *job.val]), job)[: len(job.train)]
        self.labels = job.train_targets
        self.estimator.fit(self.known, self.labels)
        self.calibrate(job)
        return self

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Features (N, D) to log-probabilities (N, options); an option it never met gets the least."""
        given = np.asarray(self.estimator.predict_proba(features), dtype=np.float64)
        known = [self._position(label) for label in self.estimator.classes_]
        out = np.zeros((len(features), len(self.options)))
        out[:, known] = given
        return log_probabilities(out, self.name)

    def _position(self, label: Any) -> int:
        if label in self.options:
            return self.options.index(label)
        if isinstance(label, int | np.integer) and 0 <= label < len(self.options):
            return int(label)
        raise ModelError(
            f"the estimator of {self.name!r} was fitted to {label!r}, which is no option",
            remedy="Fit it to option keys, or to their positions.",
        )

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder, see the class.

        Raises:
            ModelError: the estimator was handed over, so that nobody could make it again.
            StorageError: the folder cannot be written.
        """
        if self._handed_over or not len(self.known):
            raise _unsavable(self.name, folder)
        super().save_pretrained(folder)

    def _config(self) -> dict[str, Any]:
        return {**super()._config(), "scikit-learn": version("scikit-learn")}

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {"known": self.known, "labels": self.labels, "probe": self.score(self.known[:_PROBE])}

    @classmethod
    def _restore(
        cls, base: Fields, config: Fields, tensors: Tensors, cache: Path | None
    ) -> TrainedSpecialist:
        made = cls(**cls._arguments(base, config, cache))
        made.known, made.labels = tensors["known"], tensors["labels"]
        made.estimator.fit(made.known, made.labels)
        if not np.allclose(made.score(made.known[:_PROBE]), tensors["probe"], atol=1e-6):
            raise ModelError(
                f"specialist {made.name!r} was fitted by scikit-learn {config['scikit-learn']} and answers "
                f"otherwise when {version('scikit-learn')} fits it",
                remedy="Train it again, or fix the random_state of its estimator.",
            )
        return made


def _unsavable(name: str, folder: Path | str) -> ModelError:
    return ModelError(
        f"specialist {name!r} is a Python object and cannot be saved",
        where=str(folder),
        remedy="Export it to ONNX and wrap that, or write a plugin (docs/specialists.md).",
    )
