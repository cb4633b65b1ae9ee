"""How MedDr-nano's turns become token ids: ChatML, image tokens before the question, no system turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gsco.generalist.nano.assemble import IMAGE_TOKEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_IMAGE_TOKENS = 49
END = "<|im_end|>"


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    image: bool,
    history: Sequence[tuple[str, str]] = (),
) -> list[int]:
    """Ids of a user turn up to where the assistant's answer starts; 49 image tokens where there is an image.

    Chat markup inside the prompt is not obeyed: a label or question cannot end the user's turn.
    Earlier turns, (question, answer) each, come before it; the image belongs to the first.
    """
    if history:
        *earlier, (question, answer) = history
        begun = encode_prompt(tokenizer, question, image=image, history=earlier)
        begun += encode_answer(tokenizer, answer) + tokenizer("\n", add_special_tokens=False).input_ids
        return begun + encode_prompt(tokenizer, prompt, image=False)
    ids = _plain(tokenizer, "user\n", special=("<|im_start|>",))
    if image:
        ids += [tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)] * _IMAGE_TOKENS
    ids += tokenizer(prompt, add_special_tokens=False, split_special_tokens=True).input_ids
    ids += [tokenizer.convert_tokens_to_ids(END)]
    ids += tokenizer("\n", add_special_tokens=False).input_ids
    return ids + _plain(tokenizer, "assistant\n", special=("<|im_start|>",))


def encode_answer(tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
    """Ids of the assistant's answer, the end of its turn included.

    A space stands before it, so that a name has the same tokens here as in the prompt, where one always does:
    " melanoma" is one token, "melanoma" three others, and a small model copies tokens, it does not spell.
    """
    ids: list[int] = tokenizer(f" {answer}", add_special_tokens=False, split_special_tokens=True).input_ids
    return [*ids, tokenizer.convert_tokens_to_ids(END)]


def _plain(tokenizer: PreTrainedTokenizerBase, text: str, *, special: tuple[str, ...]) -> list[int]:
    ids: list[int] = [tokenizer.convert_tokens_to_ids(s) for s in special]
    return ids + list(tokenizer(text, add_special_tokens=False).input_ids)
