"""What can be wrong with a predicted array, each as the reason that a report counts frames under."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.evaluation.predictors.layout import Meta


def unsound_depth(values: NDArray[Any], *, holes: bool) -> str | None:
    """Return what is wrong with a depth map, or None: it has to be positive metres [H, W], or NaN if `holes`."""
    if values.ndim != 2 or 0 in values.shape:
        return f"predicted depth has shape {_shape(values)}, not (height, width)"
    if values.dtype.kind != "f":
        return f"predicted depth is {values.dtype}, not floating-point metres"
    missing = np.isnan(values)
    if missing.all():
        return "predicted depth is NaN everywhere"
    if missing.any() and not holes:
        return "predicted depth has NaN, and meta.json does not say that it may have holes"
    if np.isinf(values).any():
        return "predicted depth is infinite"
    if (values[~missing] < 0).any():
        return "predicted depth is negative"
    if (values[~missing] == 0).any():
        return "predicted depth is 0 in places (NaN and holes say that there is none)"
    return None


def unsound_occupancy(values: NDArray[Any], meta: Meta, shapes: tuple[tuple[int, ...], ...]) -> str | None:
    """Return what is wrong with a frame's occupancy, or None.

    Args:
        values: the array.
        meta: says its unit.
        shapes: that it may have: [N], or the protocol's own grid. Another one of as many numbers is in another order.
    """
    if values.shape not in shapes:
        return f"predicted {meta.unit} has shape {_shape(values)}, not {' or '.join(str(one) for one in shapes)}"
    if values.dtype.kind not in "fbiu":
        return f"predicted {meta.unit} is {values.dtype}, not numbers"
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return f"predicted {meta.unit} is NaN or infinite"
    if meta.unit == "density":
        return "predicted density is negative" if (values < 0).any() else None
    if meta.unit == "occupancy":
        return None if np.isin(values, (0, 1)).all() else "predicted occupancy is not 0 or 1"
    return None if ((values >= 0) & (values <= 1)).all() else f"predicted {meta.unit} is outside 0 to 1"


def _shape(values: NDArray[Any]) -> str:
    return str(tuple(values.shape))
