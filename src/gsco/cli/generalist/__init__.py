"""``gsco generalist``: convert, train, merge and try generalists; one file per command."""

from __future__ import annotations

import typer

from gsco.cli.generalist import card, chat, convert, merge, train, trial

app = typer.Typer(
    help="The generalist: talk with one, convert MedDr, train, merge adapters, write cards, try a model.",
    no_args_is_help=True,
    epilog=train.EXAMPLE,
)

app.command("card", epilog=card.EXAMPLE)(card.card)
app.command("convert", epilog=convert.EXAMPLE)(convert.convert)
app.command("merge", epilog=merge.EXAMPLE)(merge.merge)
app.command("train", epilog=train.EXAMPLE)(train.train)
app.command("trial", epilog=trial.EXAMPLE)(trial.trial)
app.command("chat", epilog=chat.EXAMPLE)(chat.chat)
