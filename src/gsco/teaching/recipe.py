"""A recipe file: which datasets, which records, which stages make a trained generalist."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gsco.cases import Dataset, load_dataset
from gsco.collaboration import Evidence
from gsco.errors import RunError, UserError
from gsco.generalist.records import Record, read_records, write_records
from gsco.progress import Progress
from gsco.retrieval.likeness import group_alike
from gsco.teaching.copies import not_about, without_copies
from gsco.teaching.curriculum import make_records
from gsco.teaching.out_of_fold import out_of_fold_evidence, thin_dataset
from gsco.teaching.shares import Shares, only_known

SHIPPED = ("nano", "meddr")
"""``nano``: what MedDr-nano's own weights were made by; ``meddr``: for `gsco.generalist.finetune`."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """One dataset to learn from: a path below the data root, `phantoms` to be made, or a file of `records`.

    Records are read from below the data root, or else from those that come with this package. Their relative
    image paths count from `path` below the data root, or from the file's own folder where there is none.
    """

    path: str | None = None
    phantoms: int | None = Field(default=None, gt=0, description="how many phantoms to make instead")
    records: str | None = Field(
        default=None, description="a file of training records instead, taken as they are"
    )
    task: Literal["diagnosis", "vqa", "report"] = "diagnosis"
    weight: float = Field(default=1.0, ge=0)
    twins: dict[str, str] = Field(
        default_factory=dict, description="dataset -> column with that dataset's id of the same image"
    )
    evidence_cases: int = Field(default=1200, gt=0, description="training cases with real evidence, at most")


class Stage(Shares):
    """One training stage; it starts from the adapter of the one before it, or of the one named in `after`."""

    name: str
    after: str | None = Field(default=None, description="an earlier stage to start from")
    records: int = Field(gt=0)
    evidence: Literal["simulated", "out_of_fold"] = "simulated"
    projector: Literal["before", "taught"] = Field(
        default="before",
        description="of the stage before (random in the first), or the one taught with the eye",
    )
    seed: int = 0
    settings: dict[str, bool | int | float] = Field(default_factory=dict, description="fields of TrainConfig")

    @field_validator("settings")
    @classmethod
    def _known_settings(cls, value: dict[str, bool | int | float]) -> dict[str, bool | int | float]:
        from gsco.generalist.nano.train import TrainConfig

        return only_known(value, [field.name for field in dataclasses.fields(TrainConfig)], "setting")


class Eye(_Strict):
    """Teaching the eye and the projector, before the first stage."""

    images: int = Field(default=800, gt=0, description="of each diagnosis dataset, at most")
    settings: dict[str, float | int] = Field(default_factory=dict, description="fields of EyeConfig")

    @field_validator("settings")
    @classmethod
    def _known_settings(cls, value: dict[str, float | int]) -> dict[str, float | int]:
        from gsco.generalist.nano.eye_training import EyeConfig

        return only_known(value, [field.name for field in dataclasses.fields(EyeConfig)], "setting")


class TrainRecipe(_Strict):
    """The whole of a training."""

    sources: tuple[Source, ...]
    eye: Eye | None = Field(default=None, description="whether the eye is taught, and how")
    specialists: tuple[str, ...] = ("linear_probe", "knn", "texture_probe")
    stages: tuple[Stage, ...] = Field(min_length=1)
    average: tuple[str, ...] = Field(
        default=(), description="stages whose adapters' mean is the finished one; the last stage by default"
    )

    @model_validator(mode="after")
    def _known_stages(self) -> TrainRecipe:
        names = [stage.name for stage in self.stages]
        for number, stage in enumerate(self.stages):
            if stage.name in names[:number]:
                raise ValueError(f"two stages are called {stage.name!r}")
            if stage.after is not None and stage.after not in names[:number]:
                raise ValueError(f"no stage {stage.after!r} before {stage.name!r}")
            if stage.projector == "taught" and self.eye is None:
                raise ValueError(f"stage {stage.name!r} wants the taught projector, and no eye is taught")
        for name in self.average:
            if name not in names:
                raise ValueError(f"no stage {name!r} to average")
        return self


def recipe_content(path: Path) -> Any:
    """A recipe file as YAML has it; UserError where it is missing or none."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("there is no such recipe", where=str(path)) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"is not YAML ({str(error).splitlines()[0]})", where=str(path)) from error


def read_recipe(path: Path) -> TrainRecipe:
    """Read a recipe; UserError naming the file and the first thing that is wrong."""
    found = recipe_content(path)
    try:
        return TrainRecipe.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        said = f"{place}: {said}" if place else said
        raise UserError(said, where=str(path)) from error


def recipe_file(name: str) -> Path:
    """A shipped recipe by name, else the file itself."""
    return Path(__file__).parent / f"{name}.yaml" if name in SHIPPED else Path(name)


