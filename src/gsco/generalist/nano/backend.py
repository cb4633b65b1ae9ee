"""MedDr-nano behind the `Generalist` interface."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gsco.cases import ImageRef, load_image
from gsco.generalist.base import OptionScores, Request
from gsco.generalist.nano.assemble import base_folder, load_nano, weights_folder
from gsco.generalist.nano.dialogue import END, encode_answer, encode_prompt
from gsco.generalist.nano.eye import vision_tokens
from gsco.generalist.prefill import common_prefix, normalised, score_choices

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from gsco.generalist.nano.modeling import MedDrNanoForConditionalGeneration

_GENERATE_BATCH = 16
_KEPT_IMAGES = 64


class NanoGeneralist:
    """MedDr-nano (see the card beside its weights). Research use only, not a medical device.

    Consecutive requests about one image share its encoding and the beginning of their prompts.
    Answers do not depend on how requests are batched, up to floating point.

    Args:
        model: base and adapter as one model.
        tokenizer: of the base.
        fingerprint: changes whenever the answers may.
    """

    def __init__(
        self,
        model: MedDrNanoForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        fingerprint: str,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = "meddr-nano"
        self.fingerprint = fingerprint
        self._device = next(model.parameters()).device
        self._end = int(tokenizer.convert_tokens_to_ids(END))
        self._seen: OrderedDict[ImageRef, torch.Tensor] = OrderedDict()

    @classmethod
    def from_pretrained(cls, adapter: Path | None = None, *, cache: Path | None = None) -> NanoGeneralist:
        """Load the shipped adapter, or the one in `adapter`; ModelError where a part is missing."""
        folder = Path(adapter) if adapter is not None else weights_folder()
        model, tokenizer = load_nano(folder, cache=cache)
        digest = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
        return cls(model, tokenizer, fingerprint=f"meddr-nano:{base_folder(cache).name}:{digest[:16]}")

    def score_options(self, requests: Sequence[Request]) -> list[OptionScores]:
        """See `Generalist.score_options`; a choice's probability includes the end of the answer."""
        out: list[OptionScores] = []
        with torch.inference_mode():
            for group in _by_image(requests):
                out += self._score_group(group)
        return out

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 64) -> list[str]:
        """See `Generalist.generate`."""
        out: list[str] = []
        with torch.inference_mode():
            for start in range(0, len(requests), _GENERATE_BATCH):
                out += self._generate_batch(requests[start : start + _GENERATE_BATCH], max_new_tokens)
        return out

    def forget(self) -> None:
        """Drop the images kept from earlier calls."""
        self._seen.clear()

    def _score_group(self, requests: Sequence[Request]) -> list[OptionScores]:
        for request in requests:
            if not request.choices:
                raise ValueError("a request without choices cannot be scored")
        image = requests[0].image
        prompts = [encode_prompt(self.tokenizer, r.prompt, image=image is not None) for r in requests]
        choices = [self._answers(r.choices) for r in requests]
        shared = common_prefix(prompts) if len(prompts) > 1 else 0
        past = None
        if shared:
            _, past = self._forward(torch.tensor([prompts[0][:shared]]), None, None, None, image=image)
        totals = score_choices(
            partial(self._forward, image=None if shared else image),
            self.model.lm_head,
            past,
            shared,
            [prompt[shared:] for prompt in prompts],
            choices,
            device=self._device,
        )
        return [OptionScores(normalised(total)) for total in totals]

    def _answers(self, choices: Sequence[str]) -> list[list[int]]:
        """Token ids of each choice with the end of turn; of letters, told apart at once, the letter only."""
        ids = [encode_answer(self.tokenizer, choice) for choice in choices]
        letters = all(len(i) == 2 for i in ids) and len({i[0] for i in ids}) == len(ids)
        return [i[:1] for i in ids] if letters else ids

    def _forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor | None,
        past: Any,
        *,
        image: ImageRef | None,
    ) -> tuple[torch.Tensor, Any]:
        output = self.model.model.language_model(
            inputs_embeds=self._embed(ids, [image] * len(ids)),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=past,
            use_cache=True,
        )
        return output.last_hidden_state, output.past_key_values

    def _embed(self, ids: torch.Tensor, images: Sequence[ImageRef | None]) -> torch.Tensor:
        """Token embeddings (B, T, D), image tokens replaced by the projected image of their row."""
        embeds: torch.Tensor = self.model.get_input_embeddings()(ids)
        for row, image in enumerate(images):
            where = ids[row] == self.model.config.image_token_id
            if image is not None and bool(where.any()):
                embeds[row, where] = self._look(image)
        return embeds

    def _look(self, image: ImageRef) -> torch.Tensor:
        """Projected tokens (49, 576) of an image, kept for the last few images."""
        if image not in self._seen:
            self._seen[image] = self.model.project(vision_tokens(self.model, [load_image(image)]))[0]
            while len(self._seen) > _KEPT_IMAGES:
                self._seen.popitem(last=False)
        self._seen.move_to_end(image)
        return self._seen[image]

    def _generate_batch(self, requests: Sequence[Request], max_new_tokens: int) -> list[str]:
        prompts = [encode_prompt(self.tokenizer, r.prompt, image=r.image is not None) for r in requests]
        longest = max(len(p) for p in prompts)
        ids = torch.full((len(prompts), longest), self._end, device=self._device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):  # padded on the left, as generation needs it
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        written = self.model.generate(
            inputs_embeds=self._embed(ids, [r.image for r in requests]),
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self._end,
            pad_token_id=self._end,
        )
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in written]


def _by_image(requests: Sequence[Request]) -> Iterator[list[Request]]:
    group: list[Request] = []
    for request in requests:
        if group and (request.image is None or request.image != group[0].image):
            yield group
            group = []
        group.append(request)
    if group:
        yield group
