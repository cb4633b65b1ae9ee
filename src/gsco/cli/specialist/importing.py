"""``gsco specialist import``: a checkpoint of the reference becomes a specialist."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gsco.cli.options import Json

EXAMPLE = "Example:  gsco specialist import breastmnist_28_endToEnd_resnet18_s9930641_best.pth"


def import_(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="DATASET_SIZE_PROCEDURE_ARCHITECTURE_sSEED_best.pth", show_default=False),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Its dataset: options, and validation cases to calibrate on; else MedMNIST's."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the specialist; specialists/NAME by default.")
    ] = None,
    json: Json = False,
) -> None:
    """Read a checkpoint of GSCo_Specialist or MedMNIST+, by its file name."""
    from gsco import embedded
    from gsco.cases import load_dataset
    from gsco.cli.console import print_json, stderr
    from gsco.cli.progress import reporter
    from gsco.specialists.checkpoints import import_checkpoint

    progress = reporter(stderr())
    dataset = None
    if data:
        with progress.stage("reading the dataset") as step:
            dataset = load_dataset(data, check_images=True, progress=step)
        for line in dataset.skipped:
            progress.note(f"skipped: {line}")
    with progress.stage("reading and calibrating" if data else "reading"):
        made = import_checkpoint(checkpoint, dataset=dataset, cache=embedded.cache_home())
    folder = out or Path("specialists") / made.name
    made.save_pretrained(folder)
    if made.details.get("calibrated_on") is None:
        why = "give its dataset with --data" if dataset is None else f"{dataset.name} has no validation cases"
        progress.note(f"not calibrated: {why}")
    if json:
        print_json({"folder": str(folder), "name": made.name, "validation": made.val_metrics})
    else:
        typer.echo(str(folder))