def train_by_recipe(
    recipe: TrainRecipe, out: Path, *, root: Path, cache: Path, progress: Progress | None = None
) -> Path:
    """Make records and train MedDr-nano through all stages; a second call after a kill goes on.

    Args:
        recipe: what to do.
        out: folder of the finished adapter; records, and each stage's adapter and log, stand in ``stages/``.
        root: folder below which the recipe's datasets lie.
        cache: folder for features, folds and the assembled base.
        progress: told what, done, in all.

    Returns:
        `out`.

    Raises:
        DatasetError, ModelError, RunError, StorageError: as the names say.
    """
    from gsco.generalist.nano.averaging import average_adapters
    from gsco.generalist.nano.train import TrainConfig, train_nano

    _same_recipe(recipe, out / "stages")
    sources = [source for source in recipe.sources if not source.records]
    datasets = [_load(source, root, out / "stages") for source in sources]
    datasets, left_out = without_copies(datasets, out / "stages" / "left_out.json", progress=progress)
    given = [
        (s.weight, not_about(given_records(s, root=root), left_out)) for s in recipe.sources if s.records
    ]
    alike = partial(progress, "looking for images that are alike") if progress else None
    twins = {d.name: s.twins for d, s in zip(datasets, sources, strict=True) if s.task == "diagnosis"}
    datasets = group_alike(datasets, twins, progress=alike)
    eye = _taught(recipe.eye, datasets, out / "stages" / "eye", cache, progress) if recipe.eye else None
    made: dict[str, Path] = {}
    for number, stage in enumerate(recipe.stages, start=1):
        folder = out / "stages" / f"{number}-{stage.name}"
        before = made[stage.after] if stage.after else next(reversed(made.values()), None)
        if not (folder / "training.json").exists():
            records = _records(recipe, stage, datasets, given, folder, cache, progress)
            config = TrainConfig(**{"seed": stage.seed, **stage.settings})  # type: ignore[arg-type]
            train_nano(
                records,
                folder,
                config=config,
                init=before,
                projector=eye / "projector.safetensors" if eye and stage.projector == "taught" else None,
                eye=None if eye is None else eye / "eye.safetensors",
                cache=cache,
                progress=progress,
            )
        made[stage.name] = folder
    average_adapters([made[name] for name in recipe.average or [recipe.stages[-1].name]], out)
    _write_log(recipe, out)
    return out


def _same_recipe(recipe: TrainRecipe, folder: Path) -> None:
    """Keep the recipe beside its stages, and refuse to go on with those of another."""
    path, now = folder / "recipe.json", recipe.model_dump(mode="json")
    if path.exists() and json.loads(path.read_text()) != now:
        raise RunError(
            "holds stages of another recipe", where=str(folder.parent), remedy="Name another --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(now, indent=2) + "\n")


def given_records(source: Source, *, root: Path) -> list[Record]:
    """The records that a source names, from below the data root or else from this package.

    Raises:
        DatasetError: there is no such file, or it holds something else.
    """
    if source.records is None:
        return []
    here, shipped = root / source.records, Path(__file__).parent / source.records
    images = root / source.path if source.path else None
    return read_records(here if here.exists() or not shipped.exists() else shipped, images=images)


def _load(source: Source, root: Path, folder: Path) -> Dataset:
    if source.phantoms is not None:
        from gsco.cases.phantoms import generate_phantoms

        path = folder / f"phantoms-{source.phantoms}"
        if not (path / "labels.csv").exists():
            generate_phantoms(path, n=source.phantoms, seed=11)
    elif source.path is not None:
        path = root / source.path
    else:
        raise UserError("a source needs a path or a number of phantoms")
    return load_dataset(path, task=source.task)


def _records(
    recipe: TrainRecipe,
    stage: Stage,
    datasets: list[Dataset],
    given: list[tuple[float, list[Record]]],
    folder: Path,
    cache: Path,
    progress: Progress | None,
) -> list[Record]:
    path = folder / "records.jsonl"
    if not path.exists():
        evidence: dict[str, dict[str, Evidence]] = {}
        sources = [source for source in recipe.sources if not source.records]
        if stage.evidence == "out_of_fold":
            for source, dataset in zip(sources, datasets, strict=True):
                if dataset.task.kind == "diagnosis":
                    part = thin_dataset(dataset, most=source.evidence_cases)
                    evidence[dataset.name] = out_of_fold_evidence(
                        part, recipe.specialists, cache=cache / "features", progress=progress
                    )
        made = make_records(
            datasets,
            n=stage.records,
            seed=stage.seed,
            evidence=evidence,
            weights=[source.weight for source in sources],
            shares=stage,
            given=given,
        )
        write_records(made, folder)
    return read_records(path)


def _taught(eye: Eye, datasets: list[Dataset], folder: Path, cache: Path, progress: Progress | None) -> Path:
    from gsco.generalist.nano.eye_training import EyeConfig, teach_eye
    from gsco.teaching.shown_images import shown_examples

    if not (folder / "eye.json").exists():
        examples = shown_examples([d for d in datasets if d.task.kind == "diagnosis"], most=eye.images)
        config = EyeConfig(**eye.settings)  # type: ignore[arg-type]
        teach_eye(examples, folder, config=config, cache=cache, progress=progress)
    return folder


def _write_log(recipe: TrainRecipe, out: Path) -> None:
    """``training.json`` (recipe and facts of each stage) and ``training_log.jsonl`` (all steps)."""
    facts: list[dict[str, Any]] = []
    with (out / "training_log.jsonl").open("w", encoding="utf-8") as log:
        for number, stage in enumerate(recipe.stages, start=1):
            folder = out / "stages" / f"{number}-{stage.name}"
            facts.append({"stage": stage.name, **json.loads((folder / "training.json").read_text())})
            for line in (folder / "training_log.jsonl").read_text().splitlines():
                log.write(json.dumps({"stage": stage.name, **json.loads(line)}) + "\n")
    content: dict[str, Any] = {"recipe": recipe.model_dump(mode="json"), "stages": facts}
    left_out = out / "stages" / "left_out.json"
    if left_out.exists():
        content["left_out_as_copies"] = {k: len(v) for k, v in json.loads(left_out.read_text()).items()}
    if recipe.eye:
        content["eye"] = json.loads((out / "stages" / "eye" / "eye.json").read_text())
    (out / "training.json").write_text(json.dumps(content, indent=2) + "\n")
