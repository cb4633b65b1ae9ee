"""Any image-text-to-text model of transformers behind the `Generalist` interface, by folder or hub id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gsco.cases import load_image
from gsco.errors import ModelError
from gsco.generalist.base import OptionScores, Request
from gsco.generalist.option_tree import RULE, ChoiceTree, Ids

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
    """

    def __init__(self, model: Any, processor: Any, *, name: str, fingerprint: str) -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.fingerprint = fingerprint
        self._tokenizer = processor.tokenizer
        self._tokenizer.padding_side = "left"

    @classmethod
    def from_pretrained(
        cls, spec: str, *, device: str | None = None, dtype: str | torch.dtype = "auto"
    ) -> TransformersGeneralist:
        """Load a folder or hub id (``HF_HUB_OFFLINE`` is obeyed); no code from the model's folder is run.

        Raises:
            ModelError: it is missing, or not an image-text-to-text model with a processor and chat template.
        """
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

        import gsco.generalist.internvl_chat.modeling  # noqa: F401  makes converted models known

        folder = Path(spec)
        if folder.exists() and not (folder / "config.json").exists():
            raise ModelError(
                "holds no model (no config.json)", where=spec, remedy="Name a transformers model folder."
            )
        try:
            config = AutoConfig.from_pretrained(spec)
            if type(config) not in AutoModelForImageTextToText._model_mapping:
                raise ModelError(
                    f"is a {config.model_type!r} model, which does not take an image and text to text",
                    where=spec,
                    remedy="Name an image-text-to-text model (InternVL, LLaVA, Qwen-VL, ...).",
                )
            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
            model = AutoModelForImageTextToText.from_pretrained(spec, dtype=dtype).to(device)
            processor = AutoProcessor.from_pretrained(spec)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(
                f"cannot be loaded ({str(error).strip().splitlines()[0]})",
                where=spec,
                remedy="Name a model folder that transformers can read, or a hub id that can be reached.",
            ) from error
        if getattr(processor, "tokenizer", None) is None or not getattr(processor, "chat_template", None):
            raise ModelError("has no processor with a tokenizer and a chat template", where=spec)
        settings = json.dumps(model.config.to_dict(), sort_keys=True, default=str)
        mark = hashlib.sha256((settings + _weights_mark(folder, model)).encode()).hexdigest()[:16]
        return cls(
            model, processor, name=folder.name, fingerprint=f"transformers:{folder.name}:{mark}:{RULE}"
        )

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 64) -> list[str]:
        """See `Generalist.generate`; requests with and without image go in batches of their own."""
        out: list[str] = [""] * len(requests)
        for with_image in (True, False):
            rows = [i for i, r in enumerate(requests) if (r.image is not None) == with_image]
            for start in range(0, len(rows), _BATCH):
                part = rows[start : start + _BATCH]
                inputs = self._inputs([requests[i] for i in part])
                with torch.inference_mode():
                    ids = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
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
        end = self._end_ids()
        tree = ChoiceTree(
            [[*self._tokenizer(c, add_special_tokens=False).input_ids, *end] for c in request.choices]
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
        logits = self.model(input_ids=ids, attention_mask=mask, past_key_values=past, use_cache=True).logits
        return {begun: logits[row, len(begun) - 1] for row, begun in enumerate(beginnings)}

    def _end_ids(self) -> list[int]:
        end = self.model.generation_config.eos_token_id
        if end is None:
            end = self._tokenizer.eos_token_id
        return [] if end is None else [end[0] if isinstance(end, list) else int(end)]

    def _inputs(self, requests: Sequence[Request]) -> Any:
        conversations = []
        for request in requests:
            turns: list[dict[str, Any]] = []
            for question, answer in (*request.history, (request.prompt, None)):
                content: list[dict[str, Any]] = [{"type": "text", "text": question}]
                if request.image is not None and not turns:
                    content.insert(0, {"type": "image", "image": load_image(request.image)})
                turns.append({"role": "user", "content": content})
                if answer is not None:
                    turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
            conversations.append(turns)
        return self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(self.model.device, dtype=self.model.dtype)


def _weights_mark(folder: Path, model: Any) -> str:
    """Names, sizes and times of the weight files; the commit where the model came from the hub."""
    files = sorted(p for p in folder.glob("*") if p.suffix in _WEIGHTS) if folder.exists() else []
    marks = [f"{p.name}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files]
    return "|".join(marks) or str(getattr(model.config, "_commit_hash", ""))
