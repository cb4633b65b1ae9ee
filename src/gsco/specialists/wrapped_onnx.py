"""A classifier from an ONNX file as a specialist."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from gsco.cases import ImageRef, load_image
from gsco.errors import ModelError
from gsco.specialists.onnx_session import OnnxSession
from gsco.specialists.trained import Fields, Tensors, TrainedSpecialist
from gsco.specialists.wrapped import log_probabilities

Output = Literal["logits", "probabilities"]
_MOST_BYTES = 2**31
_FIELDS = ("size", "mean", "std", "channels", "output", "columns")


class OnnxSpecialist(TrainedSpecialist):
    """A classifier that stands in an ONNX file.

    Pictures are stretched to the square, scaled to [0, 1], and normalised by `mean` and `std`; each goes
    through the graph alone (or in the batch that the graph insists on), so no number depends on its
    neighbours. The file is kept inside ``model.safetensors``, so that a saved folder is whole.

    Args:
        file: the ``.onnx`` file.
        options: option keys, in the order of `columns`.
        name: of the specialist; the file's when None.
        size: side of the input in pixels; the graph's when None.
        mean / std: by which [0, 1] pixels are normalised: one number, or one for each channel.
        channels: 1 (grey) or 3 (RGB); the graph's when None.
        output: what the graph gives: ``logits`` or ``probabilities``.
        columns: which column of the output belongs to each option; the first ones when None.

    Raises:
        ModelError: the file cannot be read or opened, or does not fit the options.

    Example:
        >>> specialist = OnnxSpecialist.of("chest.onnx", ("normal", "pneumonia"))  # doctest: +SKIP
        >>> specialist.calibrate(training_job(dataset, cache=cache))  # doctest: +SKIP
        >>> specialist.save_pretrained("specialists/chest")  # doctest: +SKIP
    """

    kind: ClassVar[str] = "onnx"

    def __init__(
        self,
        content: bytes,
        *,
        name: str,
        options: tuple[str, ...],
        recipe: str = "onnx",
        multi_label: bool = False,
        size: int | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        channels: int | None = None,
        output: Output = "logits",
        columns: Sequence[int] | None = None,
    ) -> None:
        super().__init__(name=name, recipe=recipe, options=options, multi_label=multi_label)
        where = f"ONNX file of {name}"
        self._content = content
        self._session = OnnxSession(content, where=where)
        side, depth = size or self._session.side, channels or self._session.channels or 3
        if side is None:
            raise ModelError("does not say how large its input is", where=where, remedy="Give size=.")
        for given, own, what in (
            (side, self._session.side, "pixels"),
            (depth, self._session.channels, "channels"),
        ):
            if own is not None and given != own:
                raise ModelError(f"takes {own} {what}, not {given}", where=where)
        self.size, self.channels, self.output = side, depth, output
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.columns = tuple(range(len(options)) if columns is None else columns)
        if len(self.columns) != len(options):
            raise ModelError(f"{len(self.columns)} columns are named for {len(options)} options", where=where)
        known = self._session.outputs
        if known is not None and ((columns is None and known != len(options)) or max(self.columns) >= known):
            raise ModelError(
                f"gives {known} numbers for {len(options)} options",
                where=where,
                remedy="Name the column of each option with columns=.",
            )
        self._check_output(where)

    @classmethod
    def of(cls, file: Path | str, options: Sequence[str], **arguments: Any) -> OnnxSpecialist:
        """Wrap a file; for the arguments see the class."""
        path = Path(file)
        try:
            if path.stat().st_size >= _MOST_BYTES:
                raise ModelError("is larger than 2 GB", where=str(path), remedy="Wrap a smaller model.")
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot be read ({error.strerror})", where=str(path)) from error
        arguments.setdefault("name", path.stem)
        return cls(content, options=tuple(options), **arguments)

    def prepare(self, image: ImageRef) -> NDArray[np.float32]:
        """One image as the graph takes it, float32 (channels, size, size)."""
        from PIL import Image

        picture = load_image(image).convert("L" if self.channels == 1 else "RGB")
        if picture.size != (self.size, self.size):
            picture = picture.resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = np.asarray(picture, dtype=np.float32).reshape(self.size, self.size, self.channels) / 255
        normal = (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1), dtype=np.float32)

    def logits(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        """Uncalibrated logits, (N, options)."""
        rows = [self._session.run(self.prepare(image)[None])[0] for image in images]
        chosen = np.stack(rows)[:, self.columns]
        return log_probabilities(chosen, self.name) if self.output == "probabilities" else chosen

    def _check_output(self, where: str) -> None:
        """One even picture, so that a graph of another kind is found here and not at the first image."""
        blank = np.zeros((1, self.channels, self.size, self.size), dtype=np.float32)
        width = self._session.run(blank).shape[1]
        if max(self.columns) >= width:
            raise ModelError(f"gives {width} numbers for {len(self.options)} options", where=where)

    def _config(self) -> dict[str, Any]:
        values = {field: getattr(self, field) for field in _FIELDS}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {"onnx": np.frombuffer(self._content, dtype=np.uint8)}

    @classmethod
    def _restore(
        cls, base: Fields, config: Fields, tensors: Tensors, cache: Path | None
    ) -> TrainedSpecialist:
        return cls(tensors["onnx"].tobytes(), **base, **config)
