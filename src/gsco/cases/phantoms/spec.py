"""`PhantomSpec`: everything that one phantom is drawn from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gsco.cases.phantoms.anatomy import Anatomy, Pose
from gsco.cases.phantoms.findings import Finding, FindingKind


@dataclass(frozen=True, slots=True)
class PhantomSpec:
    """One image to be: a body, a pose, at most one finding, a scanner, and the seed of the noise."""

    anatomy: Anatomy
    pose: Pose
    finding: Finding
    scanner: str = "A"
    seed: int = 0

    def without_finding(self) -> PhantomSpec:
        """The same body, pose, scanner and noise, healthy."""
        return replace(self, finding=Finding("no_finding"))


def sample_spec(
    kind: FindingKind, *, seed: int = 0, patient: int = 0, visit: int = 0, scanner: str = "A"
) -> PhantomSpec:
    """Draw a phantom.

    Args:
        kind: the finding it shows.
        seed: seed of the whole series.
        patient: number of the patient; equal numbers are the same body.
        visit: number of the patient's image.
        scanner: key of `SCANNERS`.
    """
    anatomy = Anatomy.sample(np.random.default_rng([seed, patient, 1]))
    pose = Pose.sample(np.random.default_rng([seed, patient, 2, visit]))
    finding = Finding.sample(kind, anatomy, pose, np.random.default_rng([seed, patient, 3, visit]))
    noise = int(np.random.default_rng([seed, patient, 4, visit]).integers(2**31))
    return PhantomSpec(anatomy, pose, finding, scanner, noise)
