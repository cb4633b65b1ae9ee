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
            help="generalist, moed, rad, gsco, rad_images or gsco_calibrated. "
            "Default: the fullest that the run asked."
        ),
    ] = None,
    generalist: Annotated[str | None, typer.Option(help="Another generalist than the run's.")] = None,
    heatmap: Annotated[
        Path | None,
        typer.Option(help="PNG to write: where each specialist looked, as far as it can tell."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Answer one image: label, probabilities, who said what, similar cases. Not a medical device."""
    from gsco.cli.console import print_json, stderr, stdout
    from gsco.cli.progress import reporter
    from gsco.cli.tables import show_diagnosis
    from gsco.evaluation.diagnose import diagnose as answer
    from gsco.evaluation.heatmaps import save_heatmaps

    result = answer(
        image,
        run=run,
        arm=arm,
        generalist=generalist,
        heatmaps=heatmap is not None,
        progress=reporter(stderr()),
    )
    if heatmap is not None:
        save_heatmaps(heatmap, result)
    if json:
        print_json(result.to_dict())
    else:
        show_diagnosis(stdout(), result)
        if heatmap is not None:
            stdout().print(f"heat maps: {heatmap}", markup=False, highlight=False, soft_wrap=True)
