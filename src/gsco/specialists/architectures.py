"""Networks that timm has not, with timm's face; and the ten of the MedMNIST+ benchmark by its names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn

from gsco.specialists.cnn import SmallCNN

REFERENCE: tuple[str, ...] = (
    "vgg16",
    "alexnet",
    "resnet18",
    "densenet121",
    "efficientnet_b4",
    "vit_base_patch16_224",
    "vit_base_patch16_clip_224",
    "eva02_base_patch16_clip_224",
    "vit_base_patch16_224.dino",
    "samvit_base_patch16",
)
"""Architectures of the MedMNIST+ benchmark (Doerrich et al., Sci Rep 15:7669, 2025), by its names."""

_HALF: dict[str, Any] = {"input_size": (3, 28, 28), "mean": (0.5,) * 3, "std": (0.5,) * 3}
_IMAGENET: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


def alexnet(num_classes: int = 1000) -> nn.Module:
    """torchvision's AlexNet, whose state dict is the reference's, with timm's methods; random weights."""
    from torchvision.models import AlexNet

    class TimmAlexNet(AlexNet):
        """AlexNet as timm's models are called."""

        pretrained_cfg: ClassVar[dict[str, Any]] = {**_IMAGENET, "architecture": "alexnet"}

        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            """(N, 3, H, W), at least 63 x 63, to maps (N, 256, h, w)."""
            maps: torch.Tensor = self.features(x)
            return maps

        def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
            """Maps to logits (N, num_classes), or to the 4,096 numbers before them."""
            x = torch.flatten(self.avgpool(x), 1)
            last: torch.Tensor = self.classifier[:-1](x) if pre_logits else self.classifier(x)
            return last

        def get_classifier(self) -> nn.Module:
            """The last layer."""
            last: nn.Module = self.classifier[-1]
            return last

    return TimmAlexNet(num_classes=num_classes)


def alexnet_weights() -> dict[str, torch.Tensor]:
    """ImageNet weights of AlexNet as torchvision publishes them; fails where they cannot be fetched."""
    from torchvision.models import AlexNet_Weights

    state: dict[str, torch.Tensor] = AlexNet_Weights.DEFAULT.get_state_dict(progress=False, check_hash=True)
    return state


def medmnist_resnet18(num_classes: int = 1000) -> nn.Module:
    """ResNet-18 for 28-pixel pictures: a 3 x 3 stem that keeps the size, and no pooling after it.

    The one behind the published 28-pixel figures (Yang et al., Sci Data 10:41, 2023); PyTorch's own
    initialisation, as there.
    """
    import timm

    model: Any = timm.create_model(
        "resnet18", pretrained=False, num_classes=num_classes, zero_init_last=False
    )
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    model.maxpool = nn.Identity()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    model.pretrained_cfg = {**_HALF, "architecture": "medmnist_resnet18"}
    made: nn.Module = model
    return made


def small_cnn(num_classes: int = 1000) -> nn.Module:
    """See `SmallCNN`."""
    model: Any = SmallCNN(num_classes)
    model.pretrained_cfg = {**_HALF, "input_size": (3, 64, 64), "architecture": "small_cnn"}
    made: nn.Module = model
    return made


OWN: dict[str, Callable[..., nn.Module]] = {
    "alexnet": alexnet,
    "medmnist_resnet18": medmnist_resnet18,
    "small_cnn": small_cnn,
}
"""Builders by name, each called with ``num_classes``."""
