"""``gsco specialist evaluate``: the figures of one specialist on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gsco.cli.options import Data, Json, LabelColumn, Resamples, Seed

if TYPE_CHECKING:
    from gsco.evaluation.comparison.evaluate import Judgement

EXAMPLE = (
    "Example:  gsco specialist evaluate my-specialist --data other_set --external --map no_finding=normal"
)


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of a specialist.", show_default=False)],
    data: Data,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which cases.")] = "test",
    external: Annotated[
        bool, typer.Option("--external", help="It was trained on another set: map labels by name.")
    ] = False,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", help="LABEL=OPTION where names do not tell; repeat it.", show_default=False),
    ] = None,
    label_column: LabelColumn = None,
    resamples: Resamples = 2000,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Judge one specialist on a dataset: every figure with its 95 % interval."""
    from gsco.cli.console import print_json, stderr, stdout
    from gsco.cli.progress import reporter
    from gsco.evaluation.comparison import evaluate_specialist

    found = evaluate_specialist(
        folder,
        data,
        split=split,
        external=external,
        mapping=mapping or (),
        label_column=label_column,
        n_resamples=resamples,
        seed=seed,
        progress=reporter(stderr()),
    )
    if json:
        print_json(found.to_json())
    else:
        _show(stdout(), found)


def _show(console: object, found: Judgement) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from gsco.cli.console import RESEARCH_ONLY
    from gsco.cli.tables import figure
    from gsco.evaluation.report.wording import METRIC_NAMES, drawn_units

    assert isinstance(console, Console)
    about = found.about
    title = escape(f"{about['specialist']} on {about['dataset']} · {about['split']} · n = {about['n']}")
    drawn = f"95 % bootstrap intervals over {drawn_units(about)}"
    table = Table(title=title, title_justify="left", caption=drawn)
    table.add_column("figure")
    table.add_column("value", justify="right")
    names = {option["key"]: option["name"] for option in about["options"]}
    several = bool(about["thresholds"])
    for name, entry in found.figures.items():
        if name in METRIC_NAMES:
            table.add_row(METRIC_NAMES[name], figure(entry, interval=True))
        elif not several:
            key = name.removeprefix("recall:")
            called = escape(f"recall {names[key]} (n = {about['n_per_class'][key]})")
            table.add_row(called, figure(entry, interval=True))
    console.print(table)
    if several:
        columns = ("recall", "precision", "ap", "auc", "ece", "brier")
        by_label = Table("label", title="Each label by itself", title_justify="left")
        for heading in ("n", "said above", *columns):
            by_label.add_column(
                METRIC_NAMES.get(heading, heading.upper() if heading == "ap" else heading), justify="right"
            )
        for key, name in names.items():
            cells = [figure(found.figures[f"{metric}:{key}"]) for metric in columns]
            by_label.add_row(
                escape(name), str(about["n_per_class"][key]), f"{about['thresholds'][key]:.3f}", *cells
            )
        console.print(by_label)
    mapping = about["mapping"]
    if mapping:
        pairs = ", ".join(f"{label} → {names[option]}" for label, option in mapping["mapped"].items())
        lines = [f"mapped: {pairs}; {mapping['n_kept']} of {mapping['n_kept'] + mapping['n_dropped']} cases"]
        for what, gone in (("labels", mapping["dropped_labels"]), ("options", mapping["dropped_options"])):
            if gone:
                lines.append(f"dropped {what}: {', '.join(gone)}")
        for line in lines:
            console.print(line, markup=False, highlight=False)
    for note in found.notes:
        console.print(note, markup=False, highlight=False)
    console.print(RESEARCH_ONLY, style="dim", highlight=False)
