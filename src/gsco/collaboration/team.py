"""Which specialists should speak together: the team whose mean probability serves best, chosen on validation.

The search for the *best* subset on a small validation set finds luck: of the 31 subsets of five
specialists the lowest loss is partly noise, and means of few are what it favours. So the search only
tells how good a subset may be, and the choice is the *largest* team that is not worse than that one
beyond noise (the rule of Breiman et al., 1984, with averaging over more voices as the simpler model). A
specialist is left out only where the validation cases show that it costs something.

Each subset is judged by the log loss of its mean *after* a temperature: a mean of specialists that
disagree is less sure than it might be, and without the temperature every further voice would be
punished for that. Where a case may have several labels, each label of each case is a question of its own,
answered by yes or no; patients stay the unit.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from gsco.collaboration.temperature import Temperature

Floats = NDArray[np.float64]
MARGIN = 2.0
"""Standard errors of the paired difference that a team may lie behind the best subset."""
EXHAUSTIVE = 8
"""Most specialists whose subsets are all tried; above, subsets are grown and pruned greedily."""
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Team:
    """Specialists whose mean probability, made honest by a temperature, is one answer.

    Attributes:
        members: names, in the order they were given.
        temperature: of the mean, fitted on validation; it changes no answer.
        loss: log loss on validation in nats, after the temperature.
        best_members: the subset with the lowest loss on validation.
        best_loss: its loss.
        left_out: of each specialist that is no member, by how much the loss on validation would rise with
            it, and the standard error of that, both in nats.
        n: validation cases.
        tried: subsets that were judged.
        multi_label: whether a case may have several labels.
    """

    members: tuple[str, ...]
    temperature: Temperature
    loss: float
    best_members: tuple[str, ...]
    best_loss: float
    left_out: Mapping[str, tuple[float, float]]
    n: int
    tried: int
    multi_label: bool = False

    def probabilities(self, spoken: Mapping[str, Floats]) -> Floats:
        """The team's answer from its members' probabilities, each (n, options): (n, options)."""
        mean = mean_of([spoken[name] for name in self.members])
        if self.multi_label:
            return self.temperature.apply(_no_or_yes(mean))[..., 1]
        return self.temperature.apply(mean)

    @property
    def reason(self) -> str:
        """Why these, in a sentence or two."""
        cases = f"on {self.n} validation cases"
        if not self.left_out:
            found = "no smaller team is better beyond noise" if len(self.members) > 1 else "there is no other"
            return f"All specialists: {cases}, {found}."
        costs = [f"{name} (+{cost:.3f} ± {error:.3f})" for name, (cost, error) in self.left_out.items()]
        return (
            f"The largest team whose log loss {cases} is not above the lowest of any subset beyond noise. "
            f"Left out, with what each would add to the loss: {', '.join(costs)}."
        )


def choose_team(
    spoken: Mapping[str, Floats],
    targets: Sequence[int] | NDArray[np.int64],
    clusters: Sequence[Hashable] | None = None,
    *,
    margin: float = MARGIN,
) -> Team:
    """Choose a team on validation cases.

    Args:
        spoken: of each specialist, its probabilities of n validation cases, (n, options).
        targets: n true option positions; where a case may have several labels, 0/1 of shape (n, options).
        clusters: unit that is independent (patient) of each case; each case its own when None.
        margin: standard errors (of the paired difference, over clusters) that the team may lie behind the
            subset with the lowest loss; 0 chooses that subset.

    Returns:
        The team. Where there is one specialist, or less than two clusters, it is all of them.

    Raises:
        ValueError: no specialist, no case, or shapes that do not fit.
    """
    names, truth = tuple(spoken), np.asarray(targets, dtype=np.int64)
    if not names or not len(truth):
        raise ValueError("a team is chosen among specialists, on validation cases")
    table = np.stack([np.asarray(spoken[name], dtype=np.float64) for name in names])
    if table.ndim != 3 or table.shape[1] != len(truth):
        raise ValueError(f"probabilities of shape {table.shape} do not fit {len(truth)} cases")
    unit = np.arange(len(truth)) if clusters is None else _numbered(clusters)
    n, several = len(truth), truth.ndim == 2
    if several:
        unit = np.repeat(unit, table.shape[2])
        table, truth = _no_or_yes(table).reshape(len(names), -1, 2), truth.reshape(-1)
    search = _Search(table, truth, unit)
    everyone = tuple(range(len(names)))
    for subset in _subsets(search, len(names)):
        search.cost(subset)
    lowest = min(search.costs, key=lambda subset: (search.loss(subset), -len(subset), subset))
    allowed = [subset for subset in search.costs if search.not_worse(subset, lowest, margin)]
    chosen = min(allowed, key=lambda subset: (-len(subset), search.loss(subset), subset))
    if search.n_clusters < 2:
        chosen = everyone
    added = {
        names[i]: search.difference(tuple(sorted((*chosen, i))), chosen) for i in everyone if i not in chosen
    }
    return Team(
        members=tuple(names[i] for i in chosen),
        temperature=search.temperature(chosen),
        loss=search.loss(chosen),
        best_members=tuple(names[i] for i in lowest),
        best_loss=search.loss(lowest),
        left_out=added,
        n=n,
        tried=len(search.costs),
        multi_label=several,
    )


def mean_of(members: Iterable[Floats]) -> Floats:
    """Mean of the members' probabilities, each (n, options)."""
    return np.asarray(np.mean(np.stack(list(members)), axis=0))


