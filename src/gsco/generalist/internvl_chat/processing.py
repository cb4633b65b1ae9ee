"""Text and images as InternVL-Chat V1.x takes them: one stretched tile an image, tokens before the text.

transformers' own InternVL processor cuts images into tiles whatever its image processor is told, and wants a
video processor; neither suits this model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CLIPImageProcessorPil, ProcessorMixin

IMAGE_TOKEN = "<IMG_CONTEXT>"  # noqa: S105
START, END = "<img>", "</img>"


class InternVLChatV1Processor(ProcessorMixin):
    """A tokenizer and an image processor.

    Args:
        image_processor: from `image_processor`, or one like it.
        tokenizer: it knows ``<img>``, ``<IMG_CONTEXT>`` and ``</img>``.
        image_seq_length: visual tokens of an image.
        chat_template: see `chat_template`.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 256,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(image_processor, CLIPImageProcessorPil):
            # read from a folder it is torchvision's, which resizes a little differently than MedDr's PIL
            image_processor = CLIPImageProcessorPil.from_dict(image_processor.to_dict())
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)
        self.image_seq_length = image_seq_length
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """What stands in the text for an image: start, one context token per visual token, end."""
        return START + IMAGE_TOKEN * self.image_seq_length + END


def image_processor(size: int) -> Any:
    """Stretch to `size` x `size` pixels, bicubic, normalise as for ImageNet: MedDr's evaluation."""
    return CLIPImageProcessorPil(
        do_resize=True,
        size={"height": size, "width": size},
        resample=3,
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        do_convert_rgb=True,
    )


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, or None where it has none."""
    from transformers import AutoTokenizer

    files = ("tokenizer.json", "tokenizer.model")
    if not any((folder / name).exists() for name in files):
        return None
    return AutoTokenizer.from_pretrained(str(folder))
