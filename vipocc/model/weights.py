"""Giving a module the tensors of a file, all of which must fit: nothing is filled in or dropped in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import Tensor, nn

from vipocc.errors import CheckpointError

Shapes: TypeAlias = Mapping[str, Sequence[int]]
NAMED = 3
"""How many of the tensors that do not fit an error names."""


def load_weights(
    module: nn.Module, weights: Mapping[str, Tensor], where: object, *, ignored: tuple[str, ...] = (), fix: str
) -> None:
    """Load a state dict that must fit exactly but for the names in `ignored`.

    Raises:
        CheckpointError: naming the first tensors that are missing, unknown or of another shape.
    """
    given = {name: tensor for name, tensor in weights.items() if name not in ignored}
    refuse_misfits(shapes_of(given), shapes_of(module.state_dict()), where, fix=fix)
    module.load_state_dict(given)


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def refuse_misfits(given: Shapes, wanted: Shapes, where: object, *, optional: Shapes | None = None, fix: str) -> None:
    """Refuse tensors that are missing, unknown or of another shape; `optional` ones may be there or not.

    Raises:
        CheckpointError: naming the first of them with their shapes.
    """
    expected = {**(optional or {}), **wanted}
    problems = [
        f"{name} is {list(given[name])} but the model's is {list(shape)}"
        for name, shape in expected.items()
        if name in given and list(given[name]) != list(shape)
    ]
    problems += [f"{name} {list(shape)} is missing" for name, shape in wanted.items() if name not in given]
    problems += [
        f"{name} {list(shape)} is unknown to the model" for name, shape in given.items() if name not in expected
    ]
    if problems:
        more = f" (and {len(problems) - NAMED} more)" if len(problems) > NAMED else ""
        raise CheckpointError(
            f"weights of another architecture: {', '.join(problems[:NAMED])}{more}", where=where, fix=fix
        )
