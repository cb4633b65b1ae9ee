"""The sign of foreign images: honest p-values, group-aware measuring, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gsco.cases import Case, ImageRef
from gsco.errors import ModelError
from gsco.retrieval import CaseIndex, ForeignSign
from gsco.retrieval.foreign import distances, p_value


def cloud(n: int, seed: int, *, centre: int = 0) -> NDArray[np.float32]:
    """Vectors around one axis of 12."""
    around = np.random.default_rng(seed).standard_normal((n, 12), dtype=np.float32) * 0.15
    around[:, centre] += 1
    return around


def index_of(vectors: NDArray[np.float32], patients: list[str] | None = None) -> CaseIndex:
    cases = [
        Case(f"{i}", (ImageRef(Path(f"{i}.png")),), ("a",), "train", patient_id=patients and patients[i])
        for i in range(len(vectors))
    ]
    return CaseIndex.build(vectors, cases, dataset="toy", encoder="e")


def test_the_known_are_measured_as_if_each_were_new() -> None:
    """Against the definition: the index without the case and its patient, asked about the case."""
    vectors, patients = cloud(24, 1), [f"p{i // 3}" for i in range(24)]
    index = index_of(vectors, patients)
    expected = []
    for i in range(24):
        others = index.without([str(j) for j in range(24) if patients[j] == patients[i]])
        expected.append(distances(others, vectors[i][None], 4)[0])
    assert ForeignSign.fit(index, k=4).known == pytest.approx(np.sort(expected), abs=1e-7)


def test_a_patients_own_images_make_nothing_look_near() -> None:
    """Each case has a twin of the same patient; the twin does not count, a stranger's twin does."""
    twins = np.repeat(cloud(10, 2), 2, axis=0)
    own = ForeignSign.fit(index_of(twins, [f"p{i // 2}" for i in range(20)]), k=1)
    strangers = ForeignSign.fit(index_of(twins, [f"p{i}" for i in range(20)]), k=1)
    assert own.known.min() > 0.01
    assert strangers.known.max() == pytest.approx(0, abs=1e-6)


def test_the_distance_is_one_less_the_kth_similarity() -> None:
    vectors, queries = cloud(30, 3), cloud(5, 4)
    similar = queries @ vectors.T
    similar /= np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
    assert distances(index_of(vectors), queries, 7) == pytest.approx(1 - np.sort(similar)[:, -7], abs=1e-6)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_p_values_of_exchangeable_cases_are_never_too_small(scores: list[int], level: float) -> None:
    """Whichever of n + 1 cases is the new one: at most a share `level` of them gets p <= level."""
    p = [
        p_value(one, np.sort(np.asarray(scores[:i] + scores[i + 1 :], dtype=float)))
        for i, one in enumerate(scores)
    ]
    assert np.mean(np.asarray(p) <= level) <= level + 1e-12


@settings(max_examples=20)
@given(st.integers(0, 2**16), st.integers(3, 60), st.sampled_from((0.01, 0.05, 0.2)))
def test_no_more_cases_are_called_foreign_than_is_promised(seed: int, m: int, alpha: float) -> None:
    """Each of m + 1 validation cases in turn is the new one; known cases can only make it rarer."""
    index, new = index_of(cloud(20, seed)), cloud(m + 1, seed + 1)
    whole = ForeignSign.fit(index, new, alpha=alpha)
    # without one of the ascending distances: that of the case whose turn it is
    own = [int(np.searchsorted(whole.validation, score)) for score in distances(index, new, whole.k)]
    signs = [replace(whole, validation=np.delete(whole.validation, i)) for i in own]
    called = [sign.judge(index, new[i][None])[0].is_foreign for i, sign in enumerate(signs)]
    assert np.mean(called) <= signs[0].rate + 1e-12
    assert signs[0].rate == pytest.approx(max(alpha, 1 / (m + 1)))


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_order_changes_nothing(random: object) -> None:
    vectors, new, queries = cloud(15, 5), cloud(9, 6), cloud(4, 7)
    plain = ForeignSign.fit(index_of(vectors), new, k=3)
    order, other = list(range(15)), list(range(9))
    random.shuffle(order)  # type: ignore[attr-defined]
    random.shuffle(other)  # type: ignore[attr-defined]
    mixed_index = index_of(vectors[order])
    mixed = ForeignSign.fit(mixed_index, new[other], k=3)
    assert mixed.known == pytest.approx(plain.known)
    assert mixed.validation == pytest.approx(plain.validation)
    one, two = plain.judge(index_of(vectors), queries), mixed.judge(mixed_index, queries)
    assert [x.is_foreign for x in one] == [x.is_foreign for x in two]
    assert [x.score for x in one] == pytest.approx([x.score for x in two])


