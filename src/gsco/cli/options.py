"""Options that several commands share, said once: what they are called, take and mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Data: TypeAlias = Annotated[
    Path, typer.Option(help="Dataset folder, MedMNIST .npz or ImageFolder.", show_default=False)
]
LabelColumn: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Column of labels.csv with the labels, e.g. one of several findings."),
]
Seed: TypeAlias = Annotated[int, typer.Option(min=0, help="Of everything that draws.")]
Resamples: TypeAlias = Annotated[int, typer.Option(min=100, help="Bootstrap resamples.")]
Threads: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Threads to compute with; all by default.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON to stdout, and nothing else.")]
