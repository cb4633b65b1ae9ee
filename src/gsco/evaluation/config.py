"""`RunConfig`: everything that decides what a run will say, written to ``config.yaml`` and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gsco.cases import find_dataset
from gsco.cases.paths import expanded
from gsco.errors import RunError
from gsco.evaluation.runfolder import normal_path

Leak = Literal["ids", "groups", "pixels", "near_duplicates"]
Arm = Literal["generalist", "moed", "rad", "gsco", "rad_images"]


class RunConfig(BaseModel):
    """What a run answers, with which parts, in which way.

    Two runs of one config on one machine give the same ``metrics.json``; whatever is not in here
    (where the run folder is, where features are cached, how progress is shown) may not change a number.

    Attributes:
        data: a dataset folder, a MedMNIST ``.npz``, an ImageFolder, or conversation JSON/JSONL.
        modality: how the images were taken, where the data do not say.
        seed: of everything that draws: splits where the data give none, heads, folds, subsets, bootstrap.
        specialists: recipes to train, in order; the standard team when empty.
        backbone: timm name (or folder) whose features the index, and the heads on features, use.
        generalist: ``nano`` (embedded), a folder, a hub id, ``openai:http://host:port/v1#model``, or
            ``scripted:<rule>``.
        template: name of the prompt template.
        mode: ``score`` (probability of each option, always valid) or ``generate`` (free text, parsed).
        arms: which ways of asking the generalist to run; none of them leaves the controls alone.
        neighbours: how many similar known cases are looked up for a case.
        examples: how many of them, at most, arm ``rad_images`` shows with their images.
        split: whose cases are answered; the other one of val and test stays untouched.
        calibration_cases: labelled validation cases, drawn by `seed`, on which a temperature of each arm is
            fitted before the answers count (`calibrating.py`); never more than are answered;
            0 fits none, as do ``generate`` and ``split: val``.
        folds: so many folds of the training cases: each recipe is trained on all of them, and once more
            without each fold. Its specialist answers by the mean of all, and the pool of all voices
            (`pooling.py`) is fitted, too, on what was said of cases by who never saw them. At least 2, or 0
            to train once, and fit the pool on validation cases alone.
        limit: answer at most this many cases, drawn by `seed`; all when None.
        quick: train specialists for fewer epochs (a demo's setting, not a benchmark's).
        leakage: what happens to training images that are, or nearly are, images to be answered:
            ``purge`` (left out of the index, so that no case finds itself; the specialists learn from the
            training split as it is given), ``purge_all`` (left out there, too) or ``refuse``.
        allow_leakage: kinds of leakage to let pass, by name: ``ids``, ``groups``, ``pixels``,
            ``near_duplicates``.
        max_broken: share of broken images above which the dataset is refused.
        heatmaps: so many cases of the page get heat maps of the specialists that have any; 0 for none.
        batch_cases: cases the generalist is handed at once; fixed, so that a resumed run forms the
            same batches.
        resamples: bootstrap resamples behind every interval.
        threads: CPU threads of torch; results may differ in the last digit between thread counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    data: Path
    modality: str | None = None
    seed: int = Field(default=0, ge=0)
    specialists: tuple[str, ...] = ()
    backbone: str = "embedded"
    generalist: str = "nano"
    template: str = "evidence"
    mode: Literal["score", "generate"] = "score"
    arms: tuple[Arm, ...] = ("generalist", "moed", "rad", "gsco")
    neighbours: int = Field(default=10, ge=1)
    examples: int = Field(default=4, ge=1)
    split: Literal["val", "test"] = "test"
    calibration_cases: int = Field(default=300, ge=0)
    folds: int = Field(default=0, ge=0)
    limit: int | None = Field(default=None, ge=1)
    quick: bool = False
    leakage: Literal["purge", "purge_all", "refuse"] = "purge"
    allow_leakage: tuple[Leak, ...] = ()
    max_broken: float = Field(default=0.05, ge=0.0, le=1.0)
    heatmaps: int = Field(default=24, ge=0)
    batch_cases: int = Field(default=8, ge=1)
    resamples: int = Field(default=2000, ge=100)
    threads: int | None = Field(default=None, ge=1)

    @field_validator("data")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        path = expanded(value)
        if not path.exists():
            path = find_dataset(str(value)) or path
        return normal_path(path)

    @field_validator("folds")
    @classmethod
    def _more_than_one_fold(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one fold leaves nothing to train on")
        return value

    @field_validator("generalist", "backbone")
    @classmethod
    def _absolute_where_a_folder(cls, value: str) -> str:
        return str(normal_path(Path(value))) if expanded(value).is_dir() else value

    @field_validator("specialists", "arms", "allow_leakage")
    @classmethod
    def _no_repeats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names an entry twice")
        return value

    @classmethod
    def parse(cls, values: dict[str, Any], *, where: str | None = None) -> RunConfig:
        """Validate `values`.

        Raises:
            RunError: an unknown key or a value out of range, in one line.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(str(part) for part in item['loc']) or 'config'}: {item['msg']} "
                f"(got {item.get('input')!r})"
                for item in error.errors()
            )
            raise RunError(
                problems, where=where, remedy="See `gsco run --help` for what is accepted."
            ) from None

    def to_yaml(self) -> str:
        """The text of ``config.yaml``, stable between runs."""
        values = self.model_dump(mode="json", by_alias=True)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, path: Path) -> RunConfig:
        """Read a ``config.yaml``.

        Raises:
            RunError: the file is missing, is not YAML, or holds what this version does not know.
        """
        if not path.exists():
            raise RunError(
                "no config.yaml here, so this is not a run folder",
                where=str(path.parent),
                remedy="Start a run with `gsco run --data DATA --out DIR`.",
            )
        return cls.parse(read_settings(path), where=str(path))

    def with_changes(self, changes: dict[str, Any]) -> RunConfig:
        """A copy with some fields replaced and validated."""
        return type(self).parse({**self.model_dump(by_alias=True), **changes})

    def contradictions(self, other: RunConfig) -> list[str]:
        """Fields in which `other` differs, as ``name: mine, not theirs``."""
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [f"{name} is {mine[name]}, not {theirs[name]}" for name in mine if mine[name] != theirs[name]]


def read_settings(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, not validated yet.

    Raises:
        RunError: there is no such file, or it is not YAML, or no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError("there is no such file", where=str(path), remedy="Name a YAML file.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(f"cannot be read ({type(error).__name__})", where=str(path)) from None
    if not isinstance(values, dict):
        raise RunError("is not a mapping of settings", where=str(path))
    return values
