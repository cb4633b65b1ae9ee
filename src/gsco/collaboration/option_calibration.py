"""What a generalist says about options, mended on labelled cases: a temperature and a bias per option.

A language model prefers some names to others whatever it is told (Zhao et al., "Calibrate before use",
ICML 2021), and is as sure of a name it has never met as of one it has. Both are properties of a label
set, so a few labelled cases of that set, never the cases to be answered, show them. Vector scaling
(Guo et al., ICML 2017) takes them off: ``softmax(log p / temperature + bias)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gsco.specialists.calibration import class_weights, softmax

_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class OptionCalibration:
    """A fitted temperature and one bias for each option.

    Attributes:
        temperature: divides the log-probabilities, > 0; above 1 the answers were too sure.
        bias: nats added for each option, shape (n_options,), with mean 0.
        n: labelled cases it was fitted on.
    """

    temperature: float
    bias: tuple[float, ...]
    n: int

    def apply(self, probabilities: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities, shape (..., n_options), each row summing to 1.

        Args:
            probabilities: of the options, shape (..., n_options); held above 1e-12.
        """
        logs = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), _SMALLEST))
        return softmax(logs / self.temperature + np.asarray(self.bias))


def fit_option_calibration(
    probabilities: NDArray[np.float64],
    targets: Sequence[int] | NDArray[np.int64],
    *,
    temperature_spread: float = 0.5,
    bias_spread: float = 1.0,
) -> OptionCalibration:
    """Fit by penalised maximum likelihood; few cases move little, none move nothing.

    Classes weigh as the square root of their rarity, as they do where specialists are trained: an option's
    bias then leans less on how frequent it is in these cases, which may not be how frequent it is elsewhere.

    Args:
        probabilities: what was said about n cases, shape (n, n_options).
        targets: n true option positions.
        temperature_spread: standard deviation of log temperature in its normal prior around 0.
        bias_spread: standard deviation of each bias, in nats, in its normal prior around 0; at 0 there is
            no bias, only a temperature.
    """
    from scipy.optimize import minimize

    truth = np.asarray(targets, dtype=np.int64)
    n, n_options = len(truth), probabilities.shape[1]
    logs = np.log(np.maximum(probabilities, _SMALLEST))
    rows = np.arange(n)
    weight = class_weights(truth, n_options)[truth]
    weight = weight / weight.mean() if n else weight

    def loss(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        sharpness, bias = np.exp(x[0]), x[1:]
        p = softmax(logs * sharpness + bias)
        value = -(weight * np.log(np.maximum(p[rows, truth], _SMALLEST))).sum()
        value += (x[0] / temperature_spread) ** 2 / 2 + tightness * (bias**2).sum() / 2
        p[rows, truth] -= 1
        p *= weight[:, None]
        slope = np.empty_like(x)
        slope[0] = (p * logs).sum() * sharpness + x[0] / temperature_spread**2
        slope[1:] = p.sum(axis=0) + tightness * bias
        return float(value), slope

    tightness = 1 / bias_spread**2 if bias_spread else 0.0
    bounds = [(None, None)] + [(None, None) if bias_spread else (0.0, 0.0)] * n_options
    found = minimize(loss, np.zeros(1 + n_options), jac=True, method="L-BFGS-B", bounds=bounds).x
    bias = found[1:] - found[1:].mean()
    return OptionCalibration(float(np.exp(-found[0])), tuple(float(b) for b in bias), n)
