"""``gsco specialist recipes``: by what recipes a specialist can be trained, and where each comes from."""

from __future__ import annotations

from gsco.cli.options import Json

EXAMPLE = "Example:  gsco specialist recipes"


def recipes(json: Json = False) -> None:
    """List the recipes of this package and of plugins, and say which plugin cannot be loaded."""
    from gsco.cli.console import print_json, stdout
    from gsco.errors import ModelError
    from gsco.specialists.plugins import plugins
    from gsco.specialists.registry import all_recipes

    brought = plugins()
    rows = []
    for recipe in all_recipes().values():
        summary, fault = recipe.summary, None
        if recipe.origin != "gsco":
            try:
                said = (brought[recipe.name].load().__doc__ or "").strip().splitlines()
                summary = said[0] if said else summary
            except ModelError as error:
                fault = str(error)
        rows.append({"name": recipe.name, "summary": summary, "package": recipe.origin, "fault": fault})
    if json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table("recipe", "what it is", "from")
    for row in rows:
        table.add_row(row["name"], row["fault"] or row["summary"], row["package"])
    stdout().print(table)