def test_others_are_foreign_and_ones_own_are_not() -> None:
    index = index_of(cloud(200, 8))
    sign = ForeignSign.fit(index, cloud(150, 9))
    others = sign.judge(index, cloud(50, 10, centre=3))
    assert all(found.is_foreign and found.nearer == 1.0 for found in others)
    assert {found.p_value for found in others} == {1 / 151}
    own = sign.judge(index, cloud(400, 11))
    assert np.mean([found.is_foreign for found in own]) <= 0.03
    assert np.mean([found.nearer for found in own]) == pytest.approx(0.5, abs=0.07)


def test_only_what_is_nearer_counts_as_nearer() -> None:
    index = index_of(cloud(30, 8))
    sign, query = ForeignSign.fit(index), cloud(1, 9)
    (score,) = distances(index, query, sign.k)
    tied = replace(sign, known=np.sort(np.array([0.0, score, score, 2.0])))
    assert tied.judge(index, query)[0].nearer == 0.25


def test_both_kinds_must_find_it_far() -> None:
    index = index_of(cloud(200, 8))
    far = cloud(1, 10, centre=3)
    assert ForeignSign.fit(index).judge(index, far)[0].is_foreign
    seen = ForeignSign.fit(index, np.concatenate([cloud(50, 9), cloud(50, 12, centre=3)]))
    found = seen.judge(index, far)[0]
    assert not found.is_foreign
    assert found.nearer == 1.0
    assert found.p_value > 0.01


def test_what_is_stored_judges_alike() -> None:
    index = index_of(cloud(40, 13), [f"p{i // 2}" for i in range(40)])
    sign = ForeignSign.fit(index, cloud(20, 14), k=5, alpha=0.02)
    again = ForeignSign.from_dict(json.loads(json.dumps(sign.to_dict())))
    queries = cloud(30, 15)
    assert again.judge(index, queries) == sign.judge(index, queries)
    assert again.rate == sign.rate


def test_one_case_alone_calls_nothing_foreign() -> None:
    index = index_of(cloud(1, 16))
    found = ForeignSign.fit(index).judge(index, cloud(2, 17))
    assert [(f.is_foreign, f.p_value, f.nearer) for f in found] == [(False, 1.0, 0.0)] * 2


def test_refusals() -> None:
    index = index_of(cloud(10, 18))
    sign = ForeignSign.fit(index)
    with pytest.raises(ValueError, match="k is 0"):
        ForeignSign.fit(index, k=0)
    with pytest.raises(ValueError, match="alpha 1"):
        ForeignSign.fit(index, alpha=1.0)
    with pytest.raises(ValueError, match="fitted on index"):
        replace(sign, index_version="0" * 16).judge(index, cloud(1, 19))
    for damage in ({"schema": 9}, {"known": "far"}, {"known": [[1.0]]}, {"k": None}):
        with pytest.raises(ModelError, match=r"run/foreign\.json: cannot be read .* Delete it\."):
            ForeignSign.from_dict({**sign.to_dict(), **damage}, where="run/foreign.json")
