"""Initial weights of image encoders: torchvision's for ImageNet, fetched once, or those of a file."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.request import urlopen

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import ResNet18_Weights, ResNet34_Weights, ResNet50_Weights

from vipocc.errors import CheckpointError
from vipocc.model.config import EncoderConfig
from vipocc.torch_files import named_tensors, read_torch_file

CLASSIFIER = ("fc.weight", "fc.bias")
"""What torchvision's files hold and an encoder does not."""

TIMEOUT = 30
"""Seconds without a byte after which a download is given up."""

_EDITIONS = {
    ("resnet18", "imagenet"): ResNet18_Weights.IMAGENET1K_V1,
    ("resnet34", "imagenet"): ResNet34_Weights.IMAGENET1K_V1,
    ("resnet50", "imagenet"): ResNet50_Weights.IMAGENET1K_V2,
    ("resnet18", "imagenet-v1"): ResNet18_Weights.IMAGENET1K_V1,
    ("resnet34", "imagenet-v1"): ResNet34_Weights.IMAGENET1K_V1,
    ("resnet50", "imagenet-v1"): ResNet50_Weights.IMAGENET1K_V1,
}
"""`imagenet` is what the released ViPOcc takes (of the smaller ones there is one edition only); BTS took version 1."""


def initial_weights(config: EncoderConfig, option: str) -> Mapping[str, Tensor]:
    """Return the tensors that `config.pretrained` names, by torchvision's names, with the classifier.

    Args:
        config: an encoder's section, whose `pretrained` is not `none`.
        option: that section's address, such as `model.encoder`, for messages.

    Raises:
        CheckpointError: they cannot be fetched or read; the message tells which file to fetch by hand and where to.
    """
    if (config.name, config.pretrained) in _EDITIONS:
        return _imagenet(config, option)
    return _of_file(Path(config.pretrained).expanduser(), option)


def imagenet_file(config: EncoderConfig) -> Path:
    """Return where ImageNet weights are kept, whether or not they are there: torch's own folder ($TORCH_HOME)."""
    url: str = _EDITIONS[config.name, config.pretrained].url
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def without(option: str) -> str:
    """Return the sentence that tells how to go on without these weights."""
    return f"train from scratch with -o {option}.pretrained=none, or name a file with -o {option}.pretrained=PATH"


def _imagenet(config: EncoderConfig, option: str) -> Mapping[str, Tensor]:
    url: str = _EDITIONS[config.name, config.pretrained].url
    path = imagenet_file(config)
    if not path.is_file():
        try:
            _download(url, path)
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise CheckpointError(
                f"cannot get the ImageNet weights of {config.name} ({str(reason) or type(error).__name__})",
                where=url,
                fix=f"fetch that file by hand and put it at {path}, or {without(option)}",
            ) from None
    # torchvision names a file by the first eight digits of its SHA-256.
    digits = path.stem.rpartition("-")[2]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(digits):
        raise CheckpointError(
            f"the ImageNet weights of {config.name} are damaged, their checksum is not {digits}…",
            where=path,
            fix=f"delete this file, and it is fetched again from {url}",
        )
    return _of_file(path, option)


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside it and renamed, so that two processes that start together do not read each other's half.
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with urlopen(url, timeout=TIMEOUT) as source, aside.open("wb") as target:
            shutil.copyfileobj(source, target)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _of_file(path: Path, option: str) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(
            "there is no file of encoder weights",
            where=path,
            fix=f"besides a path, imagenet and imagenet-v1 are known; {without(option)}",
        )
    if path.suffix == ".safetensors":
        try:
            tensors: dict[str, Tensor] = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"the encoder weights are truncated or damaged ({error})", where=path, fix=without(option)
            ) from None
        return tensors
    held = read_torch_file(
        path,
        again=without(option),
        trust=f"if you trust it, save its state_dict alone with torch.save, and name that with -o {option}.pretrained",
    )
    return named_tensors(held, path, fix=without(option))
