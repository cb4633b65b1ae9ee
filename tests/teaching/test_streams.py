"""Streams never end, and a draw by weight keeps to the weights."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsco.cases import Case
from gsco.cases.images import ImageRef
from gsco.teaching.streams import ByWeight, balanced, endless, independent, shares_of


def case(number: int, label: str | None) -> Case:
    return Case(str(number), (ImageRef(Path(f"{number}.png")),), (label,) if label else ())


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
def test_every_pass_of_an_endless_stream_shows_each_item_once(n: int, passes: int, seed: int) -> None:
    drawn = list(islice(endless(np.random.default_rng(seed), range(n)), n * passes))
    for i in range(passes):
        assert sorted(drawn[i * n : (i + 1) * n]) == list(range(n))


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=20), st.integers(0, 99))
def test_a_balanced_stream_shows_every_label_once_a_round(labels: list[str | None], seed: int) -> None:
    cases = [case(i, label) for i, label in enumerate(labels)]
    known = {label for label in labels if label is not None}
    drawn = list(islice(balanced(np.random.default_rng(seed), cases), 3 * len(known)))
    assert Counter(c.label for c in drawn) == dict.fromkeys(known, 3)


def test_nothing_comes_of_nothing() -> None:
    rng = np.random.default_rng(0)
    assert not list(endless(rng, [])) and not list(balanced(rng, [])) and not list(independent(rng, []))
    assert not ByWeight([])


def test_things_come_by_weight() -> None:
    drawn = ByWeight([(3.0, "often"), (1.0, "seldom"), (0.0, "never")])
    rng = np.random.default_rng(0)
    counts = Counter(drawn.draw(rng) for _ in range(4000))
    assert counts["never"] == 0
    assert counts["often"] / 4000 == pytest.approx(0.75, abs=0.03)
    assert shares_of([3.0, 1.0, 0.0]).tolist() == [0.75, 0.25, 0.0]
