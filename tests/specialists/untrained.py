"""Networks that nobody trained, as specialists: enough to see whether two ways to run them agree."""

from __future__ import annotations

import torch

from gsco.specialists.named_networks import create_network
from gsco.specialists.networks import NetworkSpecialist

HALF = (0.5, 0.5, 0.5)


def network(
    architecture: str, size: int, options: tuple[str, ...], pad: int | None = None
) -> NetworkSpecialist:
    """An untrained network with batch statistics that are not the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model, _ = create_network(architecture, pretrained=False, num_classes=len(options), side=pad or size)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    made = NetworkSpecialist(
        name="net",
        recipe="finetuned",
        options=options,
        architecture=architecture,
        size=size,
        mean=HALF,
        std=HALF,
        pad=pad,
    )
    made.adopt(model.state_dict())
    made.temperature = 0.7
    made.reliability = 0.6
    return made
