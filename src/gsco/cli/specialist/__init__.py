"""``gsco specialist``: train, judge, compare and move specialists; one file per command."""

from __future__ import annotations

import typer

from gsco.cli.specialist import compare, evaluate, explain, export, importing, recipes, train

app = typer.Typer(
    help="Specialists: train, evaluate, compare, explain, export and import them.",
    no_args_is_help=True,
    epilog="Example:  gsco specialist train --data my_dataset --preset balanced",
)

app.command("recipes", epilog=recipes.EXAMPLE)(recipes.recipes)
app.command("train", epilog=train.EXAMPLE)(train.train)
app.command("evaluate", epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.command("compare", epilog=compare.EXAMPLE)(compare.compare)
app.command("import", epilog=importing.EXAMPLE)(importing.import_)
app.command("explain", epilog=explain.EXAMPLE)(explain.explain)
app.command("export", epilog=export.EXAMPLE)(export.export)
