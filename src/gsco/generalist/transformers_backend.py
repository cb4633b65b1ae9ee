"""Any image-text-to-text model of transformers behind the `Generalist` interface, by folder or hub id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gsco.cases import load_image
from gsco.generalist.base import OptionScores, Request
from gsco.generalist.chat_markup import end_of_answer, stop_ids
from gsco.generalist.option_tree import RULE, ChoiceTree, Ids
from gsco.generalist.sampling import drawing
from gsco.generalist.vlm import LoadOptions, load_vlm

_BATCH = 8
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth"}


class TransformersGeneralist:
    """A vision-language model with its own processor and chat template.

    A request's prompt (image included) is read once; beginnings of choices after which they part continue
    from that cache in one batch, where there are any.

    Args:
        model: from ``AutoModelForImageTextToText``.
        processor: from ``AutoProcessor``, with a chat template.
        name: what a log calls it.
        fingerprint: changes whenever the answers may.
        image: settings of the image processor, before its own.
    """

    takes_examples = True

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str,
        fingerprint: str,
        image: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.fingerprint = fingerprint
        self._tokenizer = processor.tokenizer
        self._tokenizer.padding_side = "left"
        self._end = end_of_answer(processor, stop_ids(model, self._tokenizer))
        self._settings = {"images_kwargs": dict(image)} if image else {}

    @classmethod
    def from_pretrained(
        cls, spec: str, *, device: str | None = None, dtype: str | torch.dtype = "auto", **options: Any
    ) -> TransformersGeneralist:
        """Load a folder or hub id (``HF_HUB_OFFLINE`` is obeyed); no code from the model's folder is run.

        Args:
            spec: see `gsco.generalist.vlm.load_vlm`.
            device / dtype / options: see `gsco.generalist.vlm.LoadOptions`.

        Raises:
            ModelError: it is missing, or not an image-text-to-text model with a processor and chat template.
        """
        found = load_vlm(spec, LoadOptions(dtype=dtype, device=device, **options))
        model, folder = found.model, Path(spec)
        settings = json.dumps([model.config.to_dict(), dict(found.image)], sort_keys=True, default=str)
        mark = hashlib.sha256((settings + _weights_mark(found.folders, model)).encode()).hexdigest()[:16]
        return cls(
            model,
            found.processor,
            name=folder.name,
            fingerprint=f"transformers:{folder.name}:{mark}:{RULE}",
            image=found.image,
        )

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 64) -> list[str]:
        """See `Generalist.generate`; requests of unlike numbers of images go in batches of their own."""
        out: list[str] = [""] * len(requests)
        for n in sorted({len(r.images) for r in requests}):
            rows = [i for i, r in enumerate(requests) if len(r.images) == n]
            for start in range(0, len(rows), _BATCH):
                part = rows[start : start + _BATCH]
                asked = [requests[i] for i in part]
                inputs = self._inputs(asked)
                with torch.inference_mode():
                    ids = self.model.generate(
                        **inputs,
                        max_new_tokens=max_new_tokens,
                        do_sample=False,
                        logits_processor=drawing(asked),
                    )
                new = ids[:, inputs["input_ids"].shape[1] :]
                for i, text in zip(
                    part, self._tokenizer.batch_decode(new, skip_special_tokens=True), strict=True
                ):
                    out[i] = text.strip()
        return out

    def score_options(self, requests: Sequence[Request]) -> list[OptionScores]:
        """See `Generalist.score_options`; the probability is that of constrained decoding."""
        return [self._score(request) for request in requests]

    def _score(self, request: Request) -> OptionScores:
        if not request.choices:
            raise ValueError("a request without choices cannot be scored")
        inputs = self._inputs([request])
        tree = ChoiceTree(
            [[*self._tokenizer(c, add_special_tokens=False).input_ids, *self._end] for c in request.choices]
        )
        deeper = [begun for begun in tree.parts if begun]
        with torch.inference_mode():
            prompt = self.model(**inputs, use_cache=bool(deeper), logits_to_keep=1)
            logits: dict[Ids, torch.Tensor] = {(): prompt.logits[0, -1]}
            if deeper:
                logits |= self._after(inputs, prompt.past_key_values, deeper)
        asked = {begun: logits[begun][list(tokens)] for begun, tokens in tree.parts.items()}
        return OptionScores(tree.log_probabilities(asked))

    def _after(self, inputs: Any, past: Any, beginnings: list[Ids]) -> dict[Ids, torch.Tensor]:
        """Logits (vocabulary,) of what follows each beginning of an answer."""
        n, longest = len(beginnings), max(len(begun) for begun in beginnings)
        length = inputs["input_ids"].shape[1]
        ids = torch.full((n, longest), self._tokenizer.pad_token_id or 0, device=self.model.device)
        mask = torch.zeros((n, length + longest), dtype=torch.long, device=self.model.device)
        mask[:, :length] = inputs["attention_mask"]
        for row, begun in enumerate(beginnings):
            ids[row, : len(begun)] = torch.tensor(begun, device=self.model.device)
            mask[row, length : length + len(begun)] = 1
        past.batch_repeat_interleave(n)
        logits = self.model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=past,
            use_cache=True,
            **self._positions(inputs, n, longest),
        ).logits
        return {begun: logits[row, len(begun) - 1] for row, begun in enumerate(beginnings)}

    def _positions(self, inputs: Any, n: int, longest: int) -> dict[str, torch.Tensor]:
        """Positions of what follows a prompt, where an image takes fewer of them than tokens (Qwen-VL).

        Such a model keeps the difference for the next step, and also for a later prompt without an image.
        """
        if not hasattr(self.model.model, "rope_deltas"):
            return {}
        length = inputs["input_ids"].shape[1]
        places = torch.arange(length, length + longest, device=self.model.device).expand(n, -1)
        if any(key.endswith("grid_thw") for key in inputs):
            places = places + self.model.model.rope_deltas.to(places.device)
        return {"position_ids": places}

    def _inputs(self, requests: Sequence[Request]) -> Any:
        conversations = []
        for request in requests:
            messages: list[dict[str, Any]] = []
            for turn in request.turns():
                content: list[dict[str, Any]] = [{"type": "text", "text": turn.text}]
                if turn.image is not None:
                    content.insert(0, {"type": "image", "image": load_image(turn.image)})
                messages.append({"role": "user", "content": content})
                if turn.answer is not None:
                    messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
            conversations.append(messages)
        return self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, **self._settings},
        ).to(self.model.device, dtype=self.model.dtype)


def _weights_mark(folders: Sequence[Path], model: Any) -> str:
    """Names, sizes and times of the weight files; the commit where the model came from the hub."""
    files = [p for folder in folders for p in sorted(folder.glob("*")) if p.suffix in _WEIGHTS]
    marks = [f"{p.name}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files]
    return "|".join(marks) or str(getattr(model.config, "_commit_hash", ""))
