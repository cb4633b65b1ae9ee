"""``gsco bootstrap``: from labelled images to reports that passed a filter, as training records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from gsco.cli.options import Threads

EXAMPLE = (
    "Example:  gsco bootstrap --data my_dataset --generalist models/A --generalist models/B --agreement 2 "
    "--out boot.jsonl   then, after training on it:  gsco bootstrap --data my_dataset --generalist trained "
    "--out boot.jsonl --round 2"
)


def bootstrap(
    data: Annotated[
        Path,
        typer.Option(help="Dataset with labels: folder, MedMNIST .npz, ImageFolder.", show_default=False),
    ],
    generalist: Annotated[
        list[str],
        typer.Option(
            help="Who writes: nano, a model folder, a hub id; repeat for several.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Training file to write, .jsonl; its rounds stand beside it.", show_default=False),
    ],
    number: Annotated[
        int, typer.Option("--round", min=1, help="Of the rounds, each by a generator of its own.")
    ] = 1,
    template: Annotated[str, typer.Option(help="Prompt template: guided, bullets or brief.")] = "guided",
    drafts: Annotated[
        int, typer.Option(min=1, help="Drafts of each generator for an image, from other wordings.")
    ] = 1,
    agreement: Annotated[
        int, typer.Option(min=1, help="Generators (or drafts of one) that must say the same.")
    ] = 1,
    keep: Annotated[int, typer.Option(min=1, help="Accepted reports of one image.")] = 1,
    split: Annotated[str, typer.Option(help="Whose images: train or val.")] = "train",
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many images, spread over the labels.")
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="How the images were taken, where the data do not say.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Another column of labels.csv for the labels.")
    ] = None,
    position_column: Annotated[
        str | None, typer.Option(help="Column with the finding's place. Default: position or finding_side.")
    ] = None,
    keep_copies: Annotated[
        bool,
        typer.Option("--keep-copies", help="Report images, too, that (nearly) copy one of a later split."),
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest report.")] = 192,
    seed: Annotated[int, typer.Option(min=0, help="Of the wording, and of what is drawn.")] = 0,
    temperature: Annotated[
        float, typer.Option(min=0, help="Draw the words at random; 0 writes the most probable, 0.7 is usual.")
    ] = 0.0,
    threads: Threads = None,
    json: Annotated[bool, typer.Option("--json", help="Print statistics.json to stdout.")] = False,
) -> None:
    """Let generators write reports for labelled images, and keep those that fit the label."""
    from gsco.bootstrapping.rounds import bootstrap as make_round
    from gsco.bootstrapping.subjects import Settings
    from gsco.cases import load_dataset
    from gsco.cases.case import Split
    from gsco.cli import InterruptedByPersonError
    from gsco.cli.console import print_json, stderr
    from gsco.cli.progress import reporter
    from gsco.errors import UserError
    from gsco.evaluation.environment import set_threads
    from gsco.generalist.loading import load_generalist

    if split not in ("train", "val"):
        raise UserError(
            f"split is {split!r}",
            remedy="Choose train or val: reports of test cases would teach what is tested.",
        )
    settings = Settings(
        tuple(generalist),
        template=template,
        drafts=drafts,
        agreement=agreement,
        keep=keep,
        seed=seed,
        temperature=temperature,
        split=cast(Split, split),
        limit=limit,
        max_new_tokens=max_new_tokens,
        position_column=position_column,
        keep_copies=keep_copies,
    )
    set_threads(threads)
    progress = reporter(stderr())
    with progress.stage("reading the dataset") as step:
        dataset = load_dataset(
            data, check_images=True, modality=modality, label_column=label_column, seed=seed, progress=step
        )
    for line in dataset.skipped:
        progress.note(f"skipped: {line}")
    try:
        statistics = make_round(
            dataset, settings, out, load=load_generalist, number=number, progress=progress
        )
    except KeyboardInterrupt:
        raise InterruptedByPersonError("interrupted; the same command continues") from None
    if json:
        print_json(statistics)
    else:
        _show(statistics, out, number)


def _show(statistics: dict[str, Any], out: Path, number: int) -> None:
    from rich.table import Table

    from gsco.bootstrapping.page import REASONS
    from gsco.cli.console import stdout

    title = f"Round {number}: {statistics['reported']} of {statistics['images']} images have a report"
    stdout().print(title, soft_wrap=True, highlight=False)
    table = Table("drafts", "")
    for outcome in ("accepted", "spare", "rejected"):
        if statistics[outcome] or outcome != "spare":
            table.add_row(outcome, str(statistics[outcome]))
    for code, n in statistics["reasons"].items():
        table.add_row(f"  {REASONS[code]}", str(n), style="dim")
    stdout().print(table)
    page = out.with_suffix(".rounds") / f"round-{number:02d}" / "page.html"
    stdout().print(f"records: {out}\npage:    {page}", soft_wrap=True, highlight=False)
