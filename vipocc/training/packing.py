"""A batch in one piece of memory: allocated once, handed between processes as one file, copied to a device at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# Of every tensor's start, so that any data type and any vector load finds its place.
_ALIGNMENT = 64

#: For each name the shape and data type of a tensor.
Shapes = Mapping[str, tuple[tuple[int, ...], torch.dtype]]


@dataclass(frozen=True)
class Packed:
    """Tensors by name that lie one after another in `memory`, a uint8 tensor `[bytes]`."""

    memory: Tensor
    layout: tuple[tuple[str, int, tuple[int, ...], torch.dtype], ...]
    """Name, first byte, shape and data type of each tensor."""

    @classmethod
    def allocate(cls, shapes: Shapes, *, shared: bool = False) -> Packed:
        """Return room for tensors, in memory that other processes can map if `shared`."""
        layout, at = [], 0
        for name, (shape, dtype) in shapes.items():
            layout.append((name, at, shape, dtype))
            at += -(-math.prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
        if shared:
            # What torch's own collation does. `share_memory_` would fill ordinary memory first and copy it.
            storage = torch.UntypedStorage._new_shared(at)
            memory = torch.empty(0, dtype=torch.uint8).set_(storage)
        else:
            memory = torch.empty(at, dtype=torch.uint8)
        return cls(memory, tuple(layout))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors, views of `memory`."""
        return {
            name: self.memory[first : first + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
            for name, first, shape, dtype in self.layout
        }

    def pin_memory(self) -> Packed:
        """Return the same in page-locked memory, from which copies to a device do not hold the host up."""
        return Packed(self.memory.pin_memory(), self.layout)

    def to(self, device: torch.device) -> Packed:
        """Return the same on a device, by one copy that does not hold the host up if the memory is page-locked."""
        return Packed(self.memory.to(device, non_blocking=True), self.layout)
