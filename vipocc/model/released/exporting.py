"""A checkpoint of ours into a file that the released code loads."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vipocc import config as configuration
from vipocc.errors import CheckpointError
from vipocc.model.checkpoint import load
from vipocc.model.config import ModelConfig
from vipocc.model.network import ViPOcc
from vipocc.model.released import layout
from vipocc.model.released.reading import System, released_names, unused_entries

Unused = Literal["zeros", "omit"]


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    file: Path
    system: System
    entries: int
    parameters: int
    unused: int
    """Parameters that the released code has and never reads: zeros in the file, or left out of it."""
    notes: tuple[str, ...]
    """What the released configuration has to say for these weights to mean the same."""


def export_released(
    folder: Path, file: Path, *, unused: Unused = "zeros", bare: bool = False, overwrite: bool = False
) -> Exported:
    """Write a checkpoint folder as a file in the layout of the released code.

    Args:
        folder: a checkpoint of ours.
        file: the `.pt` to write.
        unused: what becomes of parameters that the released modules have and no prediction reads (classifier heads,
            the second decoder, coarser outputs): `zeros`, and a strict load succeeds, or `omit`. Buffers are always
            there, with their values.
        bare: write the state of the model alone, as the released "best" files, in place of `{"model": state}`.
        overwrite: replace a file that is there already.

    Raises:
        CheckpointError: the model has parts that the released code does not know, or the file is there already.
    """
    if file.exists() and not overwrite:
        raise CheckpointError("there is such a file already", where=file, fix="replace it with --overwrite")
    model = load(folder)
    refuse_unknown_parts(model.config, folder)
    state = released_state(model, unused)
    aside = file.with_name(f".{file.name}.partial-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state if bare else {"model": state}, aside)
        os.replace(aside, file)
    except (OSError, RuntimeError) as error:  # torch's writer raises the latter for a full disk
        raise CheckpointError(
            f"the file cannot be written ({str(error).splitlines()[0]})", where=file, fix="free some space"
        ) from None
    finally:
        aside.unlink(missing_ok=True)
    return Exported(
        file,
        "BTS" if model.config.depth_branch.kind == "none" else "ViPOcc",
        len(state),
        layout.count({name: tuple(tensor.shape) for name, tensor in state.items()}),
        layout.count(unused_entries(model.config)),
        tuple(_notes(model)),
    )


def released_state(model: ViPOcc, unused: Unused = "zeros") -> OrderedDict[str, Tensor]:
    """Return a model's tensors by released names, with buffers, and unused parameters as `export_released` says."""
    ours = model.state_dict()
    state = OrderedDict(
        (released, ours[name].detach().cpu()) for name, released in released_names(model.config, None).items()
    )
    field = model.config.field
    buffers = {
        layout.CODE + "_freqs": layout.code_frequencies(field.frequencies, field.base_frequency),
        layout.CODE + "_phases": layout.code_phases(field.frequencies),
        layout.RENDERER + "iter_idx": torch.tensor(0),
        layout.RENDERER + "last_sched": torch.tensor(0),
    }
    for name, shape in unused_entries(model.config).items():
        if name in buffers:
            state[name] = buffers[name]
        elif unused == "zeros":
            state[name] = torch.zeros(shape)
    return state


def refuse_unknown_parts(config: ModelConfig, where: object) -> None:
    """Raise `CheckpointError` if the released code cannot build the model, or would read its output otherwise."""
    known: dict[str, Any] = {
        "head.kind": "mlp",
        "decoder.kind": "monodepth",
        "encoder.width": 1.0,
    }
    if config.depth_branch.kind != "none":
        known |= {
            "depth_branch.kind": "inverse_residual",
            "depth_branch.encoder.width": 1.0,
            "depth_branch.decoder": "official",
            "depth_branch.refinement": "official",
            "depth_branch.min_depth": 0.1,
            "depth_branch.max_depth": 80.0,
        }
    for key, wanted in known.items():
        found: Any = config
        for part in key.split("."):
            found = getattr(found, part)
        if found != wanted:
            raise CheckpointError(
                f"the released code knows model.{key}={wanted} only, and this checkpoint has {found}",
                where=where,
                fix="train with --profile official for checkpoints that it can load",
            )


def _notes(model: ViPOcc) -> list[str]:
    """What differs from the released configuration, which no file holds."""
    notes = []
    if model.convention != "official":
        notes.append(
            f"trained with pixel convention '{model.convention}', the released code looks up to half a pixel aside"
        )
    given, released = model.config, configuration.load("vipocc", profile="official").model
    for key, name in (
        ("encoder.name", "the encoder"),
        ("decoder.widths", "decoder widths"),
        ("decoder.channels", "d_out"),
        ("field.frequencies", "num_freqs"),
        ("field.base_frequency", "freq_factor"),
        ("field.hidden", "the width of the MLP"),
        ("field.near", "z_near"),
        ("field.far", "z_far"),
        ("renderer.samples", "n_coarse"),
        ("renderer.hard_cap", "hard_alpha_cap"),
    ):
        value, usual = given, released
        for part in key.split("."):
            value, usual = getattr(value, part), getattr(usual, part)
        if value != usual:
            notes.append(f"set {name} to {value} in the released configuration (usually {usual})")
    return notes
