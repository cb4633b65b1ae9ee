"""What the arbiter promises rests on answers to cases that its weights were not fitted on."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gsco.collaboration import Arbiter, Pool
from gsco.collaboration.arbitration import FOLDS, Spoken
from gsco.specialists.conformal import ANSWERED, COVERAGE, ConformalSets, cut_of_share
from gsco.specialists.folds import grouped_folds

Floats = NDArray[np.float64]
KEYS = ("x", "y", "z")


def scene(n: int, seed: int) -> tuple[dict[str, Floats], NDArray[np.int64]]:
    """One voice that knows something and six that know nothing, so that a fit finds luck."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    said = {"good": np.eye(3)[truth] * 0.8 + rng.dirichlet(np.ones(3), n)}
    said |= {f"noise {i}": rng.dirichlet(np.ones(3), n) for i in range(6)}
    return {name: p / p.sum(axis=1, keepdims=True) for name, p in said.items()}, truth


@pytest.fixture(scope="module")
def fitted() -> tuple[Arbiter, Arbiter, Spoken, Spoken, list[str]]:
    """Fitted on 60 cases, two of a patient, alone and with 40 others."""
    (said, truth), (others, known) = scene(60, 1), scene(40, 2)
    patients = [str(i // 2) for i in range(60)]
    own, more = Spoken(said, truth), Spoken({n: p for n, p in others.items() if n != "noise 5"}, known)
    return (
        Arbiter.fit(said, truth, patients, seed=3),
        Arbiter.fit(said, truth, patients, seed=3, more=more),
        own,
        more,
        patients,
    )


def by_hand(own: Spoken, patients: list[str], more: Spoken | None) -> Floats:
    """Each case answered by a pool of other patients' cases, and of the further ones."""
    assigned = grouped_folds(own.targets, patients, folds=FOLDS, seed=3)
    out = np.zeros((len(own.targets), 3))
    for fold in range(FOLDS):
        rest = assigned != fold
        said, truth = {name: p[rest] for name, p in own.said.items()}, own.targets[rest]
        if more is not None:
            silent = np.full((len(more.targets), 3), 1 / 3)
            said = {name: np.vstack([p, more.said.get(name, silent)]) for name, p in said.items()}
            truth = np.append(truth, more.targets)
        held = {name: p[~rest] for name, p in own.said.items()}
        out[~rest] = Pool.fit(said, truth).apply(held)
    return out


@pytest.mark.parametrize("with_more", [False, True])
def test_sets_and_abstention_come_from_cases_held_out_by_patient(
    with_more: bool, fitted: tuple[Arbiter, Arbiter, Spoken, Spoken, list[str]]
) -> None:
    alone, beside, own, more, patients = fitted
    arbiter = beside if with_more else alone
    held = by_hand(own, patients, more if with_more else None)
    assert arbiter.sets == ConformalSets.fit(held, own.targets, coverage=COVERAGE)
    assert arbiter.sets.n == 60  # and never from the further cases
    assert arbiter.abstains_below == cut_of_share(held.max(axis=1), ANSWERED)
    lucky = arbiter.pool.apply(own.said)
    assert ConformalSets.fit(lucky, own.targets, coverage=COVERAGE).threshold > arbiter.sets.threshold


def test_further_cases_count_for_the_weights(
    fitted: tuple[Arbiter, Arbiter, Spoken, Spoken, list[str]],
) -> None:
    alone, beside, own, _, _ = fitted
    assert alone.pool == Pool.fit(own.said, own.targets)
    assert (alone.pool.n, beside.pool.n) == (60, 100)
    assert beside.pool.weights != alone.pool.weights


def test_a_set_begins_with_the_most_probable_option_and_goes_down() -> None:
    arbiter = Arbiter(Pool(("a",), (1.0,), 10), ConformalSets(0.9, 0.15, 10), 0.6)
    answer = arbiter.answer("case", KEYS, {"a": np.array([0.2, 0.1, 0.7])})
    assert (answer.prediction, answer.label_set, answer.abstains) == ("z", ("z", "x"), False)
    unsure = arbiter.answer("case", KEYS, {"a": np.array([0.3, 0.5, 0.2])})
    assert (unsure.prediction, unsure.label_set, unsure.abstains) == ("y", ("y", "x", "z"), True)


def test_just_as_sure_as_the_cut_is_sure_enough() -> None:
    even = {"a": np.array([0.5, 0.5])}
    answer = Arbiter(Pool(("a",), (1.0,), 10), ConformalSets(0.9, 0.9, 10), 0.5).answer("c", ("x", "y"), even)
    assert (answer.prediction, answer.label_set, answer.abstains) == ("x", ("x",), False)
