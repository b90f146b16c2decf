"""Image encoders: ResNets without their classifier, of any width, that return features at five scales."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.resnet import BasicBlock, Bottleneck

from vipocc.errors import CheckpointError
from vipocc.model.config import EncoderConfig

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
_CLASSIFIER = ("fc.weight", "fc.bias")


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
        weights = _imagenet(config, option) if config.pretrained == "imagenet" else _from_file(config, option)
        load_weights(encoder, weights, config.pretrained, ignored=_CLASSIFIER, fix=_way_out(option))
    return encoder


def load_weights(
    module: nn.Module, weights: Mapping[str, Tensor], where: object, *, ignored: tuple[str, ...] = (), fix: str
) -> None:
    """Load a state dict that must fit exactly but for the names in `ignored`.

    Raises:
        CheckpointError: naming the first tensors that are missing, unknown or of another shape.
    """
    given = {name: tensor for name, tensor in weights.items() if name not in ignored}
    wanted = module.state_dict()
    problems = [
        f"{name} is {list(given[name].shape)} but the model's is {list(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    problems += [f"{name} {list(wanted[name].shape)} is missing" for name in wanted if name not in given]
    problems += [f"{name} {list(given[name].shape)} is unknown to the model" for name in given if name not in wanted]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(f"weights of another architecture: {', '.join(problems[:3])}{more}", where=where, fix=fix)
    module.load_state_dict(given)


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


def _way_out(option: str) -> str:
    return f"train from scratch with -o {option}.pretrained=none, or name a file with -o {option}.pretrained=PATH"


def _imagenet(config: EncoderConfig, option: str) -> Mapping[str, Tensor]:
    weights = get_model_weights(config.name).DEFAULT
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot get the ImageNet weights of {config.name} ({error})", where=weights.url, fix=_way_out(option)
        ) from None
    return state


def _from_file(config: EncoderConfig, option: str) -> Mapping[str, Tensor]:
    path = Path(config.pretrained).expanduser()
    if not path.is_file():
        raise CheckpointError("there is no file of encoder weights", where=path, fix=_way_out(option))
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, Tensor] = load_file(path)
            return tensors
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the two formats raise a dozen kinds on a damaged file
        raise CheckpointError(
            f"cannot read the encoder weights ({type(error).__name__})", where=path, fix=_way_out(option)
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError("this file holds no state dict of tensors", where=path, fix=_way_out(option))
    return state
