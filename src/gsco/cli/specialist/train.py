"""``gsco specialist train``: one specialist from a dataset."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gsco.cli.options import Data, Json, LabelColumn, Seed, Threads

if TYPE_CHECKING:
    from gsco.cases import Dataset
    from gsco.evaluation.progress import Reporter, Step
    from gsco.specialists import TrainedSpecialist

EXAMPLE = (
    "Example:  gsco specialist train --data my_dataset --arch resnet18 --procedure end-to-end --size 64 "
    "--seed 9930641"
)


def train(
    data: Data,
    preset: Annotated[
        str | None,
        typer.Option(help="quick, balanced or best: chooses for the data and the machine, and says why."),
    ] = None,
    arch: Annotated[
        str | None, typer.Option(help="Architecture: any timm name, or a folder; with --procedure.")
    ] = None,
    procedure: Annotated[
        str | None,
        typer.Option(
            help="end-to-end, linear-probing or knn, as in the MedMNIST+ benchmark. Its linear-probing "
            "trains a last layer for 100 epochs; the recipe linear_probe is a logistic regression."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe by its name, perhaps `recipe:backbone`.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the specialist; specialists/… by default.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=8, help="Side in pixels that pictures are stretched to.")
    ] = None,
    pad: Annotated[
        int | None,
        typer.Option(min=0, help="Side they are padded to with zeros; 224 in the benchmark's procedures."),
    ] = None,
    label_column: LabelColumn = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Train it so many times more, each time without another share of the training cases, and "
            "answer by the mean of all. Default: 0, and 3 for preset best.",
        ),
    ] = None,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16 (training of networks).")] = "auto",
    quick: Annotated[bool, typer.Option(help="Few epochs, to try whether it runs.")] = False,
    runtime: Annotated[
        Literal["auto", "pytorch"],
        typer.Option(help="auto ends with a choice of the runtime that answers fastest here."),
    ] = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Train one specialist on a dataset's training cases and calibrate it on its validation cases."""
    from gsco import embedded
    from gsco.cases import load_dataset
    from gsco.cli.console import print_json, stderr, stdout
    from gsco.cli.progress import reporter
    from gsco.disk import make_folder
    from gsco.evaluation.environment import set_threads
    from gsco.specialists import train_specialist
    from gsco.specialists.machine import Machine
    from gsco.specialists.presets import Plan, plan
    from gsco.specialists.registry import missing_cases, safe_name

    progress = reporter(stderr())
    chosen = _recipe(preset, arch, procedure, recipe)
    make_folder((out or Path("specialists") / "any").parent)  # before all the work
    machine = Machine.choose(device, precision)
    set_threads(threads)
    with progress.stage("reading the dataset") as reading:
        dataset = load_dataset(
            data, check_images=True, seed=seed, label_column=label_column, progress=reading
        )
    for line in dataset.skipped:
        progress.note(f"skipped: {line}")
    planned = plan(dataset, str(preset), machine) if chosen is None else Plan((chosen,), ())
    for line in (*planned.reasons, *missing_cases(dataset)):
        progress.note(line)
    made: dict[str, TrainedSpecialist] = {}
    for name in planned.recipes:
        with progress.stage(f"specialist {name}") as step:

            def say(what: str, done: int, total: int, step: Step = step, name: str = name) -> None:
                step(done, total, what.removeprefix(f"{safe_name(name)}: "))

            made[name] = train_specialist(
                name,
                dataset,
                cache=embedded.cache_home(),
                seed=seed,
                quick=quick,
                size=size,
                pad=pad,
                folds=planned.folds if folds is None else folds,
                machine=machine,
                progress=say,
            )
    best = max(made, key=lambda name: _merit(made[name].val_metrics))
    if not machine.is_first:  # one of several processes that trained together is enough to tell
        return
    folder = out or Path("specialists") / _folder_name(dataset.name, made[best].name, size, seed)
    made[best].save_pretrained(folder)
    choice = _choice(made[best], folder, dataset, seed, progress) if runtime == "auto" else None
    if json:
        figures = {name: specialist.val_metrics for name, specialist in made.items()}
        answer = {"folder": str(folder), "name": made[best].name, "validation": figures[best]}
        answer["runtime"] = "pytorch" if choice is None else choice["kept"]
        if preset:
            answer |= {"candidates": figures, "reasons": list(planned.reasons)}
        print_json(answer)
        return
    stdout().print(_table(made, best))
    typer.echo(str(folder))


def _recipe(preset: str | None, arch: str | None, procedure: str | None, recipe: str | None) -> str | None:
    """The recipe that the options amount to; None for a preset."""
    from gsco.errors import ModelError
    from gsco.specialists.procedures import PROCEDURES

    ways = [preset is not None, recipe is not None, arch is not None or procedure is not None]
    if sum(ways) != 1:
        raise ModelError(
            "name one way to train" if not any(ways) else "name only one way to train",
            remedy="Give --preset, or --arch and --procedure, or --recipe.",
        )
    if procedure is None and arch is None:
        return recipe
    plain = (procedure or "end-to-end").replace("-", "").replace("_", "").lower()
    known = {name.lower(): name for name in PROCEDURES}
    if plain not in known:
        raise ModelError(
            f"no procedure {procedure!r}",
            remedy="Choose one of: end-to-end, linear-probing, knn (or --recipe linear_probe).",
        )
    return known[plain] if arch is None else f"{known[plain]}:{arch}"


def _choice(
    specialist: TrainedSpecialist, folder: Path, dataset: Dataset, seed: int, progress: Reporter
) -> dict[str, Any] | None:
    """The runtime that answers fastest here in fp32; None, with a note, where only PyTorch can."""
    from gsco.errors import UserError
    from gsco.specialists.fastest import choose_runtime

    try:
        with progress.stage("fastest runtime") as step:
            choice = choose_runtime(
                specialist, folder, dataset, quick=True, seed=seed, say=lambda what: step(0, None, what)
            )
    except UserError as error:  # it is trained and saved
        progress.note(f"PyTorch answers: {error}")
        return None
    progress.note(f"{choice['kept']} answers: {choice['why']}")
    return choice


def _merit(figures: dict[str, float]) -> tuple[float, float]:
    """By which the best candidate is chosen on validation: macro-F1, then minus the log loss."""
    return figures.get("macro_f1", 0.0), -figures.get("log_loss", float("inf"))


def _folder_name(dataset: str, name: str, size: int | None, seed: int) -> str:
    return "_".join([dataset, name, *([str(size)] if size else []), f"s{seed}"])


def _table(made: dict[str, TrainedSpecialist], best: str) -> Any:
    from rich.table import Table

    from gsco.evaluation.report.wording import METRIC_NAMES

    table = Table("on validation", *made)
    figures = list(dict.fromkeys(key for specialist in made.values() for key in specialist.val_metrics))
    for key in figures:
        values = [specialist.val_metrics[key] for specialist in made.values()]
        shown = [f"{v:.0f}" if key == "n" else "–" if math.isnan(v) else f"{v:.3f}" for v in values]
        table.add_row(METRIC_NAMES.get(key, key.replace("_", " ")), *shown)
    if len(made) > 1:
        table.add_row("kept", *("yes" if name == best else "" for name in made))
    return table
