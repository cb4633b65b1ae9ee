"""MedDr-nano behind the `Generalist` interface."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from gsco.cases import ImageRef, load_image
from gsco.generalist.base import OptionScores, Request
from gsco.generalist.nano.assemble import base_folder, is_merged, load_base, load_nano, weights_folder
from gsco.generalist.nano.dialogue import END, encode_answer, encode_prompt
from gsco.generalist.nano.eye import vision_tokens
from gsco.generalist.nano.reader import Precision, Reader
from gsco.generalist.option_tree import RULE, Row, score_choices
from gsco.generalist.sampling import drawing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from gsco.generalist.nano.modeling import MedDrNanoForConditionalGeneration

_GENERATE_BATCH = 16
_KEPT_IMAGES = 64
_SAMPLE = """Diagnose this image (dermatoscopy).
Options:
- melanoma
- nevus
Specialists, surest first:
- probe (reliability 71%): melanoma 80%, nevus 20%
Most similar known cases (reliability 64%), share of 10: nevus 6, melanoma 4
Answer with one option."""
"""Ordinary text of the kind that is read; int8 finds by it which channels are wide."""


class NanoGeneralist:
    """MedDr-nano (see the card beside its weights). Research use only, not a medical device.

    Consecutive requests about one image share its encoding and whatever their prompts have in common.
    Answers do not depend on how requests are batched, up to floating point.

    Args:
        model: base and adapter as one model.
        tokenizer: of the base.
        fingerprint: changes whenever the answers may.
        precision: of scoring; ``int8`` takes a half to two thirds of the time on a CPU with VNNI, and answers
            alike in 99 of 100 cases and more (``benchmarks/int8.py``). Free text is always written in fp32.
    """

    caution = "MedDr-nano was taught to choose among options; what it writes freely makes little sense."

    def __init__(
        self,
        model: MedDrNanoForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        fingerprint: str,
        precision: Precision = "fp32",
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = "meddr-nano"
        self.fingerprint = fingerprint
        self._device = next(model.parameters()).device
        self._end = int(tokenizer.convert_tokens_to_ids(END))
        self._seen: OrderedDict[tuple[ImageRef, int, int], torch.Tensor] = OrderedDict()
        with torch.inference_mode():
            sample = torch.tensor([encode_prompt(tokenizer, _SAMPLE, image=False)], device=self._device)
            self._reader = Reader(
                model.model.language_model, precision, sample=model.get_input_embeddings()(sample)[0]
            )

    @classmethod
    def from_pretrained(
        cls, adapter: Path | None = None, *, cache: Path | None = None, precision: Precision = "fp32"
    ) -> NanoGeneralist:
        """Load the shipped adapter, that in `adapter`, or a merged model; ModelError if a part is missing."""
        folder = Path(adapter) if adapter is not None else weights_folder()
        if is_merged(folder):
            model, tokenizer = load_base(folder)
            marks = ["meddr-nano", "merged", _sha256(folder / "model.safetensors")[:16], RULE]
        else:
            model, tokenizer = load_nano(folder, cache=cache)
            digest = _sha256(folder / "adapter_model.safetensors")
            marks = ["meddr-nano", base_folder(cache).name, digest[:16], RULE]
        if precision != "fp32":
            marks.append(precision)
        return cls(model, tokenizer, fingerprint=":".join(marks), precision=precision)

    def score_options(self, requests: Sequence[Request]) -> list[OptionScores]:
        """See `Generalist.score_options`; the probability is that of constrained decoding."""
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
        scores = score_choices(
            partial(self._read, image=image),
            self._logits,
            [self._ids(r) for r in requests],
            [[encode_answer(self.tokenizer, choice) for choice in r.choices] for r in requests],
            device=self._device,
        )
        return [OptionScores(logs) for logs in scores]

    def _read(self, rows: Sequence[Row], *, image: ImageRef | None) -> torch.Tensor:
        ids = torch.tensor([[token for row in rows for token in row.ids]], device=self._device)
        return self._reader(self._embed(ids, [image])[0], rows)

    def _ids(self, request: Request) -> list[int]:
        if request.examples:
            raise ValueError("MedDr-nano reads one image, no examples")
        seen = request.image is not None
        return encode_prompt(self.tokenizer, request.prompt, image=seen, history=request.history)

    def _logits(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return functional.linear(hidden, self.model.lm_head.weight[ids])

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
        key = (image, *_version(image.path))
        if key not in self._seen:
            self._seen[key] = self.model.project(vision_tokens(self.model, [load_image(image)]))[0]
            while len(self._seen) > _KEPT_IMAGES:
                self._seen.popitem(last=False)
        self._seen.move_to_end(key)
        return self._seen[key]

    def _generate_batch(self, requests: Sequence[Request], max_new_tokens: int) -> list[str]:
        prompts = [self._ids(r) for r in requests]
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
            logits_processor=drawing(requests),
            eos_token_id=self._end,
            pad_token_id=self._end,
        )
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in written]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(path: Path) -> tuple[int, int]:
    """When a file was written and how long it is, which tell a new picture under an old name."""
    try:
        stat = path.stat()
    except OSError:  # reading it says what is wrong
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def _by_image(requests: Sequence[Request]) -> Iterator[list[Request]]:
    group: list[Request] = []
    for request in requests:
        if group and (request.image is None or request.image != group[0].image):
            yield group
            group = []
        group.append(request)
    if group:
        yield group
