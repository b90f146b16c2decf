"""A released file, read and understood: whose layout it has, which configuration it implies, which tensors are ours."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vipocc import config as configuration
from vipocc.errors import CheckpointError, ConfigError
from vipocc.model.config import ModelConfig
from vipocc.model.encoder import ResNetEncoder
from vipocc.model.released import layout
from vipocc.model.weights import refuse_misfits, shapes_of
from vipocc.torch_files import named_tensors, read_torch_file

System = Literal["ViPOcc", "BTS"]

RECIPE = (
    "python -c \"import torch; held = torch.load('FILE.pt', weights_only=False); "
    "torch.save({'model': held.get('model', held)}, 'weights.pt')\""
)
"""What turns a file that holds more than tensors into one that is read; it executes what stands in the file."""

_AGAIN = "download it again"
_TRUST = f"if you trust it, run on a machine that you can do without: {RECIPE}, and import weights.pt"
_OTHER = "name a .pt file of the released ViPOcc or BTS code"
_OURS = {"step", "samples", "optimiser"}


@dataclass(frozen=True)
class Released:
    """What a released file holds."""

    path: Path
    system: System
    """ViPOcc's layout has a depth branch, BTS's has none."""
    tensors: Mapping[str, Tensor]
    """All entries of the model, by the names in the file."""
    config: ModelConfig
    """What the shapes and the positional code imply; for the rest, the values of the profile `official`."""
    names: Mapping[str, str]
    """Our name of each tensor that our model has, with the one in the file."""
    unused: Mapping[str, tuple[int, ...]]
    """Entries of this layout that take part in no prediction, with their shapes, whether or not the file has them."""
    iteration: int | None
    """Steps of training, where the file is a training checkpoint, and not just the state of a model."""
    epoch: int | None
    """Whole epochs, likewise."""
    beside: tuple[str, ...]
    """What else the file holds beside the model; none of it is read."""

    @property
    def parameters(self) -> int:
        """Parameters in the file, unused ones included."""
        return layout.count(shapes_of(self.tensors))

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that our model has, by our names, copied out of the file."""
        return {ours: self.tensors[released].detach().clone() for ours, released in self.names.items()}


def read_released(path: Path) -> Released:
    """Read a checkpoint of the released ViPOcc or BTS code: a training checkpoint or the bare state of a model.

    Only tensors and plain values are unpickled, nothing is executed.

    Raises:
        CheckpointError: there is no such file; it is damaged, something else, or asks for more than tensors; or entries
            are missing, of another shape, or neither the model's nor in the list of unused ones (the first are named).
    """
    path = path.expanduser()
    _refuse_other_kinds(path)
    return understand(read_torch_file(path, again=_AGAIN, trust=_TRUST, numbers=True), path)


def understand(held: object, path: Path) -> Released:
    """Return what `read_released` does, of what a file held; errors likewise."""
    if isinstance(held, dict) and held.keys() >= _OURS:
        raise CheckpointError(
            "this is the training state of a run of vipocc", where=path, fix="its checkpoint is the folder it lies in"
        )
    training = isinstance(held, dict) and isinstance(held.get("model"), dict)
    model = held["model"] if isinstance(held, dict) and training else held
    tensors = named_tensors(model, path, fix=_OTHER)
    config = implied_config(tensors, path)
    names, unused = released_names(config, path), unused_entries(config)
    shapes = our_shapes(config)
    wanted = {released: shapes[ours] for ours, released in names.items()}
    refuse_misfits(shapes_of(tensors), wanted, path, optional=unused, fix=_OTHER)
    iteration, epoch = _progress(held if training else None)
    beside = tuple(sorted(map(str, held))) if isinstance(held, dict) and training else ()
    return Released(
        path,
        "BTS" if config.depth_branch.kind == "none" else "ViPOcc",
        tensors,
        config,
        names,
        unused,
        iteration,
        epoch,
        tuple(name for name in beside if name != "model"),
    )


def implied_config(tensors: Mapping[str, Tensor], where: Path) -> ModelConfig:
    """Return the model that tensors by released names are of: its sizes by their shapes, the rest by `official`.

    Raises:
        CheckpointError: they are of something else.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            some = ", ".join(f"{key} {list(value.shape)}" for key, value in list(tensors.items())[:3])
            raise CheckpointError(
                f"not a checkpoint of ViPOcc or BTS, it holds {some} and no {name}", where=where, fix=_OTHER
            )
        return tuple(tensors[name].shape)

    def widths(prefix: str) -> tuple[int, ...]:
        return tuple(shape(f"{prefix}{2 * index}.conv.conv.bias")[0] for index in range(layout.STAGES))[::-1]

    system = "vipocc" if any(name.startswith(layout.BRANCH) for name in tensors) else "bts"
    official = configuration.load("vipocc", profile="official").model
    values: dict[str, Any] = configuration.as_dict(official)
    # What the weights began from; no checkpoint is loaded by it.
    pretrained = "imagenet" if system == "vipocc" else "imagenet-v1"
    values["encoder"] = {"name": _resnet(tensors, layout.ENCODER), "pretrained": pretrained}
    channels = shape(f"{layout.DECODER}{2 * layout.STAGES}.conv.bias")[0]
    values["decoder"] |= {"widths": widths(layout.DECODER), "channels": channels}
    hidden, inputs = (*shape(layout.HEAD + "lin_in.weight"), 0, 0)[:2]
    frequencies = (inputs - channels - 3) // 6
    values["field"] |= {"hidden": hidden, "frequencies": max(frequencies, 1)}
    values["field"]["base_frequency"] = _base_frequency(tensors, max(frequencies, 1), where)
    if system == "vipocc":
        values["depth_branch"] |= {
            "encoder": {"name": _resnet(tensors, layout.BRANCH_ENCODER), "pretrained": pretrained},
            "widths": widths(layout.BRANCH_DECODER),
        }
    else:
        values["depth_branch"]["kind"] = "none"
    try:
        found: ModelConfig = configuration.validate(values, ModelConfig)
    except ConfigError as error:
        raise CheckpointError(
            f"its tensors are of no model that there is ({error.what})", where=where, fix=_OTHER
        ) from None
    return found


def our_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the tensors of the model of a configuration by our names, with their shapes."""
    from vipocc.model.network import ViPOcc

    with torch.device("meta"):
        return shapes_of(ViPOcc(config, "official", initialise=False).state_dict())


