"""Checkpoints written from a copy in memory, in a thread, while training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vipocc import config as configuration
from vipocc.model.network import ViPOcc
from vipocc.progress import say
from vipocc.training.ema import WeightAverage
from vipocc.training.state import RunState, write_checkpoint


class Saver:
    """Writes the checkpoints of a run, one after another.

    What is saved is copied to host memory before `save` returns, so the next step may change everything; an error of
    the writer is raised by the next `check`, `save` or `close`.
    """

    def __init__(self, folder: Path, config: Any) -> None:
        self.folder, self.config = folder, config
        self._twin: ViPOcc | None = None
        self._thread = ThreadPoolExecutor(1, "checkpoint") if config.training.save_in_background else None
        self._writing: Future[Path] | None = None

    def save(self, model: ViPOcc, state: RunState, *, average: WeightAverage | None = None, best: bool = False) -> Path:
        """Write a checkpoint of a model, or begin to, and return the folder that it is or will be.

        Args:
            model: the model, on any device.
            state: where the run stands; with the device's own tensors, which are copied.
            average: the average of the weights, which is then what is saved as the model, and the weights with the
                state.
            best: mark it as the best.

        Raises:
            StoreError: this checkpoint, or in the background the one before it, could not be written.
        """
        self._wait()
        if average is not None:
            state = replace(state, weights=average.live())
        kept = RunState(**on_host(vars(state)))
        with average.in_place() if average is not None else nullcontext():
            twin = self._copy(model)

        def write() -> Path:
            return write_checkpoint(
                self.folder,
                kept,
                lambda folder: twin.save_pretrained(folder, configuration.as_dict(self.config)),
                keep=self.config.training.keep,
                best=best,
            )

        if self._thread is None:
            return write()
        self._writing = self._thread.submit(write)
        return self.folder / f"step_{state.step}"

    def check(self) -> None:
        """Raise the error of a write that has failed; costs nothing while one is under way."""
        if self._writing is not None and self._writing.done():
            self._wait()

    def close(self, *, failing: bool = False) -> None:
        """Wait for the last write; while the run is `failing` of something else its error is said and not raised."""
        try:
            self._wait()
        except Exception as error:
            if not failing:
                raise
            say(str(error))
        finally:
            if self._thread is not None:
                self._thread.shutdown()

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _copy(self, model: ViPOcc) -> ViPOcc:
        """Return the model on the CPU: one twin, whose memory every checkpoint uses again."""
        if self._twin is None:
            with torch.random.fork_rng(devices=[]):  # building a network draws from the global generator
                self._twin = ViPOcc(model.config, model.convention, initialise=False)
        self._twin.load_state_dict(model.state_dict())
        return self._twin


def on_host(value: Any) -> Any:
    """Return a copy of nested dicts and lists in which every tensor is a copy on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: on_host(item) for key, item in value.items()}
    if isinstance(value, list):
        return [on_host(item) for item in value]
    return value
