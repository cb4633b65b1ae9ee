"""``gsco report``: the figures and the page of a run, made again from its log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example:  gsco report runs/busi"


def report(
    run: Annotated[Path, typer.Argument(help="A run folder that `gsco run` finished.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print metrics.json to stdout.")] = False,
) -> None:
    """Make metrics.json and report.html of a finished run again, from its log alone."""
    from gsco.cli.console import print_json, stderr, stdout
    from gsco.cli.progress import reporter
    from gsco.cli.tables import show_metrics
    from gsco.evaluation.run import rerender

    result = rerender(run, progress=reporter(stderr()))
    if json:
        print_json(result.metrics)
    else:
        show_metrics(stdout(), result)