def released_names(config: ModelConfig, where: object) -> dict[str, str]:
    """Return our names of the tensors of a configuration's model, each with the one in released files.

    Raises:
        CheckpointError: the released code has no such tensor.
    """
    names = {}
    for ours in our_shapes(config):
        released = layout.released_name(ours)
        if released is None:
            raise CheckpointError(
                f"released files have no place for {ours}", where=where, fix="keep the checkpoint in our own format"
            )
        names[ours] = released
    return names


def unused_entries(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return what `layout.unused_entries` gives for a configuration."""
    branch = None
    with torch.device("meta"):
        levels = ResNetEncoder(config.encoder).channels
        if config.depth_branch.kind != "none":
            branch = (ResNetEncoder(config.depth_branch.encoder).channels, config.depth_branch.widths)
    decoder = config.decoder
    return layout.unused_entries(levels, decoder.widths, decoder.channels, config.field.frequencies, branch)


def _resnet(tensors: Mapping[str, Tensor], prefix: str) -> str:
    if f"{prefix}layer1.0.conv3.weight" in tensors:
        return "resnet50"
    return "resnet34" if f"{prefix}layer1.2.conv1.weight" in tensors else "resnet18"


def _base_frequency(tensors: Mapping[str, Tensor], frequencies: int, where: Path) -> float:
    given = tensors.get(layout.CODE + "_freqs")
    if given is None:
        return 1.5
    base = float(given.flatten()[0]) if given.numel() else 0.0
    phases = tensors.get(layout.CODE + "_phases", layout.code_phases(frequencies))
    for found, wanted in (
        (given, layout.code_frequencies(frequencies, base)),
        (phases, layout.code_phases(frequencies)),
    ):
        if found.shape != wanted.shape or not torch.allclose(found.float(), wanted, rtol=1e-5, atol=1e-6):
            raise CheckpointError(
                f"its positional code is not {frequencies} octaves of sine and cosine, as the width of "
                f"{layout.HEAD}lin_in says",
                where=where,
                fix=_OTHER,
            )
    return base


def _progress(held: object) -> tuple[int | None, int | None]:
    trainer = held.get("trainer") if isinstance(held, dict) else None
    if not isinstance(trainer, dict):
        return None, None
    iteration, length = trainer.get("iteration"), trainer.get("epoch_length")
    epoch = trainer.get("epoch")
    if not isinstance(epoch, int) and isinstance(iteration, int) and isinstance(length, int) and length > 0:
        epoch = iteration // length
    return (iteration if isinstance(iteration, int) else None), (epoch if isinstance(epoch, int) else None)


def _refuse_other_kinds(path: Path) -> None:
    if path.is_dir():
        if (path / "model.safetensors").is_file() and (path / "config.yaml").is_file():
            raise CheckpointError(
                "this is a checkpoint of vipocc already",
                where=path,
                fix=f"use it as it is, as in `vipocc eval occupancy --checkpoint {path}`",
            )
        files = sorted(file.name for file in path.glob("*.pt"))
        there = f"it holds {', '.join(files[:3])}" if files else "there is no .pt file in it"
        raise CheckpointError(f"a folder, {there}", where=path, fix=_OTHER)
    if not path.is_file():
        raise CheckpointError("there is no such file", where=path, fix=_OTHER)
    metadata = _safetensors_metadata(path)
    if metadata is None:
        return
    if "vipocc_format_version" in metadata:
        raise CheckpointError(
            "these are the weights of a checkpoint of vipocc", where=path, fix="use the folder that the file lies in"
        )
    raise CheckpointError("a safetensors file, which the released code does not write", where=path, fix=_OTHER)


def _safetensors_metadata(path: Path) -> dict[str, Any] | None:
    """Return the metadata of a safetensors file, None for a file of another kind."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= min(path.stat().st_size - 8, 100_000_000):
                return None
            header = json.loads(file.read(length))
    except (OSError, ValueError, struct.error, UnicodeDecodeError):
        return None
    if not isinstance(header, dict):
        return None
    metadata = header.get("__metadata__")
    return dict(metadata) if isinstance(metadata, dict) else {}
