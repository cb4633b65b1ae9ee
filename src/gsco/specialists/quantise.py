"""Graphs of lower precision: half-precision weights, and 8-bit integers calibrated on training pictures."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.errors import ModelError
from gsco.specialists.runtimes import require

_OPERATIONS = ["Conv", "MatMul", "Gemm", "Add", "Clip", "Relu", "MaxPool"]  # never means nor norms


def to_half(graph: bytes) -> bytes:
    """An ONNX graph with half-precision weights and arithmetic; pixels and logits stay as they are."""
    onnx = require("onnx", "ONNX", "onnx")
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():  # weights that round to the least half are named one by one
        warnings.simplefilter("ignore", UserWarning)
        made = convert_float_to_float16(onnx.load_from_string(graph), keep_io_types=True)
    content: bytes = made.SerializeToString()
    return content


def to_int8(graph: bytes, pictures: Sequence[NDArray[np.uint8]]) -> bytes:
    """An ONNX graph whose trunk computes in 8-bit integers (static, QDQ form).

    Weights have one scale a channel; the ranges of activations are those seen on `pictures`. The head stays
    as it is: it costs nothing and decides the answer.

    Args:
        graph: made by `gsco.specialists.graphs.to_onnx`.
        pictures: uint8 (size, size, 3) each, from training cases.

    Raises:
        ModelError: onnx is not installed, or the graph cannot be quantised.
    """
    onnx = require("onnx", "ONNX", "onnx")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(pictures)

        def get_next(self) -> dict[str, Any] | None:
            picture = next(self.left, None)  # one at a time: every activation of the graph is kept
            return None if picture is None else {"pixels": picture[None]}

    with tempfile.TemporaryDirectory() as scratch, _quiet():
        plain, ready, done = (Path(scratch) / f"{name}.onnx" for name in ("plain", "ready", "done"))
        plain.write_bytes(graph)
        try:
            quant_pre_process(plain, ready, skip_symbolic_shape=True)
            quantize_static(
                ready,
                done,
                Pictures(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_OPERATIONS,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_head_of(onnx.load(ready)),
            )
            return done.read_bytes()
        except Exception as error:  # the quantiser has no errors of its own
            raise ModelError(
                f"the graph cannot be quantised ({error})", remedy="Export with --precision fp32."
            ) from error


def _head_of(model: Any) -> list[str]:
    """Nodes outside the trunk: normalisation before it, head or classifier behind it."""
    nodes = list(model.graph.node)
    outside = [node.name for node in nodes if not node.name.startswith("/trunk/")]
    last = [node.name for node in nodes if node.op_type in {"Gemm", "MatMul"}][-1:]
    return list(dict.fromkeys(outside + last))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the quantiser's advice to its caller, which it logs at the root."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        root.setLevel(level)
