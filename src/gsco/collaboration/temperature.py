"""How sure a generalist's answers should sound, fitted on labelled cases.

A language model is as sure of a name it has never met as of one it has. One temperature for each way of
asking it (Guo et al., ICML 2017) makes its probabilities mean what they say on a dataset, and never
changes which option it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gsco.specialists.calibration import fit_temperature, softmax

_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class Temperature:
    """A fitted temperature.

    Attributes:
        value: divides log-probabilities, > 0; above 1 the answers were too sure.
        n: labelled cases it was fitted on.
    """

    value: float
    n: int

    @classmethod
    def fit(
        cls, probabilities: NDArray[np.float64], targets: Sequence[int] | NDArray[np.int64]
    ) -> Temperature:
        """As a specialist's temperature is fitted; 1 where there is nothing to fit it on.

        Args:
            probabilities: what was said about n cases, shape (n, n_options).
            targets: n true option positions.
        """
        return cls(fit_temperature(_logs(probabilities), targets), len(targets))

    def apply(self, probabilities: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities, shape (..., n_options), each row summing to 1.

        Args:
            probabilities: of the options, shape (..., n_options); held above 1e-12.
        """
        return softmax(_logs(probabilities), self.value)


def _logs(probabilities: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), _SMALLEST))
