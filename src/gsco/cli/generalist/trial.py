"""``gsco generalist trial``: does a generalist hear evidence, or copy it?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gsco.cli.options import Json, Threads

EXAMPLE = "Example:  gsco generalist trial --generalist nano --data my_dataset --n 100"


def trial(
    generalist: Annotated[str, typer.Option(help="Which generalist; as for `gsco run`.")] = "nano",
    data: Annotated[
        Path | None, typer.Option(help="A dataset whose test images are shown; without one, text only.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Prompts of each condition.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the prompts drawn.")] = 0,
    template: Annotated[str, typer.Option(help="Prompt template.")] = "evidence",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Try whether a generalist hears evidence, or copies it, on label sets from no training record."""
    import dataclasses

    from gsco.cases import load_dataset
    from gsco.cli.console import print_json, stderr, stdout
    from gsco.cli.progress import reporter
    from gsco.evaluation.environment import set_threads
    from gsco.generalist import load_generalist
    from gsco.teaching.trial import MEANING, make_trial, run_trial

    items = make_trial(n=n, seed=seed, dataset=load_dataset(data) if data else None, template=template)
    model = load_generalist(generalist)
    set_threads(threads)
    with reporter(stderr()).stage("trial", total=len(items)) as step:
        results = run_trial(model, items, progress=lambda done, total: step(done, total))
    if json:
        print_json([dataclasses.asdict(result) for result in results])
        return
    from rich.table import Table

    table = Table("condition", "n", "answered truly", "a copy would", title=f"Trial of {model.name}")
    for result in results:
        row = (
            MEANING[result.condition],
            str(result.n),
            f"{result.accuracy:.1%}",
            f"{result.copy_accuracy:.1%}",
        )
        table.add_row(*row)
    stdout().print(table)
