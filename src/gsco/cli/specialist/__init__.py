"""``gsco specialist``: train, judge, compare and move specialists; one file per command."""

from __future__ import annotations

import typer

from gsco.cli.specialist import importing, recipes, train

app = typer.Typer(
    help="Specialists: train, evaluate, compare, explain, export and import them.",
    no_args_is_help=True,
    epilog="Example:  gsco specialist train --data my_dataset --preset balanced",
)

app.command("recipes", epilog=recipes.EXAMPLE)(recipes.recipes)
app.command("train", epilog=train.EXAMPLE)(train.train)
app.command("import", epilog=importing.EXAMPLE)(importing.import_)
