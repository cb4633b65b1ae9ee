"""The one interface behind which every vision-language model stands. It knows nothing of evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gsco.cases import ImageRef


@dataclass(frozen=True, slots=True)
class Example:
    """A known case that is shown before a question is asked: a turn of its own, with its answer.

    Attributes:
        prompt: the user turn about it.
        image: its image.
        answer: what is true of it.
    """

    prompt: str
    image: ImageRef
    answer: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn, where the most probable one is not wanted.

    Attributes:
        temperature: what logits are divided by, above 0; 1 draws by the model's own probabilities.
        seed: of this answer alone: the same request has the same answer.
        top_p: only the most probable tokens that hold this share together, in (0, 1].
    """

    temperature: float
    seed: int
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """ValueError for what is out of range."""
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}, not above 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, not in (0, 1]")


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a generalist.

    Attributes:
        prompt: the user turn, without image placeholders or chat markup (the backend adds its own).
        image: the image asked about; None for a text-only question.
        choices: the strings that may follow, for `Generalist.score_options`.
        history: earlier turns about the same image, (question, answer) each.
        examples: known cases with images of their own, shown before all else; for generalists that
            `takes_examples` names.
        sampling: how `Generalist.generate` draws the answer; None takes the most probable token each time.
    """

    prompt: str
    image: ImageRef | None = None
    choices: tuple[str, ...] = ()
    history: tuple[tuple[str, str], ...] = ()
    examples: tuple[Example, ...] = ()
    sampling: Sampling | None = None

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """All images, in the order in which they are shown."""
        return (*(e.image for e in self.examples), *(() if self.image is None else (self.image,)))

    def turns(self) -> list[Turn]:
        """The conversation: the examples, what was said before about the image, the question."""
        shown = [Turn(e.prompt, e.image, e.answer) for e in self.examples]
        asked: list[tuple[str, str | None]] = [*self.history, (self.prompt, None)]
        about = [Turn(text, None if i else self.image, answer) for i, (text, answer) in enumerate(asked)]
        return [*shown, *about]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a user says, perhaps with an image before it, and the answer; None where it is asked for."""

    text: str
    image: ImageRef | None
    answer: str | None


@dataclass(frozen=True, slots=True)
class OptionScores:
    """How probable each choice of a `Request` is.

    Attributes:
        log_probabilities: natural log of the probability of each choice among the choices given,
            shape (n_choices,); ``exp`` sums to 1.
    """

    log_probabilities: tuple[float, ...]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Probability of each choice, shape (n_choices,), summing to 1."""
        p: NDArray[np.float64] = np.exp(np.asarray(self.log_probabilities, dtype=np.float64))
        return np.asarray(p / p.sum())

    @property
    def choice(self) -> int:
        """Position of the most probable choice."""
        return int(np.argmax(self.log_probabilities))


@runtime_checkable
class Generalist(Protocol):
    """A vision-language model that answers batches of requests.

    Implementations may use that neighbouring requests share an image (callers keep them together)
    and must return the same answers, up to floating point, however requests are batched. Where some
    requests of a batch can fail and others not, a `RequestsFailedError` holds the answers there are.

    Attributes:
        name: what a log calls it.
        fingerprint: changes whenever the answers may change (weights, revision, settings).

    An implementation may have four more: ``can_score`` (False: there is only `generate`; see `can_score`),
    ``takes_examples`` (True: it reads `Request.examples`; others raise ValueError), ``remark``, a sentence
    about how it answers, for a log and a page, and ``caution``, one for whoever reads what it writes freely.
    """

    name: str
    fingerprint: str

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 64) -> list[str]:
        """Continuation of each request, without the prompt: greedy, or drawn as its `sampling` says."""
        ...

    def score_options(self, requests: Sequence[Request]) -> list[OptionScores]:
        """Probability of each of the request's `choices`; ValueError for a request without choices."""
        ...


def can_score(generalist: Generalist) -> bool:
    """Whether it knows the probabilities of options; some servers only tell what a model writes."""
    return bool(getattr(generalist, "can_score", True))


def takes_examples(generalist: Generalist) -> bool:
    """Whether it can be shown several images, known cases before the one that is asked about."""
    return bool(getattr(generalist, "takes_examples", False))


def remark_of(generalist: Generalist) -> str:
    """What it says of the way it answers; "" where there is nothing to say."""
    return str(getattr(generalist, "remark", ""))


def caution_of(generalist: Generalist) -> str:
    """What to know before reading what it writes freely; "" where there is nothing."""
    return str(getattr(generalist, "caution", ""))
