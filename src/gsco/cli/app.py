"""The typer app. Command files import what is heavy inside their functions, so that help is instant."""

from __future__ import annotations

from typing import Annotated

import typer

from gsco import __version__
from gsco.cli import (
    bootstrap,
    demo,
    diagnose,
    evidence,
    generalist,
    models,
    phantoms,
    report,
    run,
    specialist,
)

app = typer.Typer(
    name="gsco",
    help=(
        "Generalist-specialist collaboration for medical images: specialists and similar known cases "
        "inform a vision-language model. Research use only, not a medical device."
    ),
    epilog="Example:  gsco run --data my_dataset --out runs/mine",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"gsco {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    return None


app.command("run", epilog=run.EXAMPLE)(run.run)
app.command("diagnose", epilog=diagnose.EXAMPLE)(diagnose.diagnose)
app.command("report", epilog=report.EXAMPLE)(report.report)
app.command("phantoms", epilog=phantoms.EXAMPLE)(phantoms.phantoms)
app.command("demo", epilog=demo.EXAMPLE)(demo.demo)
app.command("bootstrap", epilog=bootstrap.EXAMPLE)(bootstrap.bootstrap)
app.add_typer(models.app, name="models")
app.add_typer(specialist.app, name="specialist")
app.add_typer(evidence.app, name="evidence")
app.add_typer(generalist.app, name="generalist")
