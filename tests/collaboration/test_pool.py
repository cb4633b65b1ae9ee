"""The pool weighs voices by what they add, and its outcome is honest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gsco.collaboration import Arbiter, Evidence, Pool, voices_of
from gsco.collaboration.pool import log_shares
from gsco.evaluation import metrics
from gsco.retrieval import Neighbour
from gsco.specialists import Opinion

Floats = NDArray[np.float64]


def softmax(logits: Floats) -> Floats:
    out = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def scene(n: int, options: int = 3, seed: int = 0) -> tuple[dict[str, Floats], NDArray[np.int64]]:
    """Two voices that know something of their own, one that repeats the first, one that knows nothing."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, options, n)
    hot = np.eye(options)[truth]
    good, other = 1.5 * hot + rng.normal(0, 1, (n, options)), hot + rng.normal(0, 1, (n, options))
    said = {"good": good, "other": other, "echo": good, "noise": rng.normal(0, 1.5, (n, options))}
    return {name: softmax(logits) for name, logits in said.items()}, truth


def test_many_cases_find_out_who_knows_nothing_and_who_repeats() -> None:
    said, truth = scene(4000)
    pool = Pool.fit(said, truth)
    weights = dict(zip(pool.voices, pool.weights, strict=True))
    assert weights["noise"] < 0.05
    assert weights["good"] == pytest.approx(weights["echo"], abs=1e-3)
    assert weights["good"] + weights["echo"] > weights["other"] > 0.5
    p = pool.apply(said)
    assert metrics.ece(truth, p) < 0.03
    assert metrics.nll(truth, p) < min(metrics.nll(truth, q) for q in said.values())


def test_few_cases_stay_near_equal_weights() -> None:
    said, truth = scene(6, seed=1)
    few = Pool.fit(said, truth, evenness=1e6)
    assert np.ptp(few.weights) < 1e-3
    assert Pool.fit({name: p[:0] for name, p in said.items()}, []).weights == (0.25,) * 4


def test_two_options_are_logistic_regression_on_log_odds() -> None:
    """Against scikit-learn, without penalty of either kind (the total's is worth half a case in 3000)."""
    from sklearn.linear_model import LogisticRegression

    said, truth = scene(3000, options=2, seed=2)
    said.pop("echo")
    pool = Pool.fit(said, truth, evenness=0.0)
    odds = np.stack([np.diff(log_shares(p), axis=1)[:, 0] for p in said.values()], axis=1)
    model = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-10, max_iter=1000).fit(odds, truth)
    expected = np.maximum(model.coef_[0], 0)
    assert list(pool.weights) == pytest.approx(expected.tolist(), abs=0.03)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 40), options=st.integers(2, 5))
def test_weights_are_never_negative_and_outcomes_are_probabilities(seed: int, n: int, options: int) -> None:
    said, truth = scene(n, options, seed)
    pool = Pool.fit(said, truth)
    assert min(pool.weights) >= 0
    assert sum(pool.weights) > 0
    p = pool.apply(said)
    assert p.sum(axis=1) == pytest.approx(np.ones(n))
    reordered = Pool.fit(dict(reversed(said.items())), truth)
    assert reordered.apply(said) == pytest.approx(p, abs=1e-4)


def test_voices_that_mislead_are_silenced_and_the_rest_is_even() -> None:
    said, truth = scene(300)
    wrong = {name: np.roll(p, 1, axis=1) for name, p in said.items() if name != "noise"}
    p = Pool.fit(wrong, truth).apply(wrong)
    assert p == pytest.approx(np.full_like(p, 1 / 3), abs=0.01)


def test_a_silent_voice_moves_nothing_and_an_unknown_one_is_not_heard() -> None:
    pool = Pool(("a", "b"), (1.0, 1.0), 10)
    alone = pool.apply({"a": np.array([0.7, 0.3])})
    even = pool.apply({"a": np.array([0.7, 0.3]), "b": np.array([0.5, 0.5]), "c": np.array([0.0, 1.0])})
    assert alone == pytest.approx(even)


def test_no_voice_has_a_veto() -> None:
    pool = Pool(("a", "b", "c"), (1.0, 1.0, 1.0), 10)
    p = pool.apply({"a": np.array([1.0, 0.0]), "b": np.array([0.1, 0.9]), "c": np.array([0.02, 0.98])})
    assert 0.2 < p[0] < 0.5


def test_voices_of_evidence() -> None:
    neighbours = tuple(Neighbour(str(i), 0.9, (label,), "d", "v") for i, label in enumerate("aab"))
    voices = voices_of(Evidence((Opinion("knn", (0.9, 0.1)),), neighbours), ("a", "b"), (0.2, 0.8))
    assert list(voices) == ["specialist:knn", "neighbour_vote", "generalist"]
    assert voices["neighbour_vote"].tolist() == pytest.approx([2.5 / 4, 1.5 / 4])
    assert list(voices_of(Evidence((Opinion("knn", (0.9, 0.1)),)), ("a", "b"))) == ["specialist:knn"]


def test_the_arbiter_covers_new_cases_and_abstains_on_the_unsure() -> None:
    said, truth = scene(1500, seed=5)
    keys = ("x", "y", "z")
    fitted = {name: p[:300] for name, p in said.items()}
    arbiter = Arbiter.fit(fitted, truth[:300], [str(i // 2) for i in range(300)])
    answers = [
        arbiter.answer(str(i), keys, {name: p[i] for name, p in said.items()}) for i in range(300, 1500)
    ]
    held = np.mean([keys[t] in (a.label_set or ()) for t, a in zip(truth[300:], answers, strict=True)])
    assert held == pytest.approx(0.9, abs=0.06)
    left = np.array([bool(a.abstains) for a in answers])
    assert left.mean() == pytest.approx(0.2, abs=0.08)
    right = np.array([keys[t] == a.prediction for t, a in zip(truth[300:], answers, strict=True)])
    assert right[~left].mean() > right.mean() > right[left].mean()
    for a in answers[:50]:
        assert a.probabilities is not None
        assert a.label_set
        assert a.label_set[0] == a.prediction == max(a.probabilities, key=a.probabilities.__getitem__)
    assert Arbiter.from_dict(arbiter.to_dict()) == arbiter


@pytest.mark.parametrize("n", [0, 1, 2])
def test_an_arbiter_of_hardly_any_cases_lets_every_option_in(n: int) -> None:
    said, truth = scene(3)
    arbiter = Arbiter.fit({name: p[:n] for name, p in said.items()}, truth[:n], list("abc")[:n])
    answer = arbiter.answer("new", ("x", "y", "z"), {name: p[2] for name, p in said.items()})
    assert sorted(answer.label_set or ()) == ["x", "y", "z"]
