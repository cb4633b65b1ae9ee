"""``gsco specialist compare``: all specialists of a dataset side by side, and the team to take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gsco.cli.options import Data, Json, LabelColumn, Resamples, Seed

if TYPE_CHECKING:
    from gsco.evaluation.comparison.compare import Comparison

EXAMPLE = "Example:  gsco specialist compare --data my_dataset --run runs/mine --out comparison.html"
_COLUMNS = ("macro_f1", "accuracy", "auc", "ece", "brier")
_COLUMNS_OF_LABELS = ("macro_f1", "map", "auc", "ece", "brier")


def compare(
    data: Data,
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders of specialists.", show_default=False)
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="A run folder: all its specialists take part.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The comparison page (HTML) to write.", show_default=False)
    ] = None,
    unpooled: Annotated[bool, typer.Option("--unpooled", help="Compare un-pooled embeddings, too.")] = False,
    timing: Annotated[bool, typer.Option(help="Measure milliseconds an image.")] = True,
    label_column: LabelColumn = None,
    resamples: Resamples = 2000,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Compare specialists on the test split; the team is chosen on validation."""
    from gsco.cli import InterruptedByPersonError
    from gsco.cli.console import print_json, stderr, stdout
    from gsco.cli.progress import reporter
    from gsco.disk import make_folder, write_atomic
    from gsco.evaluation.comparison import compare_specialists

    if out is not None:
        make_folder(out.parent)  # before all the work
    try:
        found = compare_specialists(
            data,
            folders or (),
            run=run,
            unpooled=unpooled,
            timed=timing,
            label_column=label_column,
            n_resamples=resamples,
            seed=seed,
            progress=reporter(stderr()),
        )
    except KeyboardInterrupt:
        raise InterruptedByPersonError("interrupted; the same command goes on where it was") from None
    if out is not None:
        from gsco.evaluation.report.comparison import render_comparison

        write_atomic(out, render_comparison(found))
    if json:
        print_json(found.to_json())
    else:
        _show(stdout(), found, out)


def _sets_line(result: Mapping[str, Any]) -> list[str]:
    """What the team's label sets state and hold; nothing where there are none."""
    sets = result["sets"].get("team")
    if sets is None:
        return []
    return [
        f"label sets of the team: stated to hold the true option in {100 * sets['stated']:.1f} % of cases, "
        f"they hold it in {100 * sets['coverage']:.1f} %, with {sets['mean_size']:.2f} options on average."
    ]


def _show(console: object, found: Comparison, out: Path | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from gsco.cli.console import RESEARCH_ONLY
    from gsco.cli.tables import figure
    from gsco.evaluation.report.wording import METRIC_NAMES, drawn_units

    assert isinstance(console, Console)
    result, timing = found.result, found.timing
    title = escape(f"{result['dataset']} · {result['split']} · n = {result['n']}")
    drawn = f"95 % bootstrap intervals over {drawn_units(result)}"
    table = Table(title=title, title_justify="left", caption=drawn)
    table.add_column("specialist", no_wrap=True)
    columns = _COLUMNS_OF_LABELS if result["multi_label"] else _COLUMNS
    for name in columns:
        table.add_column(METRIC_NAMES[name], justify="right", no_wrap=name == "macro_f1")
    for heading in ("P@10", "MB", *(["ms"] if timing else [])):
        table.add_column(heading, justify="right")
    members = result["team"]["members"] if result["team"] else []
    alike = (result["embeddings"] or {"specialists": {}})["specialists"]
    rows = [
        (name, figures, f"{'● ' if name in members else '  '}{name}")
        for name, figures in result["specialists"].items()
    ]
    if result["team"]:
        rows.append(("", result["team"], "team (● members)"))
    for name, figures, label in rows:
        cells = [figure(figures[metric], interval=metric == "macro_f1") for metric in columns]
        found_alike = alike.get(name, {}).get("pooled")
        cells.append(figure(found_alike["precision_at_10"]) if found_alike else "")
        cells.append(f"{result['about'][name]['size_mb']:.1f}" if name else "")
        if timing:
            cells.append(f"{timing[name]['ms_single']:.0f}" if name else "")
        table.add_row(escape(label), *cells, style=None if name else "bold")
    console.print(table)
    for line in (
        *result["notes"],
        *([f"team: {', '.join(members)}. {result['choice']['reason']}"] if members else []),
        *_sets_line(result),
    ):
        console.print(line, markup=False, highlight=False)
    if out is not None:
        console.print(f"page: {out}", markup=False, highlight=False, soft_wrap=True)
    console.print(RESEARCH_ONLY, style="dim", highlight=False)
