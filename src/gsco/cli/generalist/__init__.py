"""``gsco generalist``: train generalists and try whether they hear evidence; one file per command."""

from __future__ import annotations

import typer

from gsco.cli.generalist import train, trial

app = typer.Typer(
    help="The generalist: train MedDr-nano, try whether a model hears evidence or copies it.",
    no_args_is_help=True,
    epilog=train.EXAMPLE,
)

app.command("train", epilog=train.EXAMPLE)(train.train)
app.command("trial", epilog=trial.EXAMPLE)(trial.trial)
