"""Computes the rows of depth.zarr from prepared frames."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import NonFiniteError
from vipocc.priors.config import DepthConfig
from vipocc.stores import StoreReader, Unit

if TYPE_CHECKING:
    from vipocc.priors.depth.depth_anything import DepthAnything


@dataclass
class DepthComputer:
    """Depth Anything V2 on prepared frames; picklable until opened, the model loaded once per worker."""

    frames: Path
    """frames.zarr."""
    config: DepthConfig
    rows_per_call: int = field(init=False)
    _model: DepthAnything | None = field(default=None, init=False, repr=False)
    _reader: StoreReader | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.rows_per_call = self.config.batch_size

    def open(self, device: str) -> None:
        """Load the model onto `device`."""
        from vipocc.priors.depth.depth_anything import DepthAnything

        self._model, self._reader = DepthAnything(self.config, device), StoreReader(self.frames)

    def compute(self, unit: Unit, rows: Sequence[int]) -> Mapping[str, NDArray[Any]]:
        """Return depth [len(rows), H, W] in metres."""
        assert self._model is not None
        assert self._reader is not None
        images = self._reader.read_many(unit.group, rows, "rgb")
        try:
            depth = self._model(images)
        except NonFiniteError as error:
            raise NonFiniteError(error.what, where=f"{unit.group} rows {list(rows)}", fix=error.fix) from None
        return {"depth": depth.astype(self.config.stored)}

    def close(self) -> None:
        """Let go of the model and the reader."""
        self._model = self._reader = None

    def seconds_per_row(self, device: str, size: tuple[int, int]) -> float:
        """Return the time that one image of `size` takes, measured on the second of two batches of noise."""
        from vipocc.priors.depth.depth_anything import DepthAnything

        model = DepthAnything(self.config, device)
        images = np.random.default_rng(0).integers(0, 256, (self.config.batch_size, *size, 3), np.uint8)
        model(images)
        start = time.perf_counter()
        model(images)
        return (time.perf_counter() - start) / len(images)
