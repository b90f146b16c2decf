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
#: Name, first byte, shape and data type of each tensor.
Layout = tuple[tuple[str, int, tuple[int, ...], torch.dtype], ...]


@dataclass(frozen=True)
class Packed:
    """Tensors by name that lie one after another in `memory`, a uint8 tensor `[bytes]`."""

    memory: Tensor
    layout: Layout

    @classmethod
    def allocate(cls, shapes: Shapes) -> Packed:
        """Return room for tensors."""
        layout, length = _layout(shapes)
        return cls(torch.empty(length, dtype=torch.uint8), layout)

    def clone(self) -> Packed:
        """Return the same in memory of its own."""
        return Packed(self.memory.clone(), self.layout)

    def copy_from(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill some of the tensors.

        Raises:
            ValueError: one of them is of another shape or data type than there is room for.
        """
        room = self.tensors()
        for name, values in tensors.items():
            if name not in room or room[name].shape != values.shape or room[name].dtype != values.dtype:
                raise ValueError(f"there is no room for {name} {list(values.shape)} of {values.dtype} in the batch")
            room[name].copy_(values)

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


@dataclass(frozen=True)
class Rooms:
    """Rooms of one kind in one memory that other processes can map; pickled, they are the same rooms."""

    memory: Tensor
    """[rooms, bytes] uint8, shared."""
    layout: Layout

    @classmethod
    def allocate(cls, shapes: Shapes, count: int) -> Rooms:
        """Return `count` rooms.

        Raises:
            RuntimeError: there is too little shared memory.
        """
        layout, length = _layout(shapes)
        # What torch's own collation does. `share_memory_` would fill ordinary memory first and copy it.
        storage = torch.UntypedStorage._new_shared(max(count * length, 1))
        memory = torch.empty(0, dtype=torch.uint8).set_(storage)
        return cls(memory[: count * length].view(count, length), layout)

    def __len__(self) -> int:
        return len(self.memory)

    def __getitem__(self, room: int) -> Packed:
        return Packed(self.memory[room], self.layout)


def _layout(shapes: Shapes) -> tuple[Layout, int]:
    """Return where tensors lie one after another, and how many bytes that takes."""
    layout, at = [], 0
    for name, (shape, dtype) in shapes.items():
        layout.append((name, at, shape, dtype))
        at += -(-math.prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
    return tuple(layout), at
