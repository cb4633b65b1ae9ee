"""A specialist as one network, pixels in and logits out, and that network as an ONNX graph."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gsco.errors import ModelError
from gsco.specialists.backbones import Backbone, as_maps, pad_to
from gsco.specialists.bagged import LEAST, BaggedSpecialist
from gsco.specialists.epochs_head import EpochsHead
from gsco.specialists.knn import NearestNeighbours
from gsco.specialists.linear import LinearProbe
from gsco.specialists.named_networks import frozen_network
from gsco.specialists.networks import NetworkSpecialist
from gsco.specialists.runtimes import require
from gsco.specialists.trained import TrainedSpecialist

_OPSET = 17
_NEXT_TO_ONE = 1 - 1e-7  # in single precision


class Graph(nn.Module):
    """Pixels, uint8 (N, size, size, 3), to logits (N, options): normalise, pad, trunk, head."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, frozen: Backbone, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        mean, scale = frozen.normalisation
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.trunk = trunk
        self.head = head
        self.size = frozen.size
        self.pad = frozen.pad
        self.interpolation = frozen.interpolation

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The logits."""
        floats = pixels.permute(0, 3, 1, 2).to(torch.float32)
        normalised = pad_to((floats - self.mean) * self.scale, self.pad)
        logits: torch.Tensor = self.head(self.trunk(normalised))
        return logits


class _Pooled(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return as_maps(self.network, self.network.forward_features(x)).mean(dim=(2, 3))


class _BeforeLogits(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.network.forward_head(self.network.forward_features(x), pre_logits=True)
        return features.flatten(1)


class _FixedPool(nn.Module):
    """Adaptive average pooling of maps of one known size, as a product with two matrices."""

    down: torch.Tensor
    across: torch.Tensor

    def __init__(self, size: torch.Size, pooled: torch.Size) -> None:
        super().__init__()
        shares = nn.functional.adaptive_avg_pool1d
        self.register_buffer("down", shares(torch.eye(size[-2]), pooled[-2]).T)
        self.register_buffer("across", shares(torch.eye(size[-1]), pooled[-1]))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.down @ maps @ self.across


class _LinearHead(nn.Module):
    mean: torch.Tensor
    inverse: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, probe: LinearProbe | EpochsHead) -> None:
        super().__init__()
        mean, inverse = (
            (probe.mean, probe.inverse) if isinstance(probe, LinearProbe) else (np.zeros(1), np.ones(1))
        )
        self.register_buffer("mean", _tensor(mean))
        self.register_buffer("inverse", _tensor(inverse))
        self.register_buffer("weight", _tensor(probe.weight.T))
        self.register_buffer("bias", _tensor(probe.bias))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return ((features - self.mean) * self.inverse) @ self.weight + self.bias


class _VoteHead(nn.Module):
    """The vote of the k nearest training cases; see `NearestNeighbours`."""

    mean: torch.Tensor
    bank: torch.Tensor
    weighted: torch.Tensor
    prior: torch.Tensor

    def __init__(self, neighbours: NearestNeighbours) -> None:
        super().__init__()
        worth, prior = neighbours.ballots()
        self.k = min(neighbours.k, len(neighbours.bank))
        self.sharpness = neighbours.sharpness
        self.register_buffer("mean", _tensor(neighbours.mean))
        self.register_buffer("bank", _tensor(neighbours.bank.T))
        self.register_buffer("weighted", _tensor(np.eye(len(prior))[neighbours.labels] * worth[:, None]))
        self.register_buffer("prior", _tensor(prior))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        centred = features - self.mean
        query = centred / centred.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-12)
        near, order = torch.topk(query @ self.bank, self.k, dim=1)
        weights = torch.exp(self.sharpness * (near - near[:, :1]))
        votes = self.prior + (self.weighted[order] * weights[:, :, None]).sum(dim=1)
        return torch.log(votes / votes.sum(dim=1, keepdim=True))


def _tensor(values: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))


class _Joined(nn.Module):
    """What the members of a bag amount to; see `BaggedSpecialist`."""

    temperatures: torch.Tensor

    def __init__(self, bagged: BaggedSpecialist, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.multi_label = bagged.multi_label
        own = [
            one.label_temperatures if one.multi_label else np.full(len(one.options), one.temperature)
            for one in bagged.members
        ]
        self.register_buffer("temperatures", _tensor(np.stack(own)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = [member(x) / at for member, at in zip(self.members, self.temperatures, strict=True)]
        said = [torch.sigmoid(own) if self.multi_label else torch.softmax(own, dim=1) for own in logits]
        mean = torch.stack(said).mean(dim=0).clamp(LEAST, _NEXT_TO_ONE)
        return torch.logit(mean) if self.multi_label else torch.log(mean)


def graph_of(specialist: TrainedSpecialist) -> Graph:
    """The network and head of a specialist as one module, in eval mode.

    Raises:
        ModelError: this specialist cannot be a graph.
    """
    if isinstance(specialist, BaggedSpecialist):
        return _joined(specialist, [graph_of(member) for member in specialist.members])
    if isinstance(specialist, NetworkSpecialist):
        network = _for_one_size(specialist.plain_network(), specialist.pad or specialist.size)
        return Graph(specialist.network, network, nn.Identity()).eval()
    return _on_features(_checked(specialist))


def _for_one_size(network: Any, side: int) -> Any:
    """The network with what ONNX has no operation for, and depends on the input's size alone, worked out.

    That is adaptive pools to more than one place (AlexNet), and position embeddings that are interpolated
    with antialiasing (SAM's ViT). The network is changed.
    """
    positions = getattr(network, "pos_embed", None)
    if positions is not None and positions.ndim == 4:
        from timm.layers import resample_abs_pos_embed_nhwc

        grid = network.patch_embed.dynamic_feat_size((side, side))
        with torch.no_grad():
            network.pos_embed = nn.Parameter(resample_abs_pos_embed_nhwc(positions, grid))
    pools = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in {1, (1, 1)}
    }
    sizes: dict[str, tuple[torch.Size, torch.Size]] = {}
    for name, pool in pools.items():

        def saw(_pool: nn.Module, inputs: Any, output: torch.Tensor, name: str = name) -> None:
            sizes[name] = inputs[0].shape, output.shape

        pool.register_forward_hook(saw)
    if pools:
        with torch.inference_mode():
            network(torch.zeros(1, 3, side, side))
    for name, (size, pooled) in sizes.items():
        parent, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(parent), attribute, _FixedPool(size, pooled))
    return network


Head = LinearProbe | EpochsHead | NearestNeighbours


def _checked(specialist: TrainedSpecialist) -> Head:
    remedy = "Export a network, a linear probe or head, or (one label a case) nearest neighbours."
    if not isinstance(specialist, Head) or (
        isinstance(specialist, NearestNeighbours) and specialist.multi_label
    ):
        many = " with several labels a case" if specialist.multi_label else ""
        raise ModelError(
            f"a specialist of kind {specialist.kind!r}{many} cannot be exported",
            where=specialist.name,
            remedy=remedy,
        )
    if specialist.features not in {"pooled", "prelogits"}:
        raise ModelError(
            f"reads {specialist.features} features, which the network alone does not give",
            where=specialist.name,
            remedy=remedy,
        )
    return specialist


def _on_features(specialist: Head) -> Graph:
    frozen = specialist.backbone
    network, _ = frozen_network(
        specialist.backbone_name,
        pretrained=True,
        scratch_ok=not frozen.pretrained,
        side=specialist.pad or specialist.size,
    )
    _for_one_size(network, frozen.pad or frozen.size)
    trunk = _BeforeLogits(network) if specialist.features == "prelogits" else _Pooled(network)
    head = _VoteHead(specialist) if isinstance(specialist, NearestNeighbours) else _LinearHead(specialist)
    return Graph(frozen, trunk, head).eval()


def _joined(bagged: BaggedSpecialist, graphs: list[Graph]) -> Graph:
    """One graph of a bag; heads share the frozen network that they all stand on."""
    first = graphs[0]
    if isinstance(bagged.members[0], NetworkSpecialist):
        frozen: Backbone = bagged.members[0].network
        return Graph(frozen, nn.Identity(), _Joined(bagged, [graph.trunk for graph in graphs])).eval()
    frozen = bagged.members[0].backbone  # type: ignore[attr-defined]  # graph_of took it for a head
    return Graph(frozen, first.trunk, _Joined(bagged, [graph.head for graph in graphs])).eval()


def to_onnx(graph: Graph) -> bytes:
    """The graph in ONNX, with a free batch dimension.

    The tracing exporter is used: it folds batch norm into convolutions and takes seconds, where the one
    on torch.export takes minutes for the same graph. What it tells its own authors is not passed on.

    Raises:
        ModelError: onnx is not installed, or the exporter does not know an operation of the network.
    """
    require("onnx", "ONNX", "onnx")
    pixels = torch.zeros((2, graph.size, graph.size, 3), dtype=torch.uint8)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), _no_stdout():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit._trace.TracerWarning)
        try:
            torch.onnx.export(
                graph,
                (pixels,),
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                input_names=["pixels"],
                output_names=["logits"],
                dynamic_axes={"pixels": {0: "batch"}, "logits": {0: "batch"}},
                opset_version=_OPSET,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise ModelError(f"the network cannot be an ONNX graph ({first})") from error
    return buffer.getvalue()


@contextlib.contextmanager
def _no_stdout() -> Iterator[None]:
    """Nothing reaches the terminal: where an export fails, torch prints the whole graph from its C++ half."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "wb") as sink:  # noqa: PTH123 - no file of a user
            os.dup2(sink.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def shipped(specialist: TrainedSpecialist) -> Callable[[NDArray[np.uint8]], NDArray[Any]]:
    """The specialist as PyTorch runs it, fused, as a function of prepared pictures to logits."""
    if isinstance(specialist, BaggedSpecialist):
        each = [shipped(member) for member in specialist.members]
        return lambda pixels: specialist.joined([run(pixels) for run in each])
    if isinstance(specialist, NetworkSpecialist):
        network = specialist.network
        return lambda pixels: network.apply(list(pixels), lambda batch: [network.model(batch)])[0]
    head = _checked(specialist)
    backbone = head.backbone
    features = backbone.prelogits if head.features == "prelogits" else backbone.pooled
    return lambda pixels: head.score(features(list(pixels)))
