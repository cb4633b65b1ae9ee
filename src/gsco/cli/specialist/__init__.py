"""``gsco specialist``: train, judge, compare and move specialists; one file per command."""

from __future__ import annotations

import typer

from gsco.cli.specialist import export, importing, train

app = typer.Typer(
    help="Specialists: train, evaluate, compare, explain, export and import them.",
    no_args_is_help=True,
    epilog="Example:  gsco specialist train --data my_dataset --preset balanced",
)

app.command("train", epilog=train.EXAMPLE)(train.train)
app.command("import", epilog=importing.EXAMPLE)(importing.import_)
app.command("export", epilog=export.EXAMPLE)(export.export)
