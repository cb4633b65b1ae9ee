"""``gsco run``: from a dataset to specialists, an index, answers, figures and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLE = (
    "Example:  gsco run --data my_dataset --out runs/mine   then, after a crash:  gsco run --resume runs/mine"
)

_DATA = "What goes in"
_WAY = "How it is answered"
_REST = "Everything else"


def run(
    data: Annotated[
        Path | None,
        typer.Option(help="Dataset folder, MedMNIST .npz, ImageFolder or JSONL.", rich_help_panel=_DATA),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder to make. Default: runs/<data>.", rich_help_panel=_DATA)
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run folder to continue where it stopped.", rich_help_panel=_DATA)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings to start from, e.g. another run's config.yaml.", rich_help_panel=_DATA),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Whose cases are answered: test or val.", rich_help_panel=_DATA)
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option(help="How the images were taken, where the data do not say.", rich_help_panel=_DATA),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Answer at most so many cases, drawn by seed.", rich_help_panel=_DATA)
    ] = None,
    specialist: Annotated[
        list[str] | None,
        typer.Option(help="A recipe; repeat for a team. Default: the standard team.", rich_help_panel=_WAY),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="timm name of the frozen backbone. Default: embedded.", rich_help_panel=_WAY),
    ] = None,
    generalist: Annotated[
        str | None,
        typer.Option(
            help="nano, a model folder, a hub id, or openai:http://HOST:PORT/v1#MODEL. Default: nano.",
            rich_help_panel=_WAY,
        ),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Prompt template. Default: evidence.", rich_help_panel=_WAY)
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="score (always valid) or generate. Default: score.", rich_help_panel=_WAY),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="generalist, moed, rad, gsco, rad_images (shows the similar cases' images to a model that "
            "takes several); repeat. Default: the first four.",
            rich_help_panel=_WAY,
        ),
    ] = None,
    neighbours: Annotated[
        int | None,
        typer.Option("--neighbours", "-k", help="Similar cases per case. Default: 10.", rich_help_panel=_WAY),
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(
            help="Similar cases that arm rad_images shows, at most. Default: 4.", rich_help_panel=_WAY
        ),
    ] = None,
    calibration_cases: Annotated[
        int | None,
        typer.Option(
            help="Validation cases that the generalist's answers are calibrated on; 0: none. Default: 300.",
            rich_help_panel=_WAY,
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            help="Train each recipe so many times more, each time without another share of the training "
            "cases: the mean answers, and the pool of all voices is fitted on more cases. Default: 0.",
            rich_help_panel=_WAY,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything that draws. Default: 0.", rich_help_panel=_WAY)
    ] = None,
    quick: Annotated[
        bool | None,
        typer.Option("--quick", help="Fewer training epochs: a demo, not a benchmark.", rich_help_panel=_WAY),
    ] = None,
    leakage: Annotated[
        str | None,
        typer.Option(
            help="Training images that are (nearly) images to be answered: purge (from the index), purge_all "
            "(from the specialists' training, too) or refuse. Default: purge.",
            rich_help_panel=_REST,
        ),
    ] = None,
    allow_leakage: Annotated[
        list[str] | None,
        typer.Option(
            help="Let a kind pass: ids, groups, pixels or near_duplicates; repeat.", rich_help_panel=_REST
        ),
    ] = None,
    max_broken: Annotated[
        float | None,
        typer.Option(help="Share of broken images tolerated. Default: 0.05.", rich_help_panel=_REST),
    ] = None,
    heatmaps: Annotated[
        int | None,
        typer.Option(help="Cases of the page with heat maps; 0: none. Default: 24.", rich_help_panel=_REST),
    ] = None,
    batch_cases: Annotated[
        int | None,
        typer.Option(help="Cases handed to the generalist at once. Default: 8.", rich_help_panel=_REST),
    ] = None,
    resamples: Annotated[
        int | None, typer.Option(help="Bootstrap resamples. Default: 2000.", rich_help_panel=_REST)
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads. Default: torch's choice.", rich_help_panel=_REST)
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Feature cache. Default: $GSCO_CACHE or ~/.cache/gsco.", rich_help_panel=_REST),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print metrics.json to stdout.", rich_help_panel=_REST)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.", rich_help_panel=_REST)] = False,
) -> None:
    """Train specialists, build the case index, ask the generalist, and report what helped."""
    given: dict[str, Any] = {
        "data": data,
        "split": split,
        "modality": modality,
        "limit": limit,
        "specialists": tuple(specialist) if specialist else None,
        "backbone": backbone,
        "generalist": generalist,
        "template": template,
        "mode": mode,
        "arms": tuple(arm) if arm else None,
        "neighbours": neighbours,
        "examples": examples,
        "calibration_cases": calibration_cases,
        "folds": folds,
        "seed": seed,
        "quick": quick,
        "leakage": leakage,
        "allow_leakage": tuple(allow_leakage) if allow_leakage else None,
        "max_broken": max_broken,
        "heatmaps": heatmaps,
        "batch_cases": batch_cases,
        "resamples": resamples,
        "threads": threads,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    execute(changes, out=out, resume=resume, config=config, cache=cache, json=json, quiet=quiet)


def execute(
    changes: dict[str, Any],
    *,
    out: Path | None = None,
    resume: Path | None = None,
    config: Path | None = None,
    cache: Path | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Start or continue a run and show its result.

    Args:
        changes: the settings that were given by hand, by their name in `RunConfig`.
        out: the folder of a new run.
        resume: the folder of a run to continue; excludes `out` and `config`.
        config: a YAML file with settings to start from.
        cache: feature cache.
        json: print the metrics to stdout.
        quiet: show no progress.
    """
    from gsco.cli import InterruptedByPersonError
    from gsco.cli.console import print_json, stderr, stdout
    from gsco.cli.progress import reporter
    from gsco.cli.tables import show_metrics
    from gsco.errors import RunError
    from gsco.evaluation import run as runs
    from gsco.evaluation.config import RunConfig, read_settings
    from gsco.evaluation.progress import Silent

    progress = Silent() if quiet else reporter(stderr())
    settings: RunConfig | None = None
    if resume is not None:
        if out is not None or config is not None:
            raise RunError("--resume names the run folder", remedy="Leave out --out and --config.")
        folder = resume
    else:
        if config is not None:
            settings = RunConfig.parse({**read_settings(config), **changes}, where=str(config))
        elif "data" in changes:
            settings = RunConfig.parse(changes)
        else:
            raise RunError("no --data given", remedy="Name a dataset: gsco run --data DATA --out DIR.")
        name = settings.data.stem if settings.data.is_file() else settings.data.name
        folder = out or Path("runs") / name
    try:
        if settings is None:
            result = runs.resume(folder, changes=changes, cache=cache, progress=progress)
        else:
            result = runs.run(settings, folder, cache=cache, progress=progress)
    except KeyboardInterrupt:
        raise InterruptedByPersonError(f"interrupted; continue with `gsco run --resume {folder}`") from None
    if json:
        print_json(result.metrics)
    else:
        show_metrics(stdout(), result)
