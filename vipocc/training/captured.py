"""Forward and backward pass of a step as one CUDA graph: a thousand kernels started by one call.

On a fast GPU the kernels of a step are over sooner than Python can start them. The graph holds everything from the
batch as it was read to the gradients; updating the weights, averaging them and logging stay outside. Its plain twin is
`vipocc.training.gradients.add_gradients`, which it records.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vipocc.errors import DeviceError
from vipocc.model.network import ViPOcc
from vipocc.training.failure import RawPart
from vipocc.training.gradients import add_gradients
from vipocc.training.seeds import derived_seed
from vipocc.training.step import prepare

#: Passes before recording, in which libraries choose their algorithms and reserve their memory.
WARM_UP = 3


class CapturedGradients:
    """Computes losses and gradients of batches of one shape by replaying a graph.

    Gradients stand in the parameters' `grad`, in memory of the graph's own: they must not be set to None in between.
    """

    def __init__(self, model: ViPOcc, config: Any, device: torch.device) -> None:
        """Take what the graph is to compute; it is recorded with the first batch.

        Args:
            model: the model, in training mode, on `device`.
            config: the resolved root configuration.
            device: a CUDA device.
        """
        self.model, self.config, self.device = model, config, device
        self._jitter = torch.Generator(device)
        self._given: dict[str, Tensor] = {}
        self._losses: dict[str, Tensor] = {}
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, part: RawPart) -> dict[str, Tensor]:
        """Return the losses of a batch as `add_gradients` does, having put its gradients into the parameters.

        Raises:
            DeviceError: some operation of the model or its losses cannot be part of a graph.
        """
        if self._graph is None:
            self._given = {name: values.to(self.device, copy=True) for name, values in part.raw.items()}
            self._graph = self._recorded(part.position)
        for name, values in part.raw.items():
            self._given[name].copy_(values, non_blocking=True)
        self._seed(part.position)
        self._graph.replay()
        return {name: loss.clone() for name, loss in self._losses.items()}

    def _seed(self, position: int) -> None:
        # What `RawPart.opened` seeds a generator with, so that both ways draw the same.
        self._jitter.manual_seed(derived_seed(self.config.seed, "jitter", position))

    def _gradients(self) -> dict[str, Tensor]:
        training = self.config.training
        jitter = self._jitter if training.sample_jitter else None
        return add_gradients(self.model, [lambda: (prepare(self._given, training, self.device), jitter)], training)

    def _recorded(self, position: int) -> torch.cuda.CUDAGraph:
        # The passes before recording move the statistics of batch normalisation, which then go back.
        before = [buffer.clone() for buffer in self.model.buffers()]
        aside = torch.cuda.Stream(self.device)
        aside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self._seed(position)
                self.model.zero_grad(set_to_none=True)
                self._gradients()
        torch.cuda.current_stream(self.device).wait_stream(aside)
        self.model.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._jitter)
        try:
            # Of this thread alone: the one that brings batches to the device may reserve memory meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._losses = self._gradients()
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise DeviceError(
                f"the step cannot be recorded as a CUDA graph ({str(error).splitlines()[0]})",
                fix="train with -o training.cuda_graph=false",
            ) from error
        with torch.no_grad():
            for buffer, value in zip(self.model.buffers(), before, strict=True):
                buffer.copy_(value)
        return graph
