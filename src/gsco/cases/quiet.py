"""Warnings of image libraries, kept away from the reader of a log while a file is decoded."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_depth = 0
_outer: warnings.catch_warnings[None] | None = None


@contextmanager
def quiet_warnings() -> Iterator[None]:
    """Ignore `UserWarning` and `RuntimeWarning` inside the block; other kinds still speak.

    Pillow and pydicom warn about odd metadata (corrupt EXIF, wrong value lengths) that say nothing
    about whether the pixels can be read; what matters comes as an exception. The filters of Python
    before 3.14 are one list for all threads, and a plain ``catch_warnings`` in two threads can leave
    it wrong for good: so the first thread in sets it and the last one out restores it.
    """
    global _depth, _outer
    with _lock:
        if _depth == 0:
            _outer = warnings.catch_warnings()
            _outer.__enter__()
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0 and _outer is not None:
                _outer.__exit__(None, None, None)
                _outer = None
