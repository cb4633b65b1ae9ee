"""``gsco diagnose``: one new image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example:  gsco diagnose scan.png --run runs/busi"


def diagnose(
    image: Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF or DICOM file.", show_default=False)],
    run: Annotated[Path, typer.Option(help="A finished run folder; its parts are used.", show_default=False)],
    arm: Annotated[
        str | None,
        typer.Option(
            help="generalist, moed, rad, gsco or gsco_calibrated. Default: the fullest that the run asked."
        ),
    ] = None,
    generalist: Annotated[str | None, typer.Option(help="Another generalist than the run's.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Answer one image: label, probabilities, who said what, similar cases. Not a medical device."""
    from gsco.cli.console import print_json, stderr, stdout
    from gsco.cli.progress import reporter
    from gsco.cli.tables import show_diagnosis
    from gsco.evaluation.diagnose import diagnose as answer

    result = answer(image, run=run, arm=arm, generalist=generalist, progress=reporter(stderr()))
    if json:
        print_json(result.to_dict())
    else:
        show_diagnosis(stdout(), result)
