"""Recipes and kinds of specialists from other packages, by entry point.

A package that is installed beside this one names in its ``pyproject.toml``

    [project.entry-points."gsco.specialists"]
    forest = "my_package:make_forest"

    [project.entry-points."gsco.specialist_kinds"]
    forest = "my_package:Forest"

The first is a recipe: a function ``(job, name, recipe, backbone) -> TrainedSpecialist``, as those of this
package are; the first line of its docstring is shown in lists. The second is the class, a
`TrainedSpecialist` whose ``kind`` is the entry's name, by which saved folders are read. Nothing of a
package is imported before one of its names is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from gsco.errors import ModelError
from gsco.specialists.trained import TrainedSpecialist, TrainingJob

RECIPES_GROUP = "gsco.specialists"
KINDS_GROUP = "gsco.specialist_kinds"


@dataclass(frozen=True, slots=True)
class Plugin:
    """One name that another package brings.

    Attributes:
        name: of the recipe or kind.
        target: ``module:attribute``.
        package: the distribution and its version.
        rival: another package that brings the same name; then neither is used.
    """

    name: str
    target: str
    package: str
    rival: str | None = None

    def load(self) -> Any:
        """Import what it names.

        Raises:
            ModelError: it cannot be imported, whatever the reason, or two packages bring the name.
        """
        if self.rival is not None:
            raise ModelError(
                f"{self.package} and {self.rival} both bring {self.name!r}",
                remedy="Remove one of the two packages.",
            )
        try:
            return metadata.EntryPoint(self.name, self.target, RECIPES_GROUP).load()
        except Exception as error:  # another package's mistake, of any kind
            raise ModelError(
                f"plugin {self.name!r} of {self.package} cannot be loaded ({type(error).__name__}: {error})",
                where=self.target,
                remedy=f"Mend or remove {self.package.split()[0]}.",
            ) from error


def plugins(group: str = RECIPES_GROUP) -> dict[str, Plugin]:
    """All names of a group, in alphabetical order; nothing is imported."""
    found: dict[str, Plugin] = {}
    entries = {(entry.name, entry.value): entry for entry in metadata.entry_points(group=group)}
    for (name, value), entry in sorted(entries.items()):
        package = _package(entry)
        if name in found:
            found[name] = replace(found[name], rival=package)
        else:
            found[name] = Plugin(name, value, package)
    return found


def plugin_kind(kind: str) -> type[TrainedSpecialist]:
    """The class of a kind that another package brings.

    Raises:
        ModelError: there is none, it cannot be imported, or is no specialist of that kind.
    """
    plugin = plugins(KINDS_GROUP).get(kind)
    if plugin is None:
        raise ModelError(f"no kind of specialist {kind!r}", remedy="Install the package that brings it.")
    made = plugin.load()
    if not (isinstance(made, type) and issubclass(made, TrainedSpecialist)):
        raise ModelError(
            f"plugin {kind!r} of {plugin.package} is no subclass of TrainedSpecialist",
            where=plugin.target,
            remedy="See docs/specialists.md, Plugins.",
        )
    if getattr(made, "kind", None) != kind:
        raise ModelError(
            f"plugin {kind!r} of {plugin.package} has the kind {getattr(made, 'kind', None)!r}",
            where=plugin.target,
            remedy="Name the entry point as the class attribute `kind` is.",
        )
    return made


def make_by_plugin(
    plugin: Plugin, job: TrainingJob, name: str, recipe: str, backbone: str | None
) -> TrainedSpecialist:
    """Train by a plugin's recipe.

    Raises:
        ModelError: it cannot be imported, or what it made is no specialist with the job's options.
    """
    made = plugin.load()(job, name, recipe, backbone)
    fault = None
    if not isinstance(made, TrainedSpecialist):
        fault = f"made {type(made).__name__}, not a TrainedSpecialist"
    elif made.name != name:
        fault = f"made a specialist named {made.name!r}, not {name!r}"
    elif tuple(made.options) != job.options:
        fault = f"made a specialist with the options {', '.join(made.options)}, not {', '.join(job.options)}"
    if fault is None:
        specialist: TrainedSpecialist = made
        return specialist
    raise ModelError(
        f"plugin {plugin.name!r} of {plugin.package} {fault}",
        where=plugin.target,
        remedy="Check it with gsco.specialists.conformance.",
    )


def _package(entry: metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown package"
