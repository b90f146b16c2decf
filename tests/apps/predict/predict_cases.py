"""A tiny checkpoint and pictures for the tests of `vipocc predict` and of the Python interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image

from vipocc import config as configuration
from vipocc.model.network import ViPOcc

_NARROW = ("model.encoder.width=0.25", "model.encoder.pretrained=none", "model.encoder.name=resnet18",
           "model.decoder.widths=[8,8,16,16,32]", "model.decoder.channels=16", "model.field.hidden=16",
           "model.renderer.samples=16", "data.image_size=[64,192]")  # fmt: skip
_BRANCH = ("model.depth_branch.encoder.width=0.25", "model.depth_branch.encoder.pretrained=none",
           "model.depth_branch.widths=[8,8,16,16,32]", "model.depth_branch.channels=16")  # fmt: skip


def tiny_checkpoint(folder: Path, *overrides: str, seed: int = 0) -> Path:
    """Write an untrained checkpoint of 64x192 pixels."""
    config = configuration.load("vipocc", overrides=(*_NARROW, *_BRANCH, *overrides))
    torch.manual_seed(seed)
    model = ViPOcc(config.model, config.data.convention, initialise=False)
    model.save_pretrained(folder, configuration.as_dict(config))
    return folder


def street(height: int = 188, width: int = 704, seed: int = 0) -> np.ndarray:
    """A smooth picture with some structure, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 12, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_phone(path: Path, *, orientation: int = 1, equivalent: float = 26.0) -> Path:
    """Write a JPEG as phones do: 4:3, its focal length in EXIF, perhaps stored lying on its side."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    inside = exif.get_ifd(ExifTags.IFD.Exif)
    inside[ExifTags.Base.FocalLengthIn35mmFilm] = equivalent
    inside[ExifTags.Base.ExifImageWidth], inside[ExifTags.Base.ExifImageHeight] = 800, 600
    Image.fromarray(street(600, 800)).save(path, exif=exif, quality=90)
    return path
