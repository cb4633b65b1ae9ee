"""One exception tree; every message says what is wrong, where, and what to do next.

::

    GscoError
      + UserError            a mistake in what was given; the command line prints it in one line, exit code 2
        - DatasetError       a folder, npz or JSONL that is not a dataset as the docs describe it
          . NoLabelsError    there is nothing that says which image has which label
          . LabelError       a label outside the options
          . SplitLeakError   a patient or group stands in two splits
        - ImageError         one image that cannot be read (broken, not an image, too large, no pixels)
        - LeakageError       a case to be answered is (nearly) a case of the index
        - ModelError         a model folder that is missing, incomplete or of another architecture
          . RequestsFailedError  some requests of a batch have no answer; it holds those that have one
        - RunError           a run folder that is missing, of another config, or still being written
        - StorageError       the disk is full or may not be written to
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class GscoError(Exception):
    """Root of all errors raised on purpose by this package."""


class UserError(GscoError):
    """A mistake in what was given.

    Args:
        what: what is wrong, with the offending value.
        where: the file, line or option it stands in.
        remedy: what to do next, as an imperative.
    """

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        text = f"{where}: {what}" if where else what
        if remedy:
            text = f"{text.rstrip('.')}. {remedy}"
        super().__init__(" ".join(text.split()))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.remedy))


def _rebuild(cls: type[UserError], what: str, where: str | None, remedy: str | None) -> UserError:
    return cls(what, where=where, remedy=remedy)


class DatasetError(UserError):
    """A folder or file that is not a dataset as the docs describe it."""


class NoLabelsError(DatasetError):
    """Nothing says which image has which label."""


class LabelError(DatasetError):
    """A label that is not among the options."""


class SplitLeakError(DatasetError):
    """A patient or group stands in two splits."""


class ImageError(UserError):
    """One image that cannot be read."""


class LeakageError(UserError):
    """A case to be answered is, or nearly is, a case of the index."""


class ModelError(UserError):
    """A model folder that is missing, incomplete or of another architecture."""


class RequestsFailedError(ModelError):
    """Some requests of a batch have no answer, though they were tried again.

    Args:
        what, where, remedy: as of any `UserError`, for a caller that needs them all.
        results: of each request its answer, or None.
        reasons: of each request None, or why there is no answer.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        remedy: str | None = None,
        results: Sequence[Any] = (),
        reasons: Sequence[str | None] = (),
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.results = list(results)
        self.reasons = list(reasons)


class RunError(UserError):
    """A run folder that is missing, was made by another config, or is in use."""


class StorageError(UserError):
    """The disk is full or may not be written to."""


def counted(n: int, noun: str) -> str:
    """A number of things in words: ``1 image``, ``3 images``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
