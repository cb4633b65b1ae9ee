"""A small residual network that starts from nothing: the voice that never saw ImageNet."""

from __future__ import annotations

import itertools

import torch
from torch import nn

WIDTHS = (24, 48, 96, 160)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm and a shortcut; halves the side where `stride` is 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class SmallCNN(nn.Module):
    """A stem and four residual blocks, about 0.7 million weights.

    Args:
        num_classes: number of options.
        drop_rate: dropout before the classifier.
    """

    def __init__(self, num_classes: int, *, drop_rate: float = 0.2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTHS[0], 5, 2, 2, bias=False)
        self.stem_bn = nn.BatchNorm2d(WIDTHS[0])
        blocks = [ResidualBlock(WIDTHS[0], WIDTHS[0], 1)]
        blocks += [ResidualBlock(a, b, 2) for a, b in itertools.pairwise(WIDTHS)]
        self.blocks = nn.Sequential(*blocks)
        self.drop = nn.Dropout(drop_rate)
        self.classifier = nn.Linear(WIDTHS[-1], num_classes)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to the last maps (N, 160, H / 16, W / 16)."""
        maps: torch.Tensor = self.blocks(torch.relu(self.stem_bn(self.stem(x))))
        return maps

    def forward_head(self, x: torch.Tensor) -> torch.Tensor:
        """Maps to logits (N, num_classes)."""
        logits: torch.Tensor = self.classifier(self.drop(x.mean(dim=(2, 3))))
        return logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W), normalised, to logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))
