"""A function of tensors as a CUDA graph: at batch 1 a network's kernels end sooner than Python starts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vipocc.errors import DeviceError

#: Calls before recording, in which libraries choose their algorithms and reserve their memory.
WARM_UP = 3


@dataclass
class _Recorded:
    graph: torch.cuda.CUDAGraph
    given: tuple[Tensor, ...]
    result: Tensor


class Replayed:
    """Calls a function of tensors by replaying a graph, one for each set of shapes and types of its arguments.

    On the CPU it calls the function as it is. No gradients; what the function reads besides its arguments, such as
    weights, must stay where it is in memory, and draws of random numbers would repeat.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        """Take a function of tensors on one device that returns a tensor and asks the host for nothing."""
        self.function = function
        self._recorded: dict[tuple[tuple[torch.Size, torch.dtype], ...], _Recorded] = {}

    @torch.no_grad()
    def __call__(self, *tensors: Tensor) -> Tensor:
        """Return what the function returns, in memory that the next call with such arguments overwrites.

        Raises:
            DeviceError: the function cannot be recorded.
        """
        if not tensors[0].is_cuda:
            return self.function(*tensors)
        kind = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        if kind not in self._recorded:
            self._recorded[kind] = self._record(tensors)
        recorded = self._recorded[kind]
        for place, tensor in zip(recorded.given, tensors, strict=True):
            place.copy_(tensor, non_blocking=True)
        recorded.graph.replay()
        return recorded.result

    def _record(self, tensors: tuple[Tensor, ...]) -> _Recorded:
        given = tuple(tensor.clone() for tensor in tensors)
        device = given[0].device
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self.function(*given)
        torch.cuda.current_stream(device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            # Of this thread alone: the one that brings batches to the device may reserve memory meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = self.function(*given)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise DeviceError(
                f"this function cannot be recorded as a CUDA graph ({str(error).splitlines()[0]})",
                fix="call it as it is",
            ) from error
        return _Recorded(graph, given, result)
