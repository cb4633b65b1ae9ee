"""A model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, transformers serve, a hosted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from gsco.cases import ImageRef, load_image
from gsco.errors import ModelError, RequestsFailedError
from gsco.generalist.base import OptionScores, Request
from gsco.generalist.openai_address import PREFIX, parse_address
from gsco.generalist.openai_http import Json, Patience, RefusedError, UnansweredError, Wire
from gsco.generalist.openai_messages import (
    LONGEST_SIDE,
    SEED,
    body,
    checked,
    data_uri,
    steps_of,
    text_of,
    user_turn,
)
from gsco.generalist.openai_probe import CHOICE_TOKENS, Abilities, gone, model_at, probe, refused
from gsco.generalist.openai_scoring import GUIDES, Step, from_first, from_forced, guided_text

T = TypeVar("T")


class OpenAIGeneralist:
    """A model on a server that speaks OpenAI's chat completions.

    Images leave this machine, to the server that was named and no other. Requests are greedy (temperature 0,
    one seed) where they do not say otherwise, and independent of each other.

    Args:
        wire: the way to the server.
        model: its name there.
        abilities: what the server offers; see `probe`.
    """

    takes_examples = True

    def __init__(self, wire: Wire, model: str, abilities: Abilities) -> None:
        self.abilities = abilities
        self.name = f"{PREFIX}{model}"
        self.fingerprint = (
            f"{PREFIX}{wire.address.url}#{model}:{abilities.rule}:greedy:{SEED}:png{LONGEST_SIDE}"
        )
        self.remark = abilities.words
        self._wire = wire
        self._model = model

    @classmethod
    def from_spec(cls, spec: str, *, patience: Patience | None = None) -> OpenAIGeneralist:
        """Find the server that ``openai:http://host:port/v1#model`` names, and what it offers.

        Raises:
            ModelError: it is not there, wants a key, has no such model, or is none; in one line.
        """
        address = parse_address(spec)
        wire = Wire(address, patience or Patience.from_environment())
        model = model_at(wire)
        return cls(wire, model, probe(wire, model))

    @property
    def can_score(self) -> bool:
        """Whether options can be scored; `Generalist.score_options` raises where not."""
        return bool(self.abilities.raw or self.abilities.top)

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 64) -> list[str]:
        """See `Generalist.generate`.

        Where the server gives no probabilities but holds answers to choices, those of a request with choices
        are held to them.

        Raises:
            RequestsFailedError: some have no answer after all attempts.
            ModelError: the server is gone, or takes no images.
        """
        guide = None if self.can_score else self.abilities.guide

        def read(answer: tuple[bool, Json]) -> str:
            guided, found = answer
            text = text_of(found)
            return guided_text(guide, text) if guided and guide else text.strip()

        images = self._images(requests)
        payloads = []
        for request in requests:
            extra = GUIDES[guide](request.choices) if guide and request.choices else {}
            if request.sampling is not None:
                extra |= asdict(request.sampling)
            payloads.append(self._payload(request, images, max_tokens=max_new_tokens, **extra))
        held = [bool(guide and request.choices) for request in requests]
        found = self._wire.complete(payloads, checked)
        texts: list[str | RefusedError | UnansweredError] = []
        for guided, answer in zip(held, found, strict=True):
            if isinstance(answer, (RefusedError, UnansweredError)):
                texts.append(answer)
                continue
            try:
                texts.append(read((guided, answer)))
            except (ValueError, KeyError, TypeError):
                texts.append(UnansweredError("the guided answer is none of the choices"))
        return self._settled(texts)

    def score_options(self, requests: Sequence[Request]) -> list[OptionScores]:
        """See `Generalist.score_options`; how, stands in `gsco.generalist.openai_scoring`.

        Raises:
            RequestsFailedError: some have no scores after all attempts.
            ModelError: the server gives no probabilities, is gone, or takes no images.
        """
        if not self.can_score:
            raise ModelError(
                "gives no probabilities of its tokens", where=self.name, remedy="Use --mode generate."
            )
        images = self._images(requests)
        asked: list[tuple[int, int | None]] = []
        payloads = []
        for i, request in enumerate(requests):
            if not request.choices:
                raise ValueError("a request without choices cannot be scored")
            if self._by_first_token(request):
                asked.append((i, None))
                payloads.append(
                    self._payload(
                        request, images, max_tokens=1, logprobs=True, top_logprobs=self.abilities.top
                    )
                )
                continue
            for j, choice in enumerate(request.choices):
                asked.append((i, j))
                payloads.append(self._forced(request, images, choice))
        found = self._wire.complete(payloads, steps_of)
        parts: list[list[tuple[Step, ...] | RefusedError | UnansweredError]] = [[] for _ in requests]
        for (i, _), steps in zip(asked, found, strict=True):
            parts[i].append(steps)
        return self._settled([self._scores(r, part) for r, part in zip(requests, parts, strict=True)])

    def _by_first_token(self, request: Request) -> bool:
        """By the choices alone, so that alike requests are always scored alike."""
        letters = all(len(choice) == 1 for choice in request.choices)
        return bool(self.abilities.top) and (letters or not self.abilities.raw)

    def _scores(
        self, request: Request, parts: Sequence[tuple[Step, ...] | RefusedError | UnansweredError]
    ) -> OptionScores | RefusedError | UnansweredError:
        paths: list[tuple[Step, ...]] = []
        for part in parts:
            if isinstance(part, (RefusedError, UnansweredError)):
                return part
            paths.append(part)
        try:
            if self._by_first_token(request):
                return OptionScores(from_first(request.choices, paths[0][0]))
            for choice, path in zip(request.choices, paths, strict=True):
                if "".join(step.token for step in path).strip() != choice.strip():
                    raise ValueError(f"was not held to the option {choice!r}")
            return OptionScores(from_forced(paths))
        except ValueError as error:
            return UnansweredError(str(error))

    def _forced(self, request: Request, images: Mapping[ImageRef, str], choice: str) -> Json:
        guide = self.abilities.guide
        assert guide is not None  # `raw` is only found with one
        return self._payload(
            request,
            images,
            max_tokens=CHOICE_TOKENS,
            logprobs=True,
            top_logprobs=1,
            **GUIDES[guide]([choice]),
        )

    def _images(self, requests: Sequence[Request]) -> dict[ImageRef, str]:
        refs = dict.fromkeys(ref for request in requests for ref in request.images)
        if refs and self.abilities.sees is False:
            raise ModelError(
                f"takes no images ({self.abilities.blind})",
                where=self.name,
                remedy="Serve a vision-language model.",
            )
        return {ref: data_uri(load_image(ref)) for ref in refs}

    def _payload(self, request: Request, images: Mapping[ImageRef, str], **extra: Any) -> Json:
        messages = []
        for turn in request.turns():
            messages.append(user_turn(turn.text, None if turn.image is None else images[turn.image]))
            if turn.answer is not None:
                messages.append({"role": "assistant", "content": turn.answer})
        return body(self._model, messages, **extra)

    def _settled(self, results: Sequence[T | RefusedError | UnansweredError]) -> list[T]:
        """The results; an exception that holds them where some are missing."""
        bad = [r for r in results if isinstance(r, (RefusedError, UnansweredError))]
        if not bad:
            return [r for r in results if not isinstance(r, (RefusedError, UnansweredError))]
        for error in bad:
            if isinstance(error, RefusedError) and error.status in (401, 403, 404):
                raise refused(self._wire, self._model, error)
        silent = len(bad) == len(results) and all(isinstance(e, UnansweredError) and e.silent for e in bad)
        if silent and not self._wire.is_there():
            raise gone(self._wire.address, bad[0].reason)
        raise RequestsFailedError(
            f"{len(bad)} of {len(results)} requests have no answer ({bad[0].reason})",
            where=self._wire.address.url,
            remedy="See the server's log, and ask again.",
            results=[None if isinstance(r, (RefusedError, UnansweredError)) else r for r in results],
            reasons=[r.reason if isinstance(r, (RefusedError, UnansweredError)) else None for r in results],
        )
