"""What an OpenAI-compatible server is and offers, found out by a few short requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gsco.errors import ModelError
from gsco.generalist.openai_address import OWN_KEY, PREFIX, Address
from gsco.generalist.openai_http import Json, RefusedError, UnansweredError, Wire
from gsco.generalist.openai_messages import body, checked, content_of, data_uri, spoken, text_of
from gsco.generalist.openai_scoring import GUIDES, guided_text, read_steps

CHOICE_TOKENS = 64
"""How long an option may be."""

_UNLIKELY = "zq-7 vor"
"""An answer that no model writes of its own accord: who writes it was held to it."""
_HONEST = -2.0
"""Log-probability that an unlikely answer must stay below to show that it was read before it was forced."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a server was found to offer.

    Attributes:
        top: how many alternatives of a token it tells; 0 for none.
        guide: the name in `GUIDES` by which answers are held to choices; None where it has no such way.
        raw: whether the log-probabilities of a guided answer are the model's own.
        sees: whether an image changes what the model reads; None where the server does not say.
        blind: why it does not see, in the server's words or ours; "" where it may.
    """

    top: int = 0
    guide: str | None = None
    raw: bool = False
    sees: bool | None = None
    blind: str = ""

    @property
    def rule(self) -> str:
        """How options are scored, in a word; part of the fingerprint."""
        if self.raw:
            return f"forced:{self.guide}"
        return f"first:{self.top}" if self.top else f"none:{self.guide or 'free'}"

    @property
    def words(self) -> str:
        """How options are scored, for a log and a page."""
        first = f"by its {self.top} likeliest first tokens"
        if self.raw:
            return f"Options are scored by forced decoding ({self.guide}), letters {first}."
        if self.top:
            return f"Options are scored {first}: answers by letter (--template letters) are told apart best."
        held = f" Answers are held to the options ({self.guide})." if self.guide else ""
        return f"The server gives no probabilities, so answers are free text, read by the parser.{held}"


def probe(wire: Wire, model: str) -> Abilities:
    """Find out by a few short requests what the server offers.

    Raises:
        ModelError: it does not answer, or knows no such model.
    """

    def ask(read: Callable[[Json], T], content: Any, **extra: Any) -> T | RefusedError | UnansweredError:
        messages = [{"role": "user", "content": content}]
        answer = wire.complete([body(model, messages, **extra)], read)[0]
        if isinstance(answer, UnansweredError) and answer.is_passing:
            raise gone(wire.address, answer.reason)  # not taken for a lack of the ability asked for
        return answer

    def must(answer: T | RefusedError | UnansweredError) -> T:
        if isinstance(answer, RefusedError):
            raise refused(wire, model, answer)
        if isinstance(answer, UnansweredError):
            raise gone(wire.address, answer.reason)
        return answer

    hello = "Answer with one letter."
    plain = must(ask(spoken, hello, max_tokens=1))
    wire = replace(wire, patience=replace(wire.patience, attempts=min(3, wire.patience.attempts)))
    top = 0
    for wanted in (20, 5):
        steps = ask(read_steps, hello, max_tokens=1, logprobs=True, top_logprobs=wanted)
        if isinstance(steps, tuple) and steps and steps[0].top:
            top = wanted
        if not isinstance(steps, RefusedError):
            break
    guide, raw = None, False
    for name, fields in GUIDES.items():
        found = ask(checked, hello, max_tokens=CHOICE_TOKENS, **fields([_UNLIKELY]))
        if isinstance(found, dict) and _says(name, found, _UNLIKELY):
            guide = name
            break
    if guide is not None and top:
        fields = GUIDES[guide]
        steps = ask(
            read_steps, hello, max_tokens=CHOICE_TOKENS, logprobs=True, top_logprobs=1, **fields([_UNLIKELY])
        )
        if isinstance(steps, tuple):
            whole = "".join(step.token for step in steps).strip() == _UNLIKELY
            raw = whole and sum(step.logprob for step in steps) < _HONEST
    from PIL import Image as Pillow

    grey = data_uri(Pillow.new("RGB", (64, 64), (128, 128, 128)))
    seen = ask(spoken, content_of(hello, grey), max_tokens=1)
    sees, blind = None, ""
    if isinstance(seen, (RefusedError, UnansweredError)):  # the same words without an image were answered
        sees, blind = False, seen.reason
    else:
        without, with_it = (
            int((found.get("usage") or {}).get("prompt_tokens") or 0) for found in (plain, seen)
        )
        sees = with_it > without if without and with_it else None
        blind = "an image does not change what it reads" if sees is False else ""
    return Abilities(top, guide, raw, sees, blind)


def model_at(wire: Wire) -> str:
    """The model's name, checked against the server's list where it keeps one."""
    address = wire.address
    try:
        listed = wire.models()
    except RefusedError as error:
        raise refused(wire, address.model or "", error) from None
    except UnansweredError as error:
        raise gone(address, error.reason) from None
    if address.model is None:
        if listed is not None and len(listed) == 1:
            return listed[0]
        known = f" It lists: {_some(listed)}." if listed else ""
        raise ModelError(
            "no model named", where=address.url, remedy=f"Write {PREFIX}{address.url}#MODEL.{known}"
        )
    if listed and address.model not in listed:
        raise ModelError(
            f"lists no model {address.model!r}", where=address.url, remedy=f"It lists: {_some(listed)}."
        )
    return address.model


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def gone(address: Address, reason: str) -> ModelError:
    """The error of a server that does not answer."""
    return ModelError(
        f"gives no answer ({reason})",
        where=address.url,
        remedy="Start the server, or mend the address.",
    )


def refused(wire: Wire, model: str, error: RefusedError) -> ModelError:
    """The error of a server that will not answer, with what to do about it."""
    remedy = "See the server's log."
    if error.status in (401, 403):
        remedy = f"Set {OWN_KEY} in the environment{' to another' if wire.has_key else ''}."
    elif error.status == 404:
        remedy = f"Check the address (it mostly ends in /v1) and the model's name, {model}."
    elif 300 <= error.status < 400:
        remedy = "Name the address that it redirects to, if you trust it."
    elif error.status in (400, 422):
        remedy = f"Check the model's name, {model}."
    return ModelError(f"refuses ({error.reason})", where=wire.address.url, remedy=remedy)


def _says(guide: str, found: Json, choice: str) -> bool:
    try:
        return guided_text(guide, text_of(found)) == choice
    except (ValueError, KeyError, TypeError):
        return False
