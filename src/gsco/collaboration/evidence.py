"""`Evidence`: what is known about one case before the generalist speaks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gsco.retrieval import Foreignness, Neighbour
from gsco.specialists import Opinion


@dataclass(frozen=True, slots=True)
class Evidence:
    """Opinions of the specialists and the most similar known cases, about one case.

    Attributes:
        opinions: one per specialist, probabilities in the task's option order.
        neighbours: most similar first.
        neighbour_reliability: balanced accuracy of their vote on validation, in [0, 1], where known.
        foreignness: how far the image is from all known cases, where known. No template speaks of it.
    """

    opinions: tuple[Opinion, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    neighbour_reliability: float | None = None
    foreignness: Foreignness | None = None

    def votes(self, n_options: int) -> NDArray[np.int64]:
        """How many specialists choose each option, shape (n_options,)."""
        counts = np.zeros(n_options, dtype=np.int64)
        for opinion in self.opinions:
            counts[opinion.choice] += 1
        return counts

    def mean_probability(self) -> NDArray[np.float64]:
        """Mean of the opinions' probabilities, shape (n_options,); ValueError without opinions."""
        if not self.opinions:
            raise ValueError("no opinions to average")
        stacked = np.asarray([o.probabilities for o in self.opinions], dtype=np.float64)
        return np.asarray(stacked.mean(axis=0))

    def neighbour_votes(self, keys: tuple[str, ...]) -> NDArray[np.int64]:
        """How many neighbours carry each option key, shape (len(keys),)."""
        counts = Counter(label for neighbour in self.neighbours for label in neighbour.labels)
        return np.asarray([counts.get(key, 0) for key in keys], dtype=np.int64)

    def majority(self, n_options: int) -> int:
        """The option with most specialists' votes; ties go to the higher mean probability."""
        votes = self.votes(n_options)
        mean = self.mean_probability()
        return int(max(range(n_options), key=lambda i: (votes[i], mean[i], -i)))

    def neighbour_choice(self, keys: tuple[str, ...]) -> int:
        """The option most neighbours carry; ties go to the larger summed similarity, then the earlier."""
        votes = self.neighbour_votes(keys)
        weight = np.zeros(len(keys))
        for neighbour in self.neighbours:
            for label in neighbour.labels:
                if label in keys:
                    weight[keys.index(label)] += neighbour.similarity
        return int(max(range(len(keys)), key=lambda i: (votes[i], weight[i], -i)))

    def disagreement(self) -> float | None:
        """How much the specialists' probabilities differ, in [0, 1]; None with fewer than two of them.

        The generalised Jensen-Shannon divergence (Lin, 1991), the entropy of the mean less the mean
        entropy, over its largest value, log min(specialists, options). 0: all say the same.
        """
        if len(self.opinions) < 2:
            return None
        stacked = np.asarray([o.probabilities for o in self.opinions], dtype=np.float64)
        most = np.log(min(stacked.shape))
        spread = _entropy(stacked.mean(axis=0)) - float(np.mean([_entropy(row) for row in stacked]))
        return float(np.clip(spread / most, 0.0, 1.0)) if most > 0 else 0.0

    @property
    def conflict(self) -> bool:
        """Whether the specialists choose different options."""
        return len({opinion.choice for opinion in self.opinions}) > 1


def _entropy(p: NDArray[np.float64]) -> float:
    some = p[p > 0]
    return float(-(some * np.log(some)).sum())
