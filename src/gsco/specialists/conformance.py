"""The conformance test: whether a specialist keeps what the floors above rely on.

The author of a plugin or a wrapper runs it in a test of their own:

    from gsco.specialists.conformance import assert_conformant

    def test_my_specialist(tmp_path):
        assert_conformant(my_specialist, images, folder=tmp_path)

`check_specialist` gives the findings as a list instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import ImageRef
from gsco.errors import GscoError, counted
from gsco.specialists.base import Specialist
from gsco.specialists.calibration import fit_temperature, judge, log_loss, softmax

CLOSE = 1e-6
"""Largest difference of a probability that the company of other images may make."""
UNCALIBRATED = 0.1
"""Nats per case by which a better temperature may lower the log loss where a specialist is calibrated."""
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".joblib"}
_NEEDED = ("config.json", "README.md")


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise that is not kept.

    Attributes:
        check: which one, a word.
        message: what was found, a sentence.
    """

    check: str
    message: str

    def __str__(self) -> str:
        return f"{self.check}: {self.message}"


class NotConformantError(AssertionError):
    """A specialist that does not keep the contract; the message has a line for each finding."""


def assert_conformant(specialist: Specialist, images: Sequence[ImageRef], **arguments: Any) -> None:
    """Raise `NotConformantError` where `check_specialist` finds anything; for the arguments see there."""
    found = check_specialist(specialist, images, **arguments)
    if found:
        raise NotConformantError("\n".join(map(str, found)))


def check_specialist(
    specialist: Specialist,
    images: Sequence[ImageRef],
    *,
    targets: Sequence[int] | None = None,
    folder: Path | None = None,
    load: Callable[[Path], Specialist] | None = None,
) -> list[Finding]:
    """Everything about a specialist that is not as `gsco.specialists.Specialist` says.

    Args:
        specialist: the one to check; nothing of it is changed.
        images: at least three different ones.
        targets: option positions of `images`, where these are its labelled validation cases: then what it
            states about itself is checked, too.
        folder: an empty folder to save it in; saving is not checked when None.
        load: reads a saved folder; `gsco.load_specialist` when None.

    Returns:
        The findings, most basic first; empty where it conforms. Checks that need an answer are left out
        where there is none.

    Raises:
        ValueError: fewer than three images, or not one target for each.
    """
    if len(set(images)) < 3:
        raise ValueError("at least three different images are needed")
    if targets is not None and len(targets) != len(images):
        raise ValueError(f"{len(targets)} targets for {len(images)} images")
    found = [*_description(specialist)]
    if any(finding.check == "protocol" for finding in found):
        return found
    given = list(images)
    answers, fault = _ask(specialist, given)
    if answers is None:
        return [*found, Finding("predict", fault)]
    if given != list(images):
        found.append(Finding("predict", "changes the list of images that it is given"))
    values = [*_values(specialist, answers, len(images))]
    found += values
    if values:
        return found
    found += [*_independence(specialist, list(images), answers), *_claims(specialist, answers, targets)]
    if folder is not None:
        found += _saving(specialist, list(images), answers, Path(folder), load)
    return found


def _description(specialist: Any) -> Iterator[Finding]:
    lacking = [
        name
        for name in ("name", "options", "reliability", "predict", "save_pretrained")
        if not hasattr(specialist, name)
    ]
    if lacking:
        yield Finding("protocol", f"has no {', '.join(lacking)}")
        return
    name, options, reliability = specialist.name, specialist.options, specialist.reliability
    if not isinstance(name, str) or not _SAFE.fullmatch(name):
        yield Finding("name", f"{name!r} is not safe as a file name (letters, digits, '.', '_' and '-')")
    if not isinstance(options, tuple) or not all(isinstance(key, str) for key in options):
        yield Finding("options", f"{options!r} is no tuple of option keys")
    elif len(options) < 2 or len(set(options)) < len(options):
        yield Finding("options", f"{options!r} are not at least two different options")
    if reliability is not None and not (
        isinstance(reliability, int | float) and 0.0 <= float(reliability) <= 1.0
    ):
        yield Finding("reliability", f"{reliability!r} is neither None nor in [0, 1]")


def _ask(specialist: Specialist, images: list[ImageRef]) -> tuple[NDArray[np.float64] | None, str]:
    try:
        return np.asarray(specialist.predict(images)), ""
    except Exception as error:  # whatever another package's code does
        return None, f"fails on {counted(len(images), 'image')}: {type(error).__name__}: {error}"


