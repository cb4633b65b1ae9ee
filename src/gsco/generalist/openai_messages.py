"""What is sent to and read from ``/chat/completions``: images, turns, settings, answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gsco.generalist.openai_http import Json
from gsco.generalist.openai_scoring import Step, read_steps

if TYPE_CHECKING:
    from PIL import Image

LONGEST_SIDE = 1536
"""Pixels of an image's longer side above which it is made smaller before it is sent."""

SEED = 0


def data_uri(image: Image.Image) -> str:
    """An image as a ``data:`` URI of a PNG: lossless, but smaller where it is longer than `LONGEST_SIDE`."""
    from PIL import Image as Pillow

    factor = LONGEST_SIDE / max(image.size)
    if factor < 1:
        width, height = (max(1, round(side * factor)) for side in image.size)
        image = image.resize((width, height), Pillow.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def body(model: str, messages: Sequence[Json], **extra: Any) -> Json:
    """A request: greedy, whole (no stream), with one seed."""
    return {
        "model": model,
        "messages": list(messages),
        "temperature": 0,
        "seed": SEED,
        "stream": False,
        **extra,
    }


def user_turn(text: str, image: str | None) -> Json:
    """A user turn; see `content_of`."""
    return {"role": "user", "content": content_of(text, image)}


def content_of(text: str, image: str | None) -> Any:
    """A turn's content: text alone as a string, which every server takes; an image stands before it."""
    if image is None:
        return text
    return [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": text}]


def text_of(found: Json) -> str:
    """What the first choice says; ValueError where it says nothing of the kind."""
    choice = found["choices"][0]
    text = choice["message"]["content"]
    if not isinstance(text, str) or choice.get("finish_reason") == "content_filter":
        raise ValueError("no text")
    return text


def spoken(found: Json) -> Json:
    """The answer where it has a message, be it empty (one token may be no text yet)."""
    found["choices"][0]["message"].keys()
    return found


def checked(found: Json) -> Json:
    """The answer where it has a text; ValueError and its like where not."""
    text_of(found)
    return found


def steps_of(found: Json) -> tuple[Step, ...]:
    """Its tokens; ValueError without any."""
    steps = read_steps(found)
    if not steps:
        raise ValueError("no log-probabilities")
    return steps
