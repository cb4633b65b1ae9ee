"""A specialist as one exported graph, which needs no PyTorch to speak."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gsco.cases import ImageRef
from gsco.errors import ModelError
from gsco.specialists.features import decoded
from gsco.specialists.preparation import stretched
from gsco.specialists.runtimes import FILES, open_graph
from gsco.specialists.trained import Fields, Tensors, TrainedSpecialist, card

_BLOCK = 4  # pictures a call; a fixed block makes a number independent of how many are asked about


class ExportedSpecialist(TrainedSpecialist):
    """Another specialist's network and head as one graph of ONNX Runtime or OpenVINO.

    The graph takes uint8 pictures (N, size, size, 3), RGB, and gives float32 logits (N, options); it
    normalises the pixels itself. What is left outside is the antialiased stretch to the square before it
    (`stretched`), and temperature and softmax behind it.

    Attributes:
        runtime: ``onnx`` or ``openvino``.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        size: side of the square input in pixels.
        interpolation: the filter of the stretch.
        original: kind, and settings of the specialist it was made from.
        report: what was measured when it was exported; see `gsco.specialists.export`.
    """

    kind: ClassVar[str] = "exported"

    def __init__(
        self,
        *,
        name: str,
        recipe: str,
        options: tuple[str, ...],
        multi_label: bool = False,
        runtime: str,
        precision: str,
        size: int,
        interpolation: str,
        files: Mapping[str, bytes],
        original: dict[str, Any],
        report: dict[str, Any],
    ) -> None:
        super().__init__(name=name, recipe=recipe, options=options, multi_label=multi_label)
        self.runtime = runtime
        self.precision = precision
        self.size = size
        self.interpolation = interpolation
        self.original = original
        self.report = report
        self._graph = dict(files)
        self._run, answers = open_graph(runtime, precision, self._graph)
        if answers != len(options):
            raise ValueError(f"the graph answers {answers} options, config.json names {len(options)}")

    def logits(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        """Uncalibrated logits, (N, options)."""
        prepare = partial(stretched, size=self.size, interpolation=self.interpolation)
        arrays = decoded(images, prepare, None, ahead=32)
        out = [
            self.run(np.stack([next(arrays) for _ in images[start : start + _BLOCK]]))
            for start in range(0, len(images), _BLOCK)
        ]
        return np.concatenate(out).astype(np.float64)

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Prepared pictures, uint8 (N, size, size, 3), to logits, float32 (N, options), in one call."""
        return self._run(pixels)

    def _config(self) -> dict[str, Any]:
        return {
            "runtime": self.runtime,
            "precision": self.precision,
            "size": self.size,
            "interpolation": self.interpolation,
            "original": self.original,
            "report": self.report,
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in self._graph.items()},
        }

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {name: np.frombuffer(content, dtype=np.uint8) for name, content in self._graph.items()}

    def _files(self) -> dict[str, bytes]:
        return self._graph

    def _card(self, config: dict[str, Any]) -> str:
        return card({**config, "model": {**self.original["model"], "size": self.size}}) + self._how()

    def _how(self) -> str:
        runtime = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}[self.runtime]
        then = f"the softmax of logits / {self.temperature:.6g}"
        if self.multi_label:
            then = "the logistic function of each logit, divided by the label's temperature in `config.json`"
        lines = [
            "",
            "## Export",
            "",
            f"A graph for {runtime}, precision {self.precision}: `{'`, `'.join(FILES[self.runtime])}`. Input "
            f"`pixels`, uint8 (N, {self.size}, {self.size}, 3), RGB, the whole picture stretched to the "
            f"square with Pillow's {self.interpolation} filter; it is normalised inside. Output `logits`, "
            f"float32 (N, {len(self.options)}); probabilities are {then}.",
            "",
            "| measured on export | value |",
            "|---|---|",
        ]
        for key, value in sorted(self.report.items()):
            lines.append(f"| {key} | {f'{value:.4g}' if isinstance(value, float) else value} |")
        return "\n".join(lines) + "\n"

    @classmethod
    def _read(cls, folder: Path) -> dict[str, NDArray[Any]]:
        names = [name for files in FILES.values() for name in files if (folder / name).is_file()]
        if not names:
            raise ModelError(
                "is incomplete: no model.onnx, no model.xml", where=str(folder), remedy="Export it again."
            )
        return {name: np.fromfile(folder / name, dtype=np.uint8) for name in names}

    @classmethod
    def _restore(
        cls, base: Fields, config: Fields, tensors: Tensors, cache: Path | None
    ) -> TrainedSpecialist:
        settings = dict(config)
        files = {}
        for name, mark in settings.pop("sha256").items():
            files[name] = tensors[name].tobytes()
            if hashlib.sha256(files[name]).hexdigest() != mark:
                raise ModelError(f"{name} is damaged: its checksum is another", remedy="Export it again.")
        return cls(**base, **settings, files=files)
