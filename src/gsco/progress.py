"""How a function that takes its time tells how far it has come; what a person sees is its caller's."""

from __future__ import annotations

from collections.abc import Callable

Count = Callable[[int, int], None]
"""Called with (done, total), in units of the work at hand."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, total), for work of several parts."""
