"""The choice of a team: it keeps who does no harm, drops who does, and is not fooled by small sets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsco.collaboration import team as team_module
from gsco.collaboration.team import Team, choose_team, mean_of


def voice(rng: np.random.Generator, truth: np.ndarray, skill: float, k: int = 3) -> np.ndarray:
    """Probabilities of a specialist whose logits are truth times skill plus noise."""
    logits = skill * np.eye(k)[truth] + rng.normal(size=(len(truth), k))
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True)


def wrong(truth: np.ndarray, k: int = 3) -> np.ndarray:
    """Sure of the wrong option, always."""
    return 0.02 + 0.94 * np.eye(k)[(truth + 1) % k]


def f1_loss(p: np.ndarray, truth: np.ndarray) -> float:
    return float(-np.log(p[np.arange(len(truth)), truth]).mean())


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 3, 300)


def test_good_independent_voices_all_speak(truth: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    spoken = {name: voice(rng, truth, 1.5) for name in "abcd"}
    found = choose_team(spoken, truth)
    assert found.members == ("a", "b", "c", "d")
    assert not found.left_out
    assert found.tried == 15
    assert "All specialists" in found.reason


def test_a_harmful_voice_is_left_out_and_its_cost_is_told(truth: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    spoken = {"a": voice(rng, truth, 2), "liar": wrong(truth), "b": voice(rng, truth, 2)}
    found = choose_team(spoken, truth)
    assert found.members == ("a", "b")
    cost, error = found.left_out["liar"]
    together = choose_team({"a": spoken["a"], "b": spoken["b"]}, truth)
    assert found.loss == pytest.approx(together.loss)
    assert cost > team_module.MARGIN * error > 0
    assert f"liar (+{cost:.3f} ± {error:.3f})" in found.reason


def test_the_margin_is_what_keeps_the_lucky_subset_from_winning() -> None:
    rng = np.random.default_rng(3)
    few = rng.integers(0, 3, 40)
    spoken = {name: voice(rng, few, 1.0) for name in "abcde"}
    greedy, careful = choose_team(spoken, few, margin=0), choose_team(spoken, few)
    assert greedy.members == greedy.best_members == careful.best_members
    assert len(greedy.members) < len(careful.members)
    assert greedy.loss == greedy.best_loss <= careful.loss
    fresh = rng.integers(0, 3, 4000)
    new = {name: voice(rng, fresh, 1.0) for name in "abcde"}
    assert f1_loss(careful.probabilities(new), fresh) < f1_loss(greedy.probabilities(new), fresh)


def test_the_lowest_is_the_lowest_of_all_subsets(truth: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    spoken = {name: voice(rng, truth, s) for name, s in zip("abcd", (0.2, 2.0, 0.1, 1.2), strict=True)}
    found = choose_team(spoken, truth, margin=0)
    losses = {}
    for size in range(1, 5):
        for names in combinations("abcd", size):
            one = choose_team({"x": mean_of([spoken[name] for name in names])}, truth)
            losses[names] = one.loss
    assert found.best_members == min(losses, key=losses.__getitem__)
    assert found.best_loss == pytest.approx(min(losses.values()))


def test_cases_of_one_patient_do_not_count_twice() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, 3, 12), 25)
    each = voice(rng, truth[::25], 1.5)
    poor = voice(rng, truth[::25], 0.8)
    spoken = {"a": np.repeat(each, 25, axis=0), "b": np.repeat(poor, 25, axis=0)}
    alone = choose_team(spoken, truth)
    patients = choose_team(spoken, truth, [i // 25 for i in range(300)])
    assert alone.members == ("a",)
    assert patients.members == ("a", "b"), "12 patients tell less than 300 independent cases"


def test_the_team_answers_by_its_calibrated_mean(truth: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    spoken = {name: voice(rng, truth, 1.5) for name in "ab"}
    found = choose_team(spoken, truth)
    p = found.probabilities(spoken)
    mean = (spoken["a"] + spoken["b"]) / 2
    assert np.array_equal(p.argmax(axis=1), mean.argmax(axis=1))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert f1_loss(p, truth) == pytest.approx(found.loss)
    assert found.loss < f1_loss(mean, truth)


def test_many_specialists_are_searched_greedily(truth: np.ndarray) -> None:
    rng = np.random.default_rng(4)
    spoken = {f"s{i}": voice(rng, truth, 1.2) for i in range(8)} | {
        f"liar{i}": wrong(truth) for i in range(4)
    }
    found = choose_team(spoken, truth)
    assert found.tried < 200
    assert not [name for name in found.members if name.startswith("liar")]
    assert len(found.members) >= 7


def test_without_bounds_all_are_taken(truth: np.ndarray) -> None:
    spoken = {"a": voice(np.random.default_rng(0), truth, 1), "liar": wrong(truth)}
    assert choose_team(spoken, truth, margin=np.inf).members == ("a", "liar")
    assert choose_team({"a": spoken["a"]}, truth, margin=np.inf).members == ("a",)


def test_one_specialist_is_a_team_of_one(truth: np.ndarray) -> None:
    found = choose_team({"a": voice(np.random.default_rng(0), truth, 1)}, truth)
    assert found.members == ("a",)
    assert "there is no other" in found.reason


def test_what_does_not_fit_is_refused(truth: np.ndarray) -> None:
    p = voice(np.random.default_rng(0), truth, 1)
    for spoken, targets in (({}, truth), ({"a": p}, truth[:0]), ({"a": p}, truth[:5])):
        with pytest.raises(ValueError, match=r"team|fit"):
            choose_team(spoken, targets)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 30))
def test_the_choice_is_within_the_margin_and_does_not_depend_on_the_order(seed: int, k: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    spoken = {f"s{i}": voice(rng, truth, rng.uniform(0, 3), 2) for i in range(k)}
    found: Team = choose_team(spoken, truth)
    again = choose_team(dict(reversed(spoken.items())), truth)
    assert set(found.members) == set(again.members)
    assert found.best_loss <= found.loss + 1e-12
    assert set(found.members) | set(found.left_out) == set(spoken)


def test_several_labels_are_as_many_questions_of_one_patient() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, (60, 3))
    spoken = {
        n: np.clip(0.5 + s * (truth - 0.5) + rng.normal(0, 0.1, truth.shape), 0.02, 0.98)
        for n, s in (("a", 0.6), ("b", 0.5), ("liar", -0.8))
    }
    found = choose_team(spoken, truth, [i // 2 for i in range(60)])
    assert found.members == ("a", "b")
    assert found.n == 60
    p = found.probabilities(spoken)
    assert p.shape == truth.shape
    right = np.where(truth, p, 1 - p)
    assert -np.log(right).mean() == pytest.approx(found.loss)
