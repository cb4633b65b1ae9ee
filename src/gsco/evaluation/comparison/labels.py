"""Which label of a dataset is which option of a specialist that was trained on another one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gsco.cases import Option
from gsco.cases.medmnist_names import MEDMNIST_2D
from gsco.cases.names import known_set
from gsco.errors import LabelError
from gsco.evaluation.metrics import Floats

if TYPE_CHECKING:
    from gsco.specialists import Specialist


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
    names: Mapping[str, str] | None = None,
    given: Sequence[str] = (),
) -> LabelMap:
    """Match labels and options by key or readable name, without regard to case, blanks and punctuation.

    A key that is a mere number (as MedMNIST's are) means something else in every set and matches nothing.

    Args:
        labels: of the dataset.
        own: option keys of the specialist.
        names: what these options are called, as far as that is known.
        given: ``label=option`` each, for what no name tells; they come before the names.

    Raises:
        LabelError: fewer than two options are mapped, or a given pair names what is not there.
    """
    named = {plain(name): key for key, name in (names or {}).items()} | {plain(key): key for key in own}
    pairs = _given(labels, own, named, given)
    for label in labels:
        said = [text for text in (label.key, label.name) if not _is_number(text)]
        found = next((named[plain(text)] for text in said if plain(text) in named), None)
        if label.key not in pairs and found is not None:
            pairs[label.key] = found
    pairs = {label.key: pairs[label.key] for label in labels if label.key in pairs}
    options = tuple(key for key in own if key in pairs.values())
    if len(options) < 2:
        raise LabelError(
            f"{len(options) or 'none'} of the specialist's options ({_listed(own, names or {})}) "
            f"{'is' if len(options) == 1 else 'are'} found among the labels "
            f"({_listed(*_keys_and_names(labels))}); two are needed",
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


def means_else(labels: Sequence[Option], names: Mapping[str, str]) -> str | None:
    """A key that a dataset and a specialist share though they mean different things by it, else None.

    Args:
        labels: of the dataset.
        names: what the specialist's options are called, as far as that is known.
    """
    for label in labels:
        mine = names.get(label.key, label.key)
        if _is_number(label.key) and not _is_number(mine) and plain(mine) != plain(label.name):
            return f"{label.key!r} is {mine} to the specialist and {label.name} in the data"
    return None


def _is_number(text: str) -> bool:
    return plain(text).isdecimal()


def option_names(specialist: Specialist) -> dict[str, str]:
    """What the options of a specialist are called: as it says itself, or as its public training set does.

    MedMNIST numbers its classes, so there the number is the key. Options of which neither says anything are
    left out: their keys are their names.
    """
    said: Mapping[str, str] | None = getattr(specialist, "names", None)
    if said is not None:
        return dict(said)
    own, trained_on = specialist.options, str(getattr(specialist, "details", {}).get("dataset", ""))
    known, numbered = known_set(trained_on), MEDMNIST_2D.get(re.sub(r"_\d+$", "", trained_on.lower()))
    if known:
        return {key: known.names[key] for key in own if key in known.names}
    if numbered:
        places = range(len(numbered.labels))
        return {key: numbered.name(int(key)) for key in own if key.isdecimal() and int(key) in places}
    return {}


def _listed(keys: Sequence[str], names: Mapping[str, str]) -> str:
    """``0 (normal), 1 (pneumonia)``; a name that is like its key is not said twice."""
    return ", ".join(
        f"{key} ({names[key]})" if key in names and plain(names[key]) != plain(key) else key for key in keys
    )


def _keys_and_names(labels: Sequence[Option]) -> tuple[list[str], dict[str, str]]:
    return [label.key for label in labels], {label.key: label.name for label in labels}


def _given(
    labels: Sequence[Option], own: Sequence[str], named: Mapping[str, str], given: Sequence[str]
) -> dict[str, str]:
    keys = {plain(text): label.key for label in labels for text in (label.name, label.key)}
    pairs: dict[str, str] = {}
    for text in given:
        left, sign, right = text.partition("=")
        label, option = keys.get(plain(left)), named.get(plain(right))
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
