"""Silence that is local, also with threads."""

from __future__ import annotations

import threading
import warnings

import pytest

from gsco.cases.quiet import quiet_warnings


def test_only_library_chatter_is_quiet() -> None:
    with quiet_warnings():
        warnings.warn("odd metadata", UserWarning, stacklevel=1)
        warnings.warn("odd number", RuntimeWarning, stacklevel=1)
        with pytest.raises(DeprecationWarning):
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    with pytest.raises(UserWarning):
        warnings.warn("odd metadata", UserWarning, stacklevel=1)


def test_filters_are_restored_after_overlapping_threads() -> None:
    before = list(warnings.filters)
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with quiet_warnings():
            first_in.set()
            second_in.wait(5)
        first_out.set()

    def second() -> None:
        first_in.wait(5)
        with quiet_warnings():
            second_in.set()
            first_out.wait(5)
            warnings.warn("still quiet here", UserWarning, stacklevel=1)

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