def _no_or_yes(probabilities: Floats) -> Floats:
    """The probability of each label, by itself, as that of two options: (...) → (..., 2)."""
    return np.stack([1 - probabilities, probabilities], axis=-1)


class _Search:
    """Losses of subsets, each computed once, as sums over clusters."""

    def __init__(self, table: Floats, truth: NDArray[np.int64], unit: NDArray[np.int64]) -> None:
        self._table, self._truth, self._unit = table, truth, unit
        self.n_clusters = int(unit.max()) + 1
        self.costs: dict[tuple[int, ...], Floats] = {}

    def temperature(self, subset: tuple[int, ...]) -> Temperature:
        """Fitted to the mean of a subset."""
        return Temperature.fit(mean_of(self._table[list(subset)]), self._truth)

    def cost(self, subset: tuple[int, ...]) -> Floats:
        """What each cluster adds to the mean log loss, (clusters,)."""
        if subset not in self.costs:
            mean = mean_of(self._table[list(subset)])
            calm = Temperature.fit(mean, self._truth).apply(mean)
            picked = calm[np.arange(len(self._truth)), self._truth]
            out = np.zeros(self.n_clusters)
            np.add.at(out, self._unit, -np.log(np.maximum(picked, _TINY)) / len(self._truth))
            self.costs[subset] = out
        return self.costs[subset]

    def loss(self, subset: tuple[int, ...]) -> float:
        """Mean log loss in nats."""
        return float(self.cost(subset).sum())

    def difference(self, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[float, float]:
        """Loss of a less that of b, and its standard error over clusters."""
        each = self.cost(a) - self.cost(b)
        n = len(each)
        spread = np.sqrt(((each - each.mean()) ** 2).sum() * n / max(1, n - 1))
        return float(each.sum()), float(spread)

    def not_worse(self, subset: tuple[int, ...], best: tuple[int, ...], margin: float) -> bool:
        behind, error = self.difference(subset, best)
        return subset == best or behind <= margin * error + _TINY


def _subsets(search: _Search, n: int) -> Iterable[tuple[int, ...]]:
    """All subsets of few; of many, those met when a team is pruned from all, or grown from the best one."""
    if n <= EXHAUSTIVE:
        return [chosen for size in range(1, n + 1) for chosen in combinations(range(n), size)]
    met: dict[tuple[int, ...], None] = {}
    team: tuple[int, ...] = tuple(range(n))
    met[team] = None
    while len(team) > 1:
        fewer = [tuple(i for i in team if i != gone) for gone in team]
        met.update(dict.fromkeys(fewer))
        team = min(fewer, key=search.loss)
    while len(team) < n:
        more = [tuple(sorted((*team, new))) for new in range(n) if new not in team]
        met.update(dict.fromkeys(more))
        team = min(more, key=search.loss)
    return list(met)


def _numbered(clusters: Sequence[Hashable]) -> NDArray[np.int64]:
    seen: dict[Hashable, int] = {}
    return np.asarray([seen.setdefault(cluster, len(seen)) for cluster in clusters], dtype=np.int64)
