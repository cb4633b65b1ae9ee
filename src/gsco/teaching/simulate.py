"""Simulated evidence of known reliability, for teaching a generalist when to trust whom.

Nothing here is a result: simulated evidence enters training records only (and tests). Each simulated
specialist has a skill; its logits are a shared difficulty of the case, plus its own noise, plus its
skill on the true option, so specialists err together as real ones do. The reliability that a prompt
states is what that skill achieves, measured by the same simulation.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gsco.collaboration.evidence import Evidence
from gsco.retrieval import Neighbour
from gsco.specialists import Opinion

_SHARED = 0.7  # standard deviation of the noise that all specialists of a case share
_OWN = 0.8  # standard deviation of each specialist's own noise
_CONSTANCY = 4.0  # how little the share of true neighbours varies from case to case
_VOTES = 600  # simulated votes from which their accuracy is read


def _logits(
    rng: np.random.Generator, truth: int, n_options: int, skills: NDArray[np.float64]
) -> NDArray[np.float64]:
    shared = rng.normal(0.0, _SHARED, n_options)
    own = rng.normal(0.0, _OWN, (len(skills), n_options))
    logits = shared + own
    logits[:, truth] += skills
    return logits


@lru_cache(maxsize=4096)
def _accuracy(skill_step: int, n_options: int) -> float:
    rng = np.random.default_rng([7, skill_step, n_options])
    noise = rng.normal(0.0, np.hypot(_SHARED, _OWN), (2000, n_options))
    noise[:, 0] += skill_step / 10
    return float((noise.argmax(axis=1) == 0).mean())


def stated_reliability(skill: float, n_options: int) -> float:
    """Accuracy in [0, 1] that a simulated specialist of this skill reaches over `n_options` options."""
    return _accuracy(round(skill * 10), n_options)


def simulate_opinions(
    rng: np.random.Generator,
    truth: int,
    n_options: int,
    n_specialists: int,
    *,
    skill: tuple[float, float] = (0.4, 5.0),
) -> tuple[Opinion, ...]:
    """Opinions of `n_specialists` about a case whose true option is `truth`.

    Args:
        rng: source of randomness.
        truth: position of the true option.
        n_options: how many options there are.
        n_specialists: how many opinions.
        skill: range from which the team's level is drawn; members vary around it.
    """
    level = rng.uniform(*skill)
    skills = np.clip(level + rng.normal(0.0, 0.7, n_specialists), 0.0, 8.0)
    logits = _logits(rng, truth, n_options, skills)
    # With Gaussian logits this sharpness makes the softmax the true posterior, the jitter a little off.
    sharpness = np.maximum(skills / (_SHARED**2 + _OWN**2), 0.3) * rng.lognormal(0.0, 0.25, n_specialists)
    scaled = logits * sharpness[:, None]
    p = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return tuple(
        Opinion(
            specialist=f"specialist {i + 1}",
            probabilities=tuple(float(x) for x in row),
            reliability=float(np.clip(stated_reliability(s, n_options) + rng.normal(0, 0.03), 0, 1)),
        )
        for i, (row, s) in enumerate(zip(p, skills, strict=True))
    )


def with_dissenter(
    rng: np.random.Generator, opinions: tuple[Opinion, ...], truth: int
) -> tuple[Opinion, ...]:
    """The same team, one member of which is as sure of another option as it was of the true one."""
    wrong = [i for i in range(len(opinions[0].probabilities)) if i != truth]
    if not wrong:
        return opinions
    who, other = int(rng.integers(len(opinions))), int(rng.choice(wrong))
    p = list(opinions[who].probabilities)
    p[truth], p[other] = p[other], p[truth]
    return (*opinions[:who], replace(opinions[who], probabilities=tuple(p)), *opinions[who + 1 :])


def simulate_bluff(rng: np.random.Generator, n_options: int, n_specialists: int) -> tuple[Opinion, ...]:
    """Specialists who agree, are sure of themselves, and whose stated reliability is chance.

    What they say is drawn without a look at the truth: only the image can tell.
    """
    said = int(rng.integers(n_options))
    logits = rng.normal(0.0, _OWN, (n_specialists, n_options))
    logits[:, said] += rng.uniform(2.0, 5.0, n_specialists)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return tuple(
        Opinion(
            f"specialist {i + 1}",
            tuple(float(x) for x in row),
            float(np.clip(1 / n_options + rng.normal(0, 0.04), 0, 1)),
        )
        for i, row in enumerate(p)
    )


def simulate_neighbours(
    rng: np.random.Generator, truth: int, keys: tuple[str, ...], n_neighbours: int, quality: float
) -> tuple[Neighbour, ...]:
    """Labels of the most similar known cases, one confusable option leading the wrong ones.

    Args:
        rng: source of randomness.
        truth: position of the true option.
        keys: option keys.
        n_neighbours: how many.
        quality: mean share of neighbours that carry the true label, in (0, 1); it varies from case to case.
    """
    positions = _labels(rng, truth, len(keys), n_neighbours, quality)
    return tuple(
        Neighbour(f"case {rank + 1}", float(0.95 - 0.02 * rank), (keys[p],), "simulated", "simulated")
        for rank, p in enumerate(positions)
    )


def _labels(
    rng: np.random.Generator, truth: int, n_options: int, n_neighbours: int, quality: float
) -> list[int]:
    others = [i for i in range(n_options) if i != truth]
    share = float(rng.beta(_CONSTANCY * quality, _CONSTANCY * (1 - quality)))
    confusable = int(rng.choice(others)) if others else truth
    out = []
    for _ in range(n_neighbours):
        if rng.random() < share or not others:
            out.append(truth)
        else:
            out.append(confusable if rng.random() < 0.7 else int(rng.choice(others)))
    return out


@lru_cache(maxsize=4096)
def _vote_accuracy(quality_step: int, n_options: int, n_neighbours: int) -> float:
    rng = np.random.default_rng([11, quality_step, n_options, n_neighbours])
    right = 0.0
    for _ in range(_VOTES):
        votes = np.bincount(_labels(rng, 0, n_options, n_neighbours, quality_step / 20), minlength=n_options)
        winners = np.flatnonzero(votes == votes.max())
        right += float(0 in winners) / len(winners)
    return right / _VOTES


def vote_reliability(quality: float, n_options: int, n_neighbours: int) -> float:
    """Accuracy in [0, 1] that the vote of simulated neighbours of this quality reaches."""
    step = min(max(round(quality * 20), 1), 19)
    return _vote_accuracy(step, n_options, n_neighbours)


def simulate_evidence(
    rng: np.random.Generator,
    truth: int,
    keys: tuple[str, ...],
    *,
    opinions: bool = True,
    neighbours: bool = True,
    skill: tuple[float, float] = (0.4, 5.0),
    quality: tuple[float, float] = (0.25, 0.95),
) -> Evidence:
    """Evidence about one case; sizes vary (1-6 specialists, 3-15 neighbours).

    Args:
        rng: source of randomness.
        truth: position of the true option.
        keys: option keys.
        opinions, neighbours: which parts to make.
        skill: see `simulate_opinions`.
        quality: range from which that of the neighbours is drawn; see `simulate_neighbours`.
    """
    n_specialists = int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.05, 0.1, 0.2, 0.35, 0.2, 0.1]))
    n_neighbours = int(rng.choice([3, 5, 8, 10, 15], p=[0.1, 0.2, 0.1, 0.5, 0.1]))
    level = float(rng.uniform(*quality))
    known = vote_reliability(level, len(keys), n_neighbours) + float(rng.normal(0, 0.03))
    return Evidence(
        opinions=simulate_opinions(rng, truth, len(keys), n_specialists, skill=skill) if opinions else (),
        neighbours=simulate_neighbours(rng, truth, keys, n_neighbours, level) if neighbours else (),
        neighbour_reliability=float(np.clip(known, 0, 1)) if neighbours else None,
    )