def _values(specialist: Specialist, answers: NDArray[Any], n: int) -> Iterator[Finding]:
    expected = (n, len(specialist.options))
    if answers.shape != expected:
        yield Finding("shape", f"gives {answers.shape}, not {expected} (images, options)")
    elif answers.dtype != np.float64:
        yield Finding("type", f"gives {answers.dtype}, not float64")
    elif not np.isfinite(answers).all():
        yield Finding("finite", "gives numbers that are not finite")
    elif answers.min() < 0 or answers.max() > 1:
        yield Finding("range", f"gives probabilities from {answers.min():.3g} to {answers.max():.3g}")
    elif not getattr(specialist, "multi_label", False) and np.abs(answers.sum(axis=1) - 1).max() > CLOSE:
        worst = answers.sum(axis=1)[np.abs(answers.sum(axis=1) - 1).argmax()]
        yield Finding("sum", f"gives a row that sums to {worst:.6g}, not 1")


def _independence(
    specialist: Specialist, images: list[ImageRef], answers: NDArray[np.float64]
) -> Iterator[Finding]:
    """The same images asked about again, in other company, alone, and none at all."""
    asked: list[tuple[str, str, list[int], float]] = [
        ("determinism", "gives other numbers when it is asked again", list(range(len(images))), 0.0),
        ("order", "depends on the order of the images", list(range(len(images)))[::-1], CLOSE),
        ("batch", "depends on which images are asked about together", list(range(len(images)))[1:], CLOSE),
        ("single", "gives other numbers for an image alone", [len(images) - 1], CLOSE),
        ("repeated", "gives other numbers where an image stands twice", [0, 0, *range(len(images))], CLOSE),
    ]
    for check, message, rows, tolerance in asked:
        again, fault = _ask(specialist, [images[row] for row in rows])
        if again is None:
            yield Finding(check, fault)
        elif again.shape != answers[rows].shape:
            yield Finding(check, f"gives {again.shape} for {counted(len(rows), 'image')}")
        else:
            difference = float(np.abs(again - answers[rows]).max())
            if not difference <= tolerance:
                yield Finding(check, f"{message} (by up to {difference:.2g})")
    none, fault = _ask(specialist, [])
    if none is None:
        yield Finding("empty", fault)
    elif none.shape != (0, len(specialist.options)):
        yield Finding("empty", f"gives {none.shape} for no image, not {(0, len(specialist.options))}")


def _claims(
    specialist: Specialist, answers: NDArray[np.float64], targets: Sequence[int] | None
) -> Iterator[Finding]:
    """What it states about itself, on its own validation cases."""
    if targets is None or specialist.reliability is None or getattr(specialist, "multi_label", False):
        return
    right = judge(answers, targets)["balanced_accuracy"]
    if abs(right - specialist.reliability) > 1e-6:
        stated = f"{specialist.reliability:.4g}"
        yield Finding("reliability", f"states {stated}, while its balanced accuracy is {right:.4g}")
    logits = np.log(np.maximum(answers, 1e-12))
    temperature = fit_temperature(logits, targets)
    before, after = log_loss(answers, targets), log_loss(softmax(logits, temperature), targets)
    if before - after > UNCALIBRATED:
        yield Finding(
            "calibration",
            f"states a reliability, but is not calibrated: a temperature of {temperature:.2g} lowers its "
            f"log loss from {before:.3f} to {after:.3f}",
        )


def _saving(
    specialist: Specialist,
    images: list[ImageRef],
    answers: NDArray[np.float64],
    folder: Path,
    load: Callable[[Path], Specialist] | None,
) -> Iterator[Finding]:
    """A folder that holds all, and nothing beside it, and answers alike when it is read."""
    from gsco.specialists.loading import load_specialist

    inner = folder / "saved"
    around = {path for place in (folder, Path.cwd()) for path in place.iterdir()}
    try:
        specialist.save_pretrained(inner)
    except GscoError as error:
        yield Finding("save", f"cannot be saved: {error}")
        return
    except Exception as error:
        yield Finding("save", f"fails: {type(error).__name__}: {error}")
        return
    strays = {path for place in (folder, Path.cwd()) for path in place.iterdir()} - around - {inner}
    if strays:
        yield Finding("stray", f"writes outside its folder: {', '.join(sorted(map(str, strays)))}")
    lacking = [name for name in _NEEDED if not (inner / name).is_file()]
    if lacking:
        yield Finding("files", f"a saved folder has no {', '.join(lacking)}")
    pickles = sorted(path.name for path in inner.rglob("*") if path.suffix in _PICKLES)
    if pickles:
        yield Finding("files", f"a saved folder holds what may be a pickle: {', '.join(pickles)}")
    try:
        loaded = (load or load_specialist)(inner)
    except Exception as error:
        yield Finding("load", f"a saved folder cannot be read: {type(error).__name__}: {error}")
        return
    for field in ("name", "options", "reliability"):
        if getattr(loaded, field) != getattr(specialist, field):
            was, now = getattr(specialist, field), getattr(loaded, field)
            yield Finding("load", f"{field} was {was!r} and is {now!r} when it is read again")
    again, fault = _ask(loaded, images)
    if again is None:
        yield Finding("load", f"when read again, {fault}")
    elif again.shape != answers.shape or not np.abs(again - answers).max() <= CLOSE:
        yield Finding("load", "gives other numbers when it is read again")
