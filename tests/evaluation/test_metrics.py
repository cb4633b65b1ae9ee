"""Every figure against the library that defines it, and what must hold for unparsed answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from gsco.evaluation import metrics as m

# A loaded machine is no failure.


@st.composite
def answers(draw, unparsed: bool = False):
    k = draw(st.integers(2, 5))
    n = draw(st.integers(1, 40))
    truth = draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    said = draw(st.lists(st.integers(-1 if unparsed else 0, k - 1), min_size=n, max_size=n))
    return np.array(truth), np.array(said), k


@given(answers(unparsed=True))
def test_counted_figures_equal_sklearn(case) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    truth, said, k = case
    present = sorted(set(truth.tolist()))
    assert m.accuracy(truth, said, k) == pytest.approx(sk.accuracy_score(truth, said))
    recalls = sk.recall_score(truth, said, labels=present, average=None, zero_division=0)
    assert m.balanced_accuracy(truth, said, k) == pytest.approx(recalls.mean())
    # An unparsed answer is the label -1 to sklearn: never among the classes averaged, always a miss.
    f1 = sk.f1_score(truth, said, labels=present, average="macro", zero_division=0)
    assert m.macro_f1(truth, said, k) == pytest.approx(f1)
    confusion = m.confusion_matrix(truth, said, k)
    assert confusion.sum() == len(truth)
    assert confusion[:, -1].sum() == (said == -1).sum()
    both = sk.confusion_matrix(truth, said, labels=[*range(k), -1])
    assert (confusion == both[:-1]).all()
    precision = sk.precision_score(truth, said, labels=range(k), average=None, zero_division=np.nan)
    assert_allclose(m.precision_of(confusion), precision)


@given(answers())
def test_quadratic_kappa_is_sklearns(case) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    truth, said, k = case
    found = float(m.quadratic_kappa_of(m.confusion_matrix(truth, said, k)))
    if len({*truth, *said}) == 1:
        assert np.isnan(found)
    else:
        wanted = sk.cohen_kappa_score(truth, said, labels=range(k), weights="quadratic")
        assert found == pytest.approx(wanted, abs=1e-9)


def test_an_unread_grade_is_a_miss_by_the_farthest() -> None:
    unread = float(m.quadratic_kappa_of(m.confusion_matrix([0, 1, 2], [-1, 1, 2], 3)))
    farthest = float(m.quadratic_kappa_of(m.confusion_matrix([0, 1, 2], [2, 1, 2], 3)))
    assert unread == pytest.approx(farthest)


def test_macro_f1_is_sklearns_default_when_all_classes_occur() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    assert m.macro_f1(truth, said, 4) == pytest.approx(sk.f1_score(truth, said, average="macro"), abs=1e-12)
    assert m.balanced_accuracy(truth, said, 4) == pytest.approx(sk.balanced_accuracy_score(truth, said))


@given(answers())
def test_unparsed_never_helps(case) -> None:
    truth, said, k = case
    gone = said.copy()
    right = np.flatnonzero(truth == said)
    if len(right):
        gone[right[0]] = -1
        assert m.accuracy(truth, gone, k) < m.accuracy(truth, said, k)
        assert m.macro_f1(truth, gone, k) < m.macro_f1(truth, said, k)
    wrong = np.flatnonzero(truth != said)
    if len(wrong):  # no false positive for the class that had been said, so never lower
        gone = said.copy()
        gone[wrong[0]] = -1
        assert m.macro_f1(truth, gone, k) >= m.macro_f1(truth, said, k)


def probabilities(rng: np.random.Generator, n: int, k: int, ties: bool) -> np.ndarray:
    p = rng.dirichlet(np.ones(k), size=n)
    if ties:
        p = np.round(p * 5) + 0.1
        p /= p.sum(axis=1, keepdims=True)
    return p


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("k", "task"), [(2, "binary-class"), (3, "multi-class"), (7, "ordinal-regression")])
def test_auc_and_accuracy_equal_medmnist(k: int, task: str, ties: bool) -> None:
    evaluator = pytest.importorskip("medmnist.evaluator")
    rng = np.random.default_rng(k)
    truth, p = rng.permutation(np.arange(150) % k), probabilities(rng, 150, k, ties)
    assert m.auc(truth, p) == pytest.approx(evaluator.getAUC(truth[:, None], p, task), abs=1e-12)
    if k > 2 or not ties:  # at p = .5 exactly medmnist's threshold is the only thing that decides
        assert m.accuracy(truth, p.argmax(axis=1), k) == pytest.approx(
            evaluator.getACC(truth[:, None], p, task)
        )


def test_multi_label_auc_equals_medmnist() -> None:
    evaluator = pytest.importorskip("medmnist.evaluator")
    rng = np.random.default_rng(3)
    truth, p = rng.integers(0, 2, (80, 4)), rng.random((80, 4))
    assert m.auc(truth, p) == pytest.approx(
        evaluator.getAUC(truth, p, "multi-label, binary-class"), abs=1e-12
    )


def test_absent_classes_are_left_out_of_auc() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(4)
    truth, p = rng.integers(0, 2, 60), probabilities(rng, 60, 3, ties=False)
    expected = np.mean([sk.roc_auc_score(truth == k, p[:, k]) for k in (0, 1)])
    assert m.auc(truth, p) == pytest.approx(expected)
    assert np.isnan(m.auc(np.zeros(5, int), probabilities(rng, 5, 2, ties=False)))


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_weighted_auc_is_that_of_repeated_cases_by_both_ways(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 30))
    positive = rng.random(n) < 0.5
    score = rng.integers(0, 4, n).astype(float) if ties else rng.random(n)
    weights = rng.integers(0, 3, (4, n)).astype(float)
    by_pairs = m.binary_auc_of(positive, score, weights)
    kept, m._MOST_PAIRS = m._MOST_PAIRS, -1
    try:
        by_ranks = m.binary_auc_of(positive, score, weights)
    finally:
        m._MOST_PAIRS = kept
    assert_allclose(by_pairs, by_ranks, atol=1e-12)
    for row, area in zip(weights.astype(int), by_pairs, strict=True):
        assert_allclose(m.binary_auc(np.repeat(positive, row), np.repeat(score, row)), area, atol=1e-12)


def test_brier_and_nll_equal_sklearn() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(5)
    truth, p = rng.integers(0, 2, 100), probabilities(rng, 100, 2, ties=False)
    assert m.brier(truth, p) == pytest.approx(2 * sk.brier_score_loss(truth, p[:, 1]))
    truth, p = rng.integers(0, 4, 100), probabilities(rng, 100, 4, ties=False)
    assert m.nll(truth, p) == pytest.approx(sk.log_loss(truth, p, labels=range(4)))
    assert m.brier([0], [[0.0, 1.0]]) == 2.0
    assert m.nll([0], [[0.0, 1.0]]) == pytest.approx(-np.log(1e-12))


def test_ece_by_hand() -> None:
    # Bin (.6, .667]: two cases at .65, one right; bin (.867, .933]: one at .9, right.
    p = [[0.65, 0.35], [0.35, 0.65], [0.9, 0.1]]
    assert m.ece([0, 0, 0], p) == pytest.approx((2 * 0.15 + 0.1) / 3)
    assert m.ece([0, 1], [[1.0, 0.0], [0.0, 1.0]]) == 0.0
    assert m.ece([1, 0], [[1.0, 0.0], [0.0, 1.0]]) == 1.0


def test_ece_bins_are_closed_on_the_right() -> None:
    edges = np.arange(8, 16) / 15
    cells = m.ece_cells(np.zeros(8, int), np.stack([edges, 1 - edges], axis=1))
    assert cells[..., 0].argmax(axis=1).tolist() == list(range(7, 15))


def test_a_calibrated_model_has_small_ece_and_an_overconfident_one_has_not() -> None:
    rng = np.random.default_rng(6)
    p1 = rng.random(20_000)
    truth = (rng.random(20_000) < p1).astype(int)
    p = np.stack([1 - p1, p1], axis=1)
    assert m.ece(truth, p) < 0.02
    sharp = p**4 / (p**4).sum(axis=1, keepdims=True)
    assert m.ece(truth, sharp) > 0.1


@pytest.mark.parametrize(("truth", "said"), [([0, 1], [0]), ([3], [0]), ([0], [3]), ([-1], [0]), ([0], [-2])])
def test_positions_are_checked(truth: list[int], said: list[int]) -> None:
    with pytest.raises(ValueError):
        m.confusion_matrix(truth, said, 3)


def test_nothing_gives_nan_and_no_warning() -> None:
    assert np.isnan(m.accuracy([], [], 3))
    assert np.isnan(m.macro_f1([], [], 3))
