"""One recipe trained several times, each time without another share of the training cases: bagging.

Their mean answers better than any of them, since their errors are partly their own (Breiman, 1996); nnU-Net
(Isensee et al., 2021) and AutoGluon (Erickson et al., 2020) join their cross-validation folds so. And each
training case has one member that never saw it, whose opinion of it is honest (`out_of_fold`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from gsco.cases import ImageRef
from gsco.errors import ModelError
from gsco.specialists.folds import deal, fold_specialist, whole
from gsco.specialists.heads import FeatureSpecialist
from gsco.specialists.trained import Fields, Tensors, TrainedSpecialist, TrainingJob

LEAST = 1e-12
"""The least probability, so that its logarithm is finite."""


class BaggedSpecialist(TrainedSpecialist):
    """The mean of the calibrated probabilities of its members, calibrated once more.

    Attributes:
        members: specialists of one kind and one recipe, with the same options. The first one was trained on
            all training cases.
    """

    kind: ClassVar[str] = "bagged"

    def __init__(
        self,
        *,
        name: str,
        recipe: str,
        options: tuple[str, ...],
        members: Sequence[TrainedSpecialist],
        multi_label: bool = False,
    ) -> None:
        super().__init__(name=name, recipe=recipe, options=options, multi_label=multi_label)
        self.members = tuple(members)
        for member in self.members:
            if type(member)._files is not TrainedSpecialist._files:
                raise ModelError(
                    f"recipe {recipe!r} cannot be trained in folds: a specialist of kind {member.kind!r} "
                    "has files of its own",
                    remedy="Train it without folds.",
                )

    def logits(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        """Logarithm (of several labels, log odds) of the members' mean probability, (N, options)."""
        first = self.members[0]
        if isinstance(first, FeatureSpecialist):  # heads of one recipe stand on one network, which looks once
            features = first.embed(images)
            return self.joined([cast("FeatureSpecialist", one).score(features) for one in self.members])
        return self.joined([member.logits(images) for member in self.members])

    def joined(self, logits: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """What the members' uncalibrated logits, (N, options) each, amount to."""
        said = [
            member.calibrated(np.asarray(own, dtype=np.float64))
            for member, own in zip(self.members, logits, strict=True)
        ]
        mean: NDArray[np.float64] = np.clip(np.mean(said, axis=0), LEAST, 1 - LEAST)
        logs: NDArray[np.float64] = np.log(mean)
        return logs - np.log1p(-mean) if self.multi_label else logs

    def _config(self) -> dict[str, Any]:
        return {"members": [member.to_config() for member in self.members]}

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {
            f"{number}/{name}": values
            for number, member in enumerate(self.members)
            for name, values in member._tensors().items()
        }

    @classmethod
    def _restore(
        cls, base: Fields, config: Fields, tensors: Tensors, cache: Path | None
    ) -> TrainedSpecialist:
        from gsco.specialists.loading import restored

        members = []
        for number, own in enumerate(config["members"]):
            mark = f"{number}/"
            mine = {
                name.removeprefix(mark): values for name, values in tensors.items() if name.startswith(mark)
            }
            members.append(restored(own, mine, cache))
        return cls(**base, members=members)

    def _card(self, config: dict[str, Any]) -> str:
        # of the members' settings, which differ in nothing, those of the first one
        members = config["model"]["members"]
        return super()._card({**config, "model": {**members[0]["model"], "members": len(members)}})


def principal(specialist: Any) -> Any:
    """The member of a bag that was trained on all training cases; any other specialist itself."""
    return specialist.members[0] if isinstance(specialist, BaggedSpecialist) else specialist


def bag(recipe: str, job: TrainingJob, folds: int) -> BaggedSpecialist:
    """Train a recipe on all training cases, and once more without each of so many folds of them.

    Members are kept in the job's cache as they are finished, where `out_of_fold` finds them, too; a killed
    call goes on where it was.

    Args:
        recipe: as for `gsco.specialists.train_specialist`.
        job: cases, seed, cache, machine, progress.
        folds: at least 2; patients and groups are kept together.

    Raises:
        DatasetError: too few groups for the folds, or nothing to learn from.
        ModelError: no such recipe, or one whose specialists cannot be kept together.
    """
    from gsco.specialists.registry import safe_name

    members = [fold_specialist(recipe, fold) for fold in (whole(recipe, job), *deal(recipe, job, folds))]
    made = BaggedSpecialist(
        name=safe_name(recipe),
        recipe=recipe,
        options=job.options,
        members=members,
        multi_label=job.multi_label,
    )
    made.details.update(folds=folds)
    made.calibrate(job)
    return made
