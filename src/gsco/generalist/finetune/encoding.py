"""A conversation as tensors of the model's own processor, with labels on its answers only.

Labels are found by place, from the chat template, never by token id: in many tokenizers the token that
pads also ends a turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gsco.errors import ModelError
from gsco.generalist.chat_markup import adds_special_tokens, render
from gsco.generalist.finetune.conversation import Message, SkippedRecord

if TYPE_CHECKING:
    from PIL import Image

IGNORED = -100
"""Label of a token that the loss passes over (PyTorch's default)."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a model reads of one conversation.

    Attributes:
        inputs: the processor's tensors for a batch of one, ``input_ids`` (1, T) among them.
        labels: (T,) int64, `IGNORED` outside of answers.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def without_labels(self) -> Encoded:
        """The same, counting for nothing."""
        return Encoded(self.inputs, torch.full_like(self.labels, IGNORED))


class Encoder:
    """Conversations to tensors.

    Args:
        processor: the model's own, with a chat template and a fast tokenizer.
        stops: the ids that end generation; the last answer ends with one.
        image_settings: settings of the image processor (``size``, ...), before its own.

    Raises:
        ModelError: the tokenizer cannot tell where a token stands in the text.
    """

    def __init__(
        self, processor: Any, *, stops: Sequence[int] = (), image_settings: Mapping[str, Any] | None = None
    ) -> None:
        if not processor.tokenizer.is_fast:
            raise ModelError("the tokenizer is none of the fast ones, which know where a token stands")
        self.processor = processor
        self.stops = list(stops)
        self.settings = {"images_kwargs": dict(image_settings)} if image_settings else {}

    @property
    def markup(self) -> tuple[str, ...]:
        """Strings that are signs, not text: no turn of a conversation may hold one."""
        added = self.processor.tokenizer.added_tokens_decoder.values()
        return tuple(sorted({token.content for token in added if token.special and token.content.strip()}))

    def __call__(self, messages: Sequence[Message], images: Sequence[Image.Image] = ()) -> Encoded:
        """Tokenise a chat; an answer counts with what ends it.

        Args:
            messages: as in `gsco.generalist.finetune.conversation`.
            images: RGB, one for each place.

        Raises:
            ModelError: the template or the processor does not let answers be told from the rest.
            SkippedRecord: it does so for other chats, but not for this one.
        """
        inputs = self._read(messages, images)
        labels = torch.full((inputs["input_ids"].shape[1],), IGNORED)
        for last, begins in _blocks(messages):
            part = messages[: last + 1]
            seen = sum(item["type"] == "image" for m in part for item in m["content"])
            ids = inputs["input_ids"][0]
            if last + 1 < len(messages):
                ids = self._read(part, images[:seen])["input_ids"][0]
            self._mark(labels, inputs["input_ids"][0], ids, part, begins)
        return self._ended(inputs, labels)

    def _read(self, messages: Sequence[Message], images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        queue = iter(images)
        filled = [{**m, "content": [_filled(item, queue) for item in m["content"]]} for m in messages]
        out = self.processor.apply_chat_template(
            filled,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=dict(self.settings),
        )
        return {key: value for key, value in out.items() if isinstance(value, torch.Tensor)}

    def _mark(
        self,
        labels: torch.Tensor,
        whole: torch.Tensor,
        ids: torch.Tensor,
        messages: Sequence[Message],
        begins: int,
    ) -> None:
        """Copy ids to labels in the answers of `messages` from place `begins`, after which no image stands.

        The processor writes images out into many tokens, but nothing behind the last image: so places are
        counted from the end, on the text as the template gives it.
        """
        text = render(self.processor, messages)
        spans = [self._span(messages, place, text) for place in range(begins, len(messages), 2)]
        read = self.processor.tokenizer(
            text, add_special_tokens=adds_special_tokens(self.processor, text), return_offsets_mapping=True
        )
        first = next(
            (i for i, (_, e) in enumerate(read.offset_mapping) if e > spans[0][0]), len(read.input_ids)
        )
        n = len(read.input_ids) - first
        start = len(ids) - n
        if ids[start:].tolist() != read.input_ids[first:]:
            raise ModelError("the processor changes the text behind the last image")
        if not torch.equal(whole[: len(ids)], ids):  # LLaVA-OneVision: several images have fewer tokens each
            raise SkippedRecord("an image follows an answer, and the processor then reads earlier ones anew")
        for i, (s, e) in enumerate(read.offset_mapping[first:]):
            if any(s < stop and e > begin for begin, stop in spans) and e > s:
                labels[start + i] = whole[start + i]

    def _span(self, messages: Sequence[Message], place: int, text: str) -> tuple[int, int]:
        """Where the answer of a turn stands in the text, the sign that ends it included."""
        asked = render(self.processor, messages[:place], ask=True)
        if not text.startswith(asked):
            raise ModelError(
                "the chat template opens an answer in another way than it writes one",
                remedy="Give the model a template whose generation prompt begins each answer.",
            )
        answered = render(self.processor, messages[: place + 1])
        end = len(asked)
        while end < min(len(answered), len(text)) and answered[end] == text[end]:
            end += 1
        return len(asked), len(text[:end].rstrip())

    def _ended(self, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> Encoded:
        """With a stop token at the end, where the template writes none after the last answer."""
        marked = (labels != IGNORED).nonzero().flatten()
        if not self.stops or (len(marked) and int(labels[marked[-1]]) in self.stops):
            return Encoded(inputs, labels)
        length = len(labels)
        out = {}
        for key, value in inputs.items():
            if value.shape == (1, length):
                fill = {"input_ids": self.stops[0], "attention_mask": 1}.get(key, 0)
                value = torch.cat([value, value.new_full((1, 1), fill)], dim=1)
            out[key] = value
        return Encoded(out, torch.cat([labels, torch.tensor([self.stops[0]])]))


def _filled(item: Mapping[str, Any], images: Any) -> dict[str, Any]:
    return {"type": "image", "image": next(images)} if item["type"] == "image" else dict(item)


def _blocks(messages: Sequence[Message]) -> list[tuple[int, int]]:
    """Runs of answers without an image between them: (last message, first answer) of each."""
    blocks: list[tuple[int, int]] = []
    begins: int | None = None
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            begins = place if begins is None else begins
        elif begins is not None and any(item["type"] == "image" for item in message["content"]):
            blocks.append((place - 1, begins))
            begins = None
    if begins is not None:
        blocks.append((len(messages) - 1, begins))
    return blocks
