"""Small pictures for the page, as ``data:`` URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

from gsco.cases import ImageRef

Thumbnail = Callable[[str], bytes | None]
LARGE, MEDIUM, SMALL = 224, 128, 72

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)


def data_uri(content: bytes) -> str | None:
    """``data:`` URI of an encoded PNG, JPEG, GIF or WebP; None for anything else (SVG included)."""
    kind = next((kind for magic, kind in _MAGIC if content.startswith(magic)), None)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        kind = "image/webp"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}" if kind else None


def shrink(content: bytes, side: int) -> bytes:
    """The same picture with its longer side at most `side` pixels; untouched where it is small already."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        if max(image.size) <= side:
            return content
        image.load()
        return _encode(image.convert("RGB") if image.mode not in ("L", "RGB") else image, side)


def _encode(image: object, side: int) -> bytes:
    from PIL import Image

    assert isinstance(image, Image.Image)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    if max(image.size) <= 64:  # few pixels: lossless is smaller and shows what the model saw
        image.save(out, "PNG", optimize=True)
    else:
        image.save(out, "JPEG", quality=82, optimize=True)
    return out.getvalue()


def parse_ref(text: str) -> ImageRef:
    """Read back what ``str(ImageRef)`` wrote: ``path``, ``path:index`` or ``path.npz:key:index``."""
    if Path(text).exists():
        return ImageRef(Path(text))
    head, _, last = text.rpartition(":")
    if head and last.isdigit():
        before, _, key = head.rpartition(":")
        if before and Path(before).suffix == ".npz":
            return ImageRef(Path(before), key, int(last))
        return ImageRef(Path(head), None, int(last))
    return ImageRef(Path(text))


def file_thumbnail(text: str, *, root: Path | None = None, side: int = LARGE) -> bytes | None:
    """A thumbnail of the image that a log line names, or None where it can no longer be read.

    Args:
        text: the line's ``image``.
        root: the dataset's folder, for relative paths.
        side: longest side in pixels.
    """
    from gsco.cases import load_image
    from gsco.errors import GscoError

    ref = parse_ref(text)
    if root is not None and not ref.path.is_absolute():
        ref = ImageRef(root / ref.path, ref.key, ref.index)
    try:
        return _encode(load_image(ref).copy(), side)
    except (GscoError, OSError):
        return None  # the page says "no picture"; the log keeps the reference
