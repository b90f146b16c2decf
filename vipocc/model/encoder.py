"""Image encoders: ResNets without their classifier, of any width, that return features at five scales."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from vipocc.model.config import EncoderConfig
from vipocc.model.imagenet import CLASSIFIER, initial_weights, without
from vipocc.model.weights import load_weights

MEAN = 0.45
"""Subtracted from images in [0, 1] before the first layer, all channels alike (Monodepth2's choice)."""
SCALE = 0.225
"""What images are divided by afterwards."""

_LAYOUTS: dict[str, tuple[Any, tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
"""Block class and number of blocks in each of the four stages."""


class ResNetEncoder(nn.Module):
    """A ResNet that returns its five levels; at width 1, parameter for parameter torchvision's without `fc`.

    `channels` are those of the levels, which stand at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's size.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        block, depths = _LAYOUTS[config.name]
        expansion = int(block.expansion)
        stem, *planes = [_scaled(channels, config.width) for channels in (64, 64, 128, 256, 512)]
        # Bottleneck derives its inner width from a base width of 64 per 64 planes, so scaling planes scales everything.
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = stem
        stages = []
        for index, (width, depth) in enumerate(zip(planes, depths, strict=True)):
            stages.append(_stage(block, inputs, width, depth, stride=1 if index == 0 else 2))
            inputs = width * expansion
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self._stages = ["layer1", "layer2", "layer3", "layer4"]
        self.channels = (stem, *(width * expansion for width in planes))
        _initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of images [B, 3, H, W] in [0, 1]: five tensors [B, channels[i], H/2^(i+1), W/2^(i+1)]."""
        x = (images - MEAN) / SCALE
        levels = [self.relu(self.bn1(self.conv1(x)))]
        x = self.maxpool(levels[0])
        for stage in self._stages:
            x = getattr(self, stage)(x)
            levels.append(x)
        return levels

    def drop_deepest(self) -> None:
        """Do without the deepest level from now on, in what is computed and in the parameters."""
        delattr(self, self._stages.pop())
        self.channels = self.channels[:-1]


def pretrained_encoder(config: EncoderConfig, option: str) -> ResNetEncoder:
    """Build an encoder and give it the initial weights its configuration names.

    Args:
        config: the encoder's section.
        option: that section's address, such as `model.encoder`, for messages.

    Raises:
        CheckpointError: the weights cannot be had, or belong to another architecture.
    """
    encoder = ResNetEncoder(config)
    if config.pretrained != "none":
        weights = initial_weights(config, option)
        load_weights(encoder, weights, config.pretrained, ignored=CLASSIFIER, fix=without(option))
    return encoder


def _scaled(channels: int, width: float) -> int:
    return max(8, round(channels * width / 8) * 8) if width != 1.0 else channels


def _stage(block: Any, inputs: int, planes: int, depth: int, stride: int) -> nn.Sequential:
    outputs = planes * int(block.expansion)
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
    blocks = [block(inputs, planes, stride, shortcut)]
    blocks += [block(outputs, planes) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


def _initialise(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
