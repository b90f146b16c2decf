"""Where the figures of a run go besides metrics.jsonl: TensorBoard, and Weights & Biases if it is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from vipocc import config as configuration
from vipocc.errors import ConfigError


class Sink(Protocol):
    """Takes the figures of steps."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of a step."""

    def close(self) -> None:
        """Finish what is on its way."""


class TensorBoard:
    """Event files in `tensorboard/` of the run."""

    def __init__(self, folder: Path, resumed_at: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purged = resumed_at + 1 if resumed_at else None
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purged)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Add each figure as a scalar."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of a project of Weights & Biases, named as the run's folder and gone on with when that is resumed."""

    def __init__(self, folder: Path, config: Any) -> None:
        import wandb  # type: ignore[import-not-found, unused-ignore]

        self._run: Any = wandb.init(
            project=config.training.wandb,
            name=folder.name,
            id=folder.name,
            dir=str(folder),
            config=configuration.as_dict(config),
            resume="allow",
        )

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the figures of a step."""
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """Finish the run there."""
        self._run.finish()


def check_sinks(training: Any) -> None:
    """Raise `ConfigError` if Weights & Biases is asked for and not installed; it is never imported unless asked for."""
    if training.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            "Weights & Biases is not installed",
            where=f"training.wandb={training.wandb}",
            fix="install it with `pip install wandb`, or set -o training.wandb=null",
        )


def open_sinks(folder: Path, config: Any, *, resumed_at: int) -> list[Sink]:
    """Return the sinks that the configuration asks for, for a run that goes on after step `resumed_at` (0: a new one).

    Raises:
        ConfigError: Weights & Biases is asked for and not installed.
    """
    check_sinks(config.training)
    sinks: list[Sink] = []
    if config.training.tensorboard:
        sinks.append(TensorBoard(folder, resumed_at))
    if config.training.wandb is not None:
        sinks.append(WeightsAndBiases(folder, config))
    return sinks
