"""A foreign ONNX file on the CPU: what goes in, what comes out, in batches that it can take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.errors import ModelError, counted
from gsco.specialists.runtimes import onnx_session, require


class OnnxSession:
    """One ONNX graph with one image input, opened in memory by ONNX Runtime.

    Args:
        content: the bytes of an ``.onnx`` file that holds its own weights.
        where: how the file is called in messages.

    Attributes:
        channels: of the input, 1 or 3; None where the graph does not say.
        side: of the square input in pixels; None where the graph does not say.
        batch: the one batch size that the graph takes; None where it takes any.
        outputs: length of a row of the first output; None where the graph does not say.

    Raises:
        ModelError: ONNX Runtime is not installed, or cannot open the file, or the input is no image.
    """

    def __init__(self, content: bytes, *, where: str) -> None:
        require("onnxruntime", "ONNX Runtime", "onnx")
        try:
            # one thread: sums in another order would be other numbers
            self._session: Any = onnx_session(content, 1)
        except Exception as error:  # ONNX Runtime has an error for each kind of damage
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"cannot be opened by ONNX Runtime ({first})",
                where=where,
                remedy="Give an ONNX file that holds its own weights.",
            ) from error
        self.where = where
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
            shapes = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
            raise ModelError(
                f"does not take one float32 batch of pictures (N, channels, side, side), but {shapes}",
                where=where,
                remedy="Export the classifier with such an input.",
            )
        self._input = inputs[0].name
        batch, channels, height, width = (s if isinstance(s, int) else None for s in inputs[0].shape)
        if channels not in (None, 1, 3) or height != width:
            raise ModelError(f"takes pictures of shape {inputs[0].shape}", where=where)
        self.batch, self.channels, self.side = batch, channels, height
        shape = self._session.get_outputs()[0].shape
        self.outputs = shape[-1] if len(shape) == 2 and isinstance(shape[-1], int) else None

    def run(self, pictures: NDArray[np.float32]) -> NDArray[np.float64]:
        """The first output of prepared pictures.

        Args:
            pictures: float32 (N, channels, side, side).

        Returns:
            float64 (N, outputs).

        Raises:
            ModelError: the graph fails, or gives anything but one row per picture.
        """
        size = self.batch or 1  # alone, so that no number depends on what else is asked about
        rows = []
        for start in range(0, len(pictures), size):
            block = pictures[start : start + size]
            short = size - len(block)
            if short:
                block = np.concatenate([block, np.zeros((short, *block.shape[1:]), dtype=np.float32)])
            try:
                out = np.asarray(self._session.run(None, {self._input: block})[0], dtype=np.float64)
            except Exception as error:
                raise ModelError(f"fails on a picture ({error})", where=self.where) from error
            if out.ndim != 2 or len(out) != size:
                raise ModelError(
                    f"gives {out.shape} for {counted(size, 'picture')}, not a row for each", where=self.where
                )
            rows.append(out[: size - short])
        return np.concatenate(rows)
