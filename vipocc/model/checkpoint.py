"""Checkpoints: a folder with `model.safetensors` and the configuration that made it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vipocc import config as configuration
from vipocc.errors import CheckpointError, ConfigError, DeviceError, MissingInputError, UsageError
from vipocc.geometry.ndc import check_convention
from vipocc.model.card import CARD, model_card
from vipocc.model.config import ModelConfig
from vipocc.model.weights import load_weights

if TYPE_CHECKING:
    from vipocc.model.network import ViPOcc

WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
BEST = "best"
"""File in a run's `checkpoints/` whose text is the name of the best step's folder."""
FORMAT_VERSION = "1"

_STEP = re.compile(r"step_(\d+)")


def save(model: ViPOcc, folder: Path, config: Mapping[str, Any] | None = None) -> None:
    """Write a model into `folder`, made if need be; each file appears whole or not at all.

    Args:
        model: what to save.
        folder: where.
        config: the whole resolved configuration as plain values; only the model's part must be there. By default just
            that part and the pixel convention.
    """
    own = {"model": configuration.as_dict(model.config), "data": {"convention": model.convention}}
    values = own if config is None else dict(config)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    aside = folder / f".{WEIGHTS}.partial"
    save_file(tensors, aside, metadata={"format": "pt", "vipocc_format_version": FORMAT_VERSION})
    os.replace(aside, folder / WEIGHTS)
    aside = folder / f".{CONFIG}.partial"
    aside.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    os.replace(aside, folder / CONFIG)


def save_with_card(
    model: ViPOcc, folder: Path, config: Mapping[str, Any] | None = None, source: Mapping[str, Any] | None = None
) -> None:
    """As `save`, and write a model card beside it, unless a card is there that somebody may have edited.

    `config` is by default the whole configuration of the checkpoint that the model was loaded from, if its part for the
    model still holds; `source` is that of an imported file.
    """
    if config is None and model.loaded_config.get("model") == configuration.as_dict(model.config):
        config = model.loaded_config
    save(model, folder, config)
    if not (folder / CARD).exists():
        parameters = sum(parameter.numel() for parameter in model.parameters())
        aside = folder / f".{CARD}.partial"
        aside.write_text(model_card(read_config(folder), parameters, source), encoding="utf-8")
        os.replace(aside, folder / CARD)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration saved in a checkpoint as plain values; raises `CheckpointError` where there is none."""
    try:
        return configuration.read(folder / CONFIG)
    except ConfigError as error:
        raise CheckpointError(
            "not a checkpoint, or a damaged one",
            where=error.where,
            fix="name a folder such as runs/*/checkpoints/step_*",
        ) from None


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint; raises `CheckpointError` where the file is absent, truncated or altered."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError("the checkpoint has no weights", where=path, fix="choose another checkpoint")
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"the weights are truncated or damaged ({error})", where=path, fix="choose another checkpoint"
        ) from None
    return tensors


def load(folder: Path, device: str | torch.device = "cpu") -> ViPOcc:
    """Build the model of a checkpoint by its own configuration, in evaluation mode, with no network access.

    Raises:
        CheckpointError: no checkpoint, a damaged one, or one whose tensors do not fit its configuration.
        DeviceError: the device is not there.
    """
    from vipocc.model.network import ViPOcc

    values = read_config(folder)
    try:
        config = configuration.validate(values.get("model", {}), ModelConfig)
        convention = values["data"]["convention"]
        check_convention(convention)
    except (ConfigError, UsageError) as error:
        raise CheckpointError(f"the checkpoint's configuration is not ours: {error}", where=folder / CONFIG) from None
    except (KeyError, TypeError):
        raise CheckpointError("the checkpoint's configuration lacks data.convention", where=folder / CONFIG) from None
    model = ViPOcc(config, convention, initialise=False)
    load_into(model, folder)
    model.loaded_config = values
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"cannot use the device {device} ({str(error).splitlines()[0]})", fix="use cpu") from None


def load_into(model: ViPOcc, folder: Path) -> None:
    """Give a model the weights of a checkpoint, all of which must fit.

    Raises:
        CheckpointError: naming the tensors that are missing, unknown or of another shape, with both shapes.
    """
    load_weights(
        model,
        read_weights(folder),
        folder / WEIGHTS,
        fix="use the configuration saved beside it, or train anew with this one",
    )


def find_checkpoint(runs: Path, which: Literal["best", "last"] = "best", run: str | None = None) -> Path:
    """Return the folder of a checkpoint: the best or last of the run named `run`, else of the newest that has any.

    Raises:
        MissingInputError: there is no such run or checkpoint.
    """
    folders = sorted(path for path in runs.glob("*/checkpoints") if _steps(path))
    if run is not None:
        folders = [path for path in folders if path.parent.name == run]
    if not folders:
        what = "there is no checkpoint" if run is None else f"the run '{run}' has no checkpoint"
        raise MissingInputError(what, where=runs, fix="run `vipocc train`")
    newest = folders[-1]
    if which == "last":
        return _steps(newest)[-1]
    marker = newest / BEST
    if not marker.is_file():
        raise MissingInputError(
            "this run was never validated, so no checkpoint is its best", where=newest, fix="ask for the last one"
        )
    best = newest / marker.read_text(encoding="utf-8").strip()
    if best not in _steps(newest):
        raise MissingInputError("the best checkpoint is gone", where=best, fix="ask for the last one")
    return best


def _steps(checkpoints: Path) -> list[Path]:
    found = []
    for path in checkpoints.iterdir():
        match = _STEP.fullmatch(path.name)
        if match and (path / WEIGHTS).is_file():
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found)]
