"""Reading any specialist back from its folder."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gsco.errors import ModelError
from gsco.specialists.conformal import ConformalSets
from gsco.specialists.plugins import KINDS_GROUP, plugin_kind, plugins
from gsco.specialists.trained import FORMAT, Tensors, TrainedSpecialist

Runtime = Literal["auto", "pytorch"]
_KINDS = {
    "linear": "gsco.specialists.linear:LinearProbe",
    "knn": "gsco.specialists.knn:NearestNeighbours",
    "network": "gsco.specialists.networks:NetworkSpecialist",
    "onnx": "gsco.specialists.wrapped_onnx:OnnxSpecialist",
    "epochs_head": "gsco.specialists.epochs_head:EpochsHead",
    "plain_knn": "gsco.specialists.plain_knn:PlainNeighbours",
    "exported": "gsco.specialists.exported:ExportedSpecialist",
    "bagged": "gsco.specialists.bagged:BaggedSpecialist",
}


def load_specialist(
    folder: Path | str, *, cache: Path | None = None, runtime: Runtime = "auto"
) -> TrainedSpecialist:
    """Read any specialist written by ``save_pretrained``.

    Args:
        folder: the specialist's folder.
        cache: where features are kept; features are not kept when None.
        runtime: ``auto`` lets the runtime answer that was found fastest on this machine
            (`gsco.specialists.chosen`), and PyTorch where there is none, or where a head finds its
            features in the cache; ``pytorch`` always PyTorch.

    Raises:
        ModelError: the folder is missing, incomplete, damaged, or of another kind.
    """
    folder = Path(folder)
    config = read_config(folder)
    tensors = _class_of(config["kind"])._read(folder)
    try:
        made = restored(config, tensors, cache)
    except ModelError as error:
        raise ModelError(error.what, where=error.where or str(folder), remedy=error.remedy) from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelError(
            f"config.json and the weights do not fit ({error})",
            where=str(folder),
            remedy="Train it again.",
        ) from error
    if runtime == "auto" and (folder / "runtime").is_dir():
        from gsco.specialists.bagged import principal
        from gsco.specialists.chosen import take_chosen

        take_chosen(made, folder, cached=getattr(principal(made), "cache", None) is not None)
    return made


def restored(config: dict[str, Any], tensors: Tensors, cache: Path | None) -> TrainedSpecialist:
    """The specialist that a ``config.json`` and its tensors describe.

    Raises:
        ModelError, KeyError, TypeError, ValueError, AttributeError, RuntimeError: they do not fit.
    """
    base = {
        "name": config["name"],
        "recipe": config["recipe"],
        "options": tuple(config["options"]),
        "multi_label": bool(config.get("multi_label", False)),
    }
    made = _class_of(config["kind"])._restore(base, config["model"], tensors, cache)
    made.names = config.get("names")  # older folders have none
    made.temperature = float(config["temperature"])
    if made.multi_label:
        made.label_temperatures = np.asarray(config["labels"]["temperatures"], dtype=np.float64)
        made.thresholds = np.asarray(config["labels"]["thresholds"], dtype=np.float64)
    made.reliability = config["reliability"]
    shares, sets = config.get("class_reliability"), config.get("conformal")  # older folders have none
    made.class_reliability = None if shares is None else tuple(map(float, shares))
    if shares is not None and len(shares) != len(made.options):
        raise ValueError(f"{len(shares)} class reliabilities for {len(made.options)} options")
    made.abstains_below = config.get("abstains_below")
    made.conformal = None if sets is None else ConformalSets.from_dict(sets)
    made.val_metrics = {
        key: float("nan") if value is None else value for key, value in config["val_metrics"].items()
    }
    made.details = config["details"]
    return made


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a specialist's folder; ModelError where it is not one."""
    path = folder / "config.json"
    remedy = "Give a folder written by save_pretrained, e.g. runs/NAME/specialists/linear_probe."
    if not folder.is_dir():
        raise ModelError("there is no such folder", where=str(folder), remedy=remedy)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError("holds no config.json", where=str(folder), remedy=remedy) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read ({error})", where=str(path), remedy=remedy) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        what = config.get("model_type") or config.get("architecture") if isinstance(config, dict) else None
        raise ModelError(
            f"is not a specialist{f' but a {what} model' if what else ''}", where=str(folder), remedy=remedy
        )
    if config.get("version") != 1 or not _is_known(config.get("kind")):
        raise ModelError(
            f"has the unknown kind {config.get('kind')!r}, version {config.get('version')!r}",
            where=str(folder),
            remedy="Upgrade gsco, install the package that brings it, or train it again.",
        )
    return config


def _is_known(kind: Any) -> bool:
    return kind in _KINDS or kind in plugins(KINDS_GROUP)


def _class_of(kind: str) -> type[TrainedSpecialist]:
    if kind not in _KINDS:
        return plugin_kind(kind)
    own: type[TrainedSpecialist] = resolve(_KINDS[kind])
    return own


def resolve(path: str) -> Any:
    """What ``module:attribute`` names."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
