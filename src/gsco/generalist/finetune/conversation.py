"""One record of an annotation file as messages of a chat, or the reason why it cannot be one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsco.cases import ImageRef
from gsco.cases.conversations import IMAGE_TAG, image_ref, problem_of

MAX_CHARACTERS = 100_000
"""Records with more text than this are skipped before anything is tokenised."""

Message = dict[str, Any]
"""``{"role": ..., "content": [{"type": "image"} or {"type": "text", "text": ...}, ...]}``"""


class SkippedRecord(Exception):  # noqa: N818  it is no error: the record is counted, and training goes on
    """A record that is not trained on; the text is the reason, without particulars of the record."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A record that can be trained on.

    Attributes:
        messages: the chat, with places for images but without them.
        images: in the order of their places.
    """

    messages: tuple[Message, ...]
    images: tuple[ImageRef, ...]


def read_conversation(
    record: Any, *, root: Path, markup: Sequence[str] = (), most: int = MAX_CHARACTERS
) -> Conversation:
    """Check a record and put its images where its tags stand; before the first question without tags.

    Args:
        record: the line, parsed. A first turn ``from: system`` is allowed, as InternVL does.
        root: the folder that its image paths are relative to.
        markup: strings that the chat template and the tokenizer use as signs; no turn may hold one.
        most: characters of text allowed.

    Raises:
        SkippedRecord: with the reason.
    """
    system, rest = _system(record)
    problem = problem_of(rest)
    if problem:
        raise SkippedRecord(problem)
    turns = rest["conversations"]
    if sum(len(turn["value"]) for turn in turns) + len(system or "") > most:
        raise SkippedRecord(f"more than {most:,} characters")
    given = rest.get("image")
    paths = list(given) if isinstance(given, list) else [given] if given else []
    tagged = any(IMAGE_TAG in turn["value"] for turn in turns[::2])
    messages: list[Message] = []
    if system:
        messages.append({"role": "system", "content": [{"type": "text", "text": system}]})
    for place, turn in enumerate(turns):
        text = turn["value"]
        if place % 2:
            if not text.strip():
                raise SkippedRecord("an answer is empty")
            content = [{"type": "text", "text": text.strip()}]
        else:
            content = [] if tagged or place else [{"type": "image"} for _ in paths]
            content += _parts(text)
        _refuse_markup(content, markup)
        messages.append({"role": "assistant" if place % 2 else "user", "content": content})
    images = tuple(image_ref(path, root) for path in paths)
    if any(not ref.path.is_file() for ref in images):
        raise SkippedRecord("an image is missing")
    return Conversation(tuple(messages), images)


def _system(record: Any) -> tuple[str | None, Any]:
    """The text of a system turn at the beginning, and the record without it."""
    turns = record.get("conversations") if isinstance(record, Mapping) else None
    if not isinstance(turns, list) or not turns:
        return None, record
    first = turns[0]
    if not isinstance(first, Mapping) or first.get("from") != "system":
        return None, record
    text = first.get("value")
    return text if isinstance(text, str) else None, {**record, "conversations": turns[1:]}


def _parts(text: str) -> list[dict[str, str]]:
    """Text and places for images; the template writes what stands between an image and its text."""
    out: list[dict[str, str]] = []
    for number, part in enumerate(text.split(IMAGE_TAG)):
        if number:
            out.append({"type": "image"})
            part = part.removeprefix("\n")
        if part:
            out.append({"type": "text", "text": part})
    return out


def _refuse_markup(content: Sequence[Mapping[str, str]], markup: Sequence[str]) -> None:
    for part in content:
        for sign in markup:
            if sign in part.get("text", ""):
                raise SkippedRecord(f"holds the sign {sign!r} of the chat template")
