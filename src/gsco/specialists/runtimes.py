"""Runtimes that compute an exported graph: ONNX Runtime and OpenVINO, each imported when it is used."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.errors import ModelError

FILES: dict[str, tuple[str, ...]] = {"onnx": ("model.onnx",), "openvino": ("model.xml", "model.bin")}
"""The files of an exported graph, by runtime."""

PRECISIONS: dict[str, tuple[str, ...]] = {
    "onnx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "fp16", "bf16", "int8"),
}
"""The precisions that a graph can have, by runtime."""

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
_LIBRARIES = {"onnx": ("onnxruntime", "ONNX Runtime"), "openvino": ("openvino", "OpenVINO")}


def require(module: str, called: str, extra: str) -> Any:
    """An optional library; ModelError that names the extra where it is not installed."""
    try:
        return __import__(module)
    except ImportError as error:
        raise ModelError(
            f"{called} is not installed ({error})", remedy=f"Run: pip install 'gsco[{extra}]'."
        ) from error


def check_runtime(runtime: str, precision: str) -> None:
    """ModelError where there is no such runtime or precision, or where it cannot be had here."""
    if runtime not in FILES:
        raise ModelError(f"no export target {runtime!r}", remedy=f"Choose one of: {', '.join(FILES)}, auto.")
    if precision not in PRECISIONS[runtime]:
        raise ModelError(
            f"{runtime} has no precision {precision!r} on a CPU",
            remedy=f"Choose one of: {', '.join(PRECISIONS[runtime])}.",
        )
    require(*_LIBRARIES[runtime], runtime)
    if precision == "bf16" and "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ModelError("this processor does not compute in bf16", remedy="Export with --precision fp32.")


def open_graph(runtime: str, precision: str, files: Mapping[str, bytes]) -> tuple[Run, int]:
    """A graph ready to run on the CPU, and the number of options that it answers with.

    As many threads are used as PyTorch was told to use where it is loaded, else as ``OMP_NUM_THREADS``
    says, else all. OpenVINO is told the precision outright, since its own default is bf16 where a
    processor has it.

    Args:
        runtime: a key of `FILES`.
        precision: one of `PRECISIONS`.
        files: content of the graph's files, by name.

    Returns:
        A function of uint8 pictures (N, size, size, 3) to float32 logits (N, options); the number of options.

    Raises:
        ModelError: the runtime is not installed, or cannot read the graph.
    """
    check_runtime(runtime, precision)
    try:
        return (_onnx if runtime == "onnx" else _openvino)(precision, files)
    except Exception as error:  # each runtime has many errors for damage, of no common kind
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{FILES[runtime][0]} cannot be read by {_LIBRARIES[runtime][1]} ({first})"
        ) from error


def _threads() -> int:
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() else 0


def onnx_session(graph: bytes, threads: int) -> Any:
    """An ONNX graph opened by ONNX Runtime on the CPU, quiet; 0 threads for all."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # threads that wait busily would take the time of whoever else computes
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _onnx(_precision: str, files: Mapping[str, bytes]) -> tuple[Run, int]:
    session = onnx_session(files["model.onnx"], _threads())

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(session.run(["logits"], {"pixels": pixels})[0], dtype=np.float32)

    return run, int(session.get_outputs()[0].shape[1])


def _openvino(precision: str, files: Mapping[str, bytes]) -> tuple[Run, int]:
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "NUM_STREAMS": 1,
    }
    if threads := _threads():
        settings["INFERENCE_NUM_THREADS"] = threads
    core = _core()
    model = core.read_model(model=files["model.xml"], weights=files["model.bin"])
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.array(request.infer({"pixels": pixels})["logits"], dtype=np.float32)

    return run, int(model.outputs[0].get_partial_shape()[1].get_length())


def to_openvino(onnx_graph: bytes, *, half: bool = False) -> dict[str, bytes]:
    """An ONNX graph as OpenVINO's two files; with weights in half precision where `half`."""
    import tempfile
    from pathlib import Path

    import openvino

    model = _core().read_model(io.BytesIO(onnx_graph))
    with tempfile.TemporaryDirectory() as scratch:
        openvino.save_model(model, Path(scratch) / "model.xml", compress_to_fp16=half)
        return {name: (Path(scratch) / name).read_bytes() for name in FILES["openvino"]}


def _core() -> Any:
    import openvino

    return openvino.Core()
