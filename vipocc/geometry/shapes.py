"""Checks of array shapes at the public boundary, with the shape that came in the message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import UsageError

if TYPE_CHECKING:
    import torch

    FloatArray = TypeVar("FloatArray", NDArray[np.floating[Any]], torch.Tensor)
    """Whatever came in goes out: a NumPy array or a torch tensor."""
    AnyArray: TypeAlias = NDArray[Any] | torch.Tensor

Float64: TypeAlias = NDArray[np.float64]
Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want is None or got == want for got, want in zip(shape, wanted, strict=True)
    )


def _told(wanted: tuple[int | None, ...]) -> str:
    return ", ".join("any" if size is None else str(size) for size in wanted)


def expect_shape(name: str, array: AnyArray, *trailing: int | None) -> None:
    """Raise UsageError unless the last axes of `array` are `trailing`; None stands for any size.

    A leading batch of any rank, also none, is let through.
    """
    shape = tuple(array.shape)
    if len(shape) < len(trailing) or not _fits(shape[len(shape) - len(trailing) :], trailing):
        raise UsageError(f"{name} must have shape [..., {_told(trailing)}], not {list(shape)}")


def expect_rank(name: str, array: AnyArray, *shape: int | None) -> None:
    """Raise UsageError unless `array` has exactly the axes `shape`; None stands for any size."""
    if not _fits(tuple(array.shape), shape):
        raise UsageError(f"{name} must have shape [{_told(shape)}], not {list(array.shape)}")


def expect_size(name: str, size: Size) -> None:
    """Raise UsageError unless `size` is (height, width), both positive."""
    if len(size) != 2 or size[0] < 1 or size[1] < 1:
        raise UsageError(f"{name} must be (height, width), both positive, not {tuple(size)}")
