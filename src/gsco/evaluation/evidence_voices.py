"""Whom evidence is asked of: specialists by folder or by recipe, and how each speaks about training cases."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsco.cases.hashing import file_hash
from gsco.cases.paths import expanded
from gsco.errors import ModelError, UserError
from gsco.evaluation.parts import check_recipes
from gsco.evaluation.runfolder import normal_path


@dataclass(frozen=True, slots=True)
class Asked:
    """One specialist that is asked for evidence.

    Attributes:
        name: its name, unique among those asked.
        recipe: by which it is (or would be) trained.
        folder: where it stands; None where it is to be trained.
        size / pad: of its input in pixels, where the folder says so; a pad of 0 is none.
        fingerprint: hash of the folder's content; None where it is to be trained.
        unseen: it never saw the dataset's training cases, so it speaks about them itself.
    """

    name: str
    recipe: str
    folder: Path | None = None
    size: int | None = None
    pad: int | None = None
    fingerprint: str | None = None
    unseen: bool = False

    def to_json(self) -> dict[str, Any]:
        """JSON values, the same on every call."""
        return {
            "name": self.name,
            "recipe": self.recipe,
            "folder": None if self.folder is None else str(self.folder),
            "size": self.size,
            "pad": self.pad,
            "fingerprint": self.fingerprint,
            "unseen": self.unseen,
        }


def resolve(
    specialists: Sequence[Path | str], options: tuple[str, ...], unseen: Collection[str] = ()
) -> tuple[Asked, ...]:
    """Look up folders and recipes before anything costly is done.

    Args:
        specialists: folders of specialists, or recipes to train by.
        options: the task's option keys.
        unseen: names of those that never saw the training cases.

    Raises:
        ModelError: neither a folder nor a recipe, other options, or one whose recipe cannot be repeated.
        UserError: none, or a name twice, or an `unseen` that is not among them.
    """
    if not specialists:
        raise UserError("no specialist is named", remedy="Give at least one folder or recipe.")
    asked = [_one(given, options, unseen) for given in specialists]
    names = [each.name for each in asked]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two specialists are named {name!r}", remedy="Give each of them once.")
    for name in unseen:
        if name not in names:
            raise UserError(
                f"there is no specialist {name!r} to be unseen", remedy=f"Choose of: {', '.join(names)}."
            )
    return tuple(asked)


def _one(given: Path | str, options: tuple[str, ...], unseen: Collection[str]) -> Asked:
    from gsco.specialists.loading import read_config
    from gsco.specialists.registry import safe_name

    folder = expanded(given)
    if not folder.is_dir():
        recipe = str(given)
        if isinstance(given, Path) or "/" in recipe.partition(":")[0]:
            raise ModelError("there is no such specialist", where=recipe, remedy="Give a folder or a recipe.")
        check_recipes([recipe], "embedded")
        name = safe_name(recipe)
        return Asked(name, recipe, unseen=name in unseen)
    config = read_config(folder)
    name, recipe = str(config["name"]), str(config["recipe"])
    if config.get("multi_label"):
        raise ModelError(
            "says several labels a case, while the data have one",
            where=str(folder),
            remedy="Give specialists that were trained on one label a case.",
        )
    if set(config["options"]) != set(options):
        raise ModelError(
            f"speaks of {', '.join(config['options'])}, while the data have {', '.join(options)}",
            where=str(folder),
            remedy="Give specialists with the options of the data.",
        )
    if name not in unseen:
        imported = (config.get("details") or {}).get("imported")
        try:
            if imported:  # the name of its recipe does not say how it was trained elsewhere
                raise ModelError(f"it was imported from {imported}")
            check_recipes([recipe], "embedded")
        except ModelError as error:
            raise ModelError(
                f"specialist {name!r} cannot be trained without some of the training cases ({error.what})",
                where=str(folder),
                remedy=f"If it never saw them, say so with --unseen {name}; else leave it out.",
            ) from None
    model = config["model"]
    model = model.get("original", {}).get("model", model)  # of an exported one, what was exported
    return Asked(
        name,
        recipe,
        normal_path(folder),
        model.get("size"),
        # without padding, not with the recipe's own
        (model["pad"] or 0) if "pad" in model else None,
        _fingerprint(folder),
        name in unseen,
    )


def _fingerprint(folder: Path) -> str:
    """SHA-256 over what a specialist's folder holds, whatever its kind; the card counts for nothing."""
    digest = hashlib.sha256()
    try:
        for path in sorted(path for path in folder.iterdir() if path.is_file() and path.name != "README.md"):
            digest.update(f"{path.name} {file_hash(path)}\n".encode())
    except OSError as error:
        raise ModelError(
            f"cannot be read ({error.strerror})", where=str(folder), remedy="Train it again."
        ) from error
    return digest.hexdigest()
