"""Which label of a dataset is which option of a specialist that was trained on another one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gsco.cases import Option
from gsco.cases.names import known_set
from gsco.errors import LabelError
from gsco.evaluation.metrics import Floats


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Labels of a dataset as options of a specialist.

    Attributes:
        pairs: dataset label → specialist option; several labels may mean one option.
        options: the mapped options, in the specialist's order.
        dropped_labels: labels of the dataset that are none of the options; their cases are left out.
        dropped_options: options of the specialist that are no label; their probability is left out.
    """

    pairs: Mapping[str, str]
    options: tuple[str, ...]
    dropped_labels: tuple[str, ...]
    dropped_options: tuple[str, ...]

    def restrict(self, probabilities: Floats, own: Sequence[str]) -> Floats:
        """Probabilities given that one of the mapped options is right: p(option) / their sum.

        Args:
            probabilities: (n, all options of the specialist).
            own: the specialist's options in that order.

        Returns:
            (n, mapped options), rows summing to 1; equal shares where the mapped ones have none.
        """
        kept = np.asarray(probabilities, dtype=np.float64)[:, [list(own).index(key) for key in self.options]]
        total = kept.sum(axis=1, keepdims=True)
        equal = np.full_like(kept, 1 / kept.shape[1])
        return np.asarray(np.divide(kept, total, out=equal, where=total > 0))

    def to_json(self) -> dict[str, object]:
        """Plain values, for a result file."""
        return {
            "mapped": dict(self.pairs),
            "dropped_labels": list(self.dropped_labels),
            "dropped_options": list(self.dropped_options),
        }


def map_labels(
    labels: Sequence[Option],
    own: Sequence[str],
    *,
    trained_on: str = "",
    given: Sequence[str] = (),
) -> LabelMap:
    """Match labels and options by key or readable name, without regard to case, blanks and punctuation.

    Args:
        labels: of the dataset.
        own: option keys of the specialist.
        trained_on: name of the set it was trained on; the catalogue may know its readable names.
        given: ``label=option`` each, for what no name tells; they come before the names.

    Raises:
        LabelError: fewer than two options are mapped, or a given pair names what is not there.
    """
    pairs = _given(labels, own, given)
    known = known_set(trained_on)
    named = {plain(known.names[key]): key for key in own if known and key in known.names}
    named |= {plain(key): key for key in own}
    for label in labels:
        if label.key not in pairs:
            found = named.get(plain(label.key)) or named.get(plain(label.name))
            if found is not None:
                pairs[label.key] = found
    pairs = {label.key: pairs[label.key] for label in labels if label.key in pairs}
    options = tuple(key for key in own if key in pairs.values())
    if len(options) < 2:
        raise LabelError(
            f"{len(options) or 'none'} of the specialist's options ({', '.join(own)}) "
            f"{'is' if len(options) == 1 else 'are'} found among the labels "
            f"({', '.join(label.key for label in labels)}); two are needed",
            remedy="Say which label means which option: --map LABEL=OPTION.",
        )
    return LabelMap(
        pairs,
        options,
        tuple(label.key for label in labels if label.key not in pairs),
        tuple(key for key in own if key not in options),
    )


def plain(text: str) -> str:
    """``No_Finding`` and ``no finding`` are one: lower case, letters and digits, single blanks."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\W_]+", " ", folded).strip() or folded


def _given(labels: Sequence[Option], own: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    keys = {plain(text): label.key for label in labels for text in (label.name, label.key)}
    options = {plain(key): key for key in own}
    pairs: dict[str, str] = {}
    for text in given:
        left, sign, right = text.partition("=")
        label, option = keys.get(plain(left)), options.get(plain(right))
        if not sign or label is None or option is None:
            missing = (
                "it is no LABEL=OPTION"
                if not sign
                else f"the data have no label {left.strip()!r}"
                if label is None
                else f"the specialist has no option {right.strip()!r}"
            )
            raise LabelError(
                f"--map {text}: {missing}",
                remedy=f"Labels: {', '.join(item.key for item in labels)}. Options: {', '.join(own)}.",
            )
        if pairs.setdefault(label, option) != option:
            raise LabelError(f"--map gives the label {label!r} twice", remedy="Give each label once.")
    return pairs
