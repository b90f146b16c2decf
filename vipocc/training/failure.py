"""What is kept of a step that was not finite, and that step done again: `vipocc train --reproduce DUMP`."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vipocc import config as configuration
from vipocc.errors import CheckpointError
from vipocc.model import checkpoint as model_checkpoint
from vipocc.model.network import ViPOcc
from vipocc.training.gradients import Part, add_gradients
from vipocc.training.seeds import torch_generator
from vipocc.training.step import prepare

BATCH = "batch.pt"


@dataclass(frozen=True)
class RawPart:
    """A collated part of a batch as it was read, with the position in the run that its jitter is drawn from."""

    raw: dict[str, Tensor]
    position: int

    def on_host(self) -> RawPart:
        """Return a copy on the CPU, each tensor with memory of its own, as saving needs it."""
        return RawPart({name: values.to("cpu", copy=True) for name, values in self.raw.items()}, self.position)

    def opened(self, config: Any, device: torch.device) -> Part:
        """Return what prepares this part on a device."""

        def part() -> Any:
            jitter = None
            if config.training.sample_jitter:
                jitter = torch_generator(device, config.seed, "jitter", self.position)
            return prepare(self.raw, config.training, device), jitter

        return part


@dataclass(frozen=True)
class Reproduced:
    """A step done again from its dump."""

    step: int
    losses: dict[str, float]
    """Of the whole step."""
    alone: dict[str, float]
    """The loss of each sample on its own, by its name; batch normalisation then sees nothing else."""
    parameters: list[str]
    """Names of the parameters whose gradient is not finite."""

    @property
    def finite(self) -> bool:
        """Whether the step is finite here."""
        return all(map(math.isfinite, self.losses.values())) and not self.parameters

    def lines(self) -> list[str]:
        """Return what to tell a user."""
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items())
        lines = [f"step {self.step} again: {values}"]
        if self.finite:
            return [*lines, "here loss and gradients are finite: try the device and precision of the run"]
        if self.parameters:
            lines.append(
                f"gradients that are not finite: {len(self.parameters)}, the first of them {self.parameters[0]}"
            )
        culprits = [name for name, value in self.alone.items() if not math.isfinite(value)]
        return [*lines, f"samples whose own loss is not finite: {', '.join(culprits) or 'none'}"]


def write_dump(folder: Path, step: int, parts: Sequence[RawPart], samples: Sequence[str]) -> None:
    """Write the batch of a step, on the host; the caller writes the weights that it met and the configuration."""
    content = {
        "step": step,
        "parts": [{"raw": dict(part.raw), "position": part.position} for part in parts],
        "samples": list(samples),
    }
    torch.save(content, folder / BATCH)


def reproduce(folder: Path, device: torch.device) -> Reproduced:
    """Do the step of a dump again, all its parts in this process, and return what came out.

    Raises:
        CheckpointError: the folder is no dump.
    """
    try:
        kept = torch.load(folder / BATCH, map_location="cpu", weights_only=True)
        step, samples = int(kept["step"]), list(kept["samples"])
        parts = [RawPart(part["raw"], int(part["position"])) for part in kept["parts"]]
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"this is no dump of a step ({type(error).__name__})",
            where=folder / BATCH,
            fix="name the folder nonfinite-step_N of a run",
        ) from None
    config = configuration.load(base=model_checkpoint.read_config(folder))
    model = ViPOcc(config.model, config.data.convention, initialise=False)
    model_checkpoint.load_into(model, folder)
    model = model.to(device).use_precision(config.training.dtype).train()
    losses = add_gradients(model, [part.opened(config, device) for part in parts], config.training)
    bad = [
        name
        for name, value in model.named_parameters()
        if value.grad is not None and not bool(torch.isfinite(value.grad).all())
    ]
    singles = [RawPart(_only(part.raw, at), part.position) for part in parts for at in range(len(part.raw["index"]))]
    alone: dict[str, float] = {}
    for name, single in zip(samples, singles, strict=True):
        model.zero_grad()
        alone[name] = float(add_gradients(model, [single.opened(config, device)], config.training)["total"])
    return Reproduced(step, {name: float(value) for name, value in losses.items()}, alone, bad)


def _only(raw: dict[str, Tensor], at: int) -> dict[str, Tensor]:
    return {name: values[at : at + 1] for name, values in raw.items()}
