"""``gsco evidence``: what is known about the cases of a dataset before a generalist speaks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gsco.cli.options import Data, Json, Seed, Threads

EXAMPLE = (
    "Example:  gsco evidence build --data my_dataset --specialists linear_probe knn --out evidence/my_dataset"
)

app = typer.Typer(
    help="Evidence: opinions and similar cases of every case of a dataset, on disk.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)


@app.callback()
def _group() -> None:
    return None


@app.command("build", epilog=EXAMPLE)
def build(
    data: Data,
    specialists: Annotated[
        list[str],
        typer.Option(help="Folders of specialists, or recipes: one or more.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder to make; one that was not finished is.", show_default=False)
    ],
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    index: Annotated[
        Path | None, typer.Option(help="Folder of an index of the training cases; made by default.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="Whose features find the similar cases.")] = "embedded",
    neighbours: Annotated[int, typer.Option(min=1, help="Similar cases of each case.")] = 10,
    folds: Annotated[int, typer.Option(min=2, help="Folds of the training cases.")] = 3,
    seed: Seed = 0,
    quick: Annotated[bool, typer.Option(help="Train for fewer epochs.")] = False,
    unseen: Annotated[
        list[str] | None,
        typer.Option(help="A specialist that never saw the training cases; may be repeated."),
    ] = None,
    allow_leakage: Annotated[
        list[str] | None, typer.Option(help="A kind of leakage to let pass; may be repeated.")
    ] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Write opinions and similar cases of every case; about training cases from who never saw them."""
    from gsco.cases import load_dataset
    from gsco.cli.console import print_json, stderr
    from gsco.cli.progress import reporter
    from gsco.evaluation.environment import set_threads
    from gsco.evaluation.evidence_build import build_evidence

    set_threads(threads)
    progress = reporter(stderr())
    with progress.stage("reading the dataset") as step:
        dataset = load_dataset(data, check_images=True, seed=seed, progress=step)
    for line in dataset.skipped:
        progress.note(f"skipped: {line}")
    record = build_evidence(
        dataset,
        [*specialists, *(more or ())],
        out,
        index=index,
        backbone=backbone,
        neighbours=neighbours,
        folds=folds,
        seed=seed,
        quick=quick,
        unseen=unseen or (),
        allow_leakage=allow_leakage or (),
        progress=progress,
    )
    if json:
        print_json(record)
    else:
        _show(record, out)


def _show(record: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    from gsco.cli.console import stdout

    cases = record["cases"]
    title = f"Evidence about {sum(cases.values())} cases, saved in {out}"
    table = Table("voice", "on validation", "out of fold", title=title, title_justify="left")
    table.caption = "balanced accuracy; training cases are spoken about out of fold"
    for row in [*record["specialists"], {"name": "similar cases", **record["neighbours"]}]:
        figures = (row["reliability"], row["reliability_out_of_fold"])
        table.add_row(row["name"], *("–" if value is None else f"{value:.3f}" for value in figures))
    stdout().print(table)
    counted = ", ".join(f"{n} {split}" for split, n in cases.items())
    stdout().print(f"{counted}; {record['leakage']['summary']}", soft_wrap=True, highlight=False)
