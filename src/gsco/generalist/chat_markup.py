"""What a model's chat template writes around an answer, read from the template itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]


def render(processor: Any, messages: Sequence[Message], *, ask: bool = False) -> str:
    """The chat as text; images as the template's placeholders, with the opening of an answer if `ask`."""
    text: str = processor.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=ask)
    return text


def adds_special_tokens(processor: Any, text: str) -> bool:
    """Whether the tokenizer still has to write a beginning of text, as transformers decides it."""
    begin = processor.tokenizer.bos_token
    return not (begin is not None and text.startswith(begin))


def end_of_answer(processor: Any, stops: Sequence[int]) -> list[int]:
    """Token ids of what ends an answer: what the template writes after one, up to the first stop token.

    Args:
        processor: with chat template and tokenizer.
        stops: the ids that end generation.

    Returns:
        Ids that end in one of `stops` where the template writes one; else the first of `stops`; else none.
    """
    user = {"role": "user", "content": [{"type": "text", "text": "a"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "b"}]}
    asked = render(processor, [user], ask=True)
    text = render(processor, [user, answer])
    if text.startswith(asked):
        rest = text[len(asked) :].lstrip().removeprefix("b")
        ids = processor.tokenizer(rest, add_special_tokens=False).input_ids
        for i, token in enumerate(ids):
            if token in stops:
                return [int(t) for t in ids[: i + 1]]
    return [int(stop) for stop in stops[:1]]


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """The ids that end generation: the model's, else the tokenizer's."""
    end = model.generation_config.eos_token_id
    if end is None:
        end = tokenizer.eos_token_id
    return [] if end is None else [int(i) for i in end] if isinstance(end, list) else [int(end)]
