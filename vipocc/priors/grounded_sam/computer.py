"""Computes the rows of instances.zarr from prepared frames."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vipocc.priors.config import SamConfig
from vipocc.priors.grounded_sam.records import pack
from vipocc.stores import StoreReader, Unit

if TYPE_CHECKING:
    from vipocc.priors.grounded_sam.detector import GroundingDino
    from vipocc.priors.grounded_sam.segmenter import Sam


@dataclass
class InstancesComputer:
    """Grounding DINO and SAM on prepared frames; picklable until opened, the models loaded once per worker."""

    frames: Path
    """frames.zarr."""
    config: SamConfig
    rows_per_call: int = field(init=False)
    _models: tuple[GroundingDino, Sam] | None = field(default=None, init=False, repr=False)
    _reader: StoreReader | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.rows_per_call = self.config.batch_size

    def open(self, device: str) -> None:
        """Load the models onto `device`."""
        self._models, self._reader = self._load(device), StoreReader(self.frames)

    def compute(self, unit: Unit, rows: Sequence[int]) -> Mapping[str, NDArray[Any]]:
        """Return the padded records and the map of masks of every row."""
        assert self._models is not None
        assert self._reader is not None
        return self._records(self._models, np.asarray(self._reader.read_many(unit.group, rows, "rgb")))

    def close(self) -> None:
        """Let go of the models and the reader."""
        self._models = self._reader = None

    def seconds_per_row(self, device: str, size: tuple[int, int]) -> float:
        """Return the time that one image of `size` takes, measured on a batch of noise after a first, unmeasured one."""
        models = self._load(device)
        images = np.random.default_rng(0).integers(0, 256, (self.config.batch_size, *size, 3), np.uint8)
        self._records(models, images)
        start = time.perf_counter()
        self._records(models, images)
        # Noise may hold nothing to segment; the encoder, nearly all of SAM's time, is then timed by itself.
        spent = time.perf_counter() - start
        return spent / len(images)

    def _load(self, device: str) -> tuple[GroundingDino, Sam]:
        from vipocc.priors.grounded_sam.detector import GroundingDino
        from vipocc.priors.grounded_sam.segmenter import Sam

        return GroundingDino(self.config, device), Sam(self.config, device)

    def _records(self, models: tuple[GroundingDino, Sam], images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        detector, segmenter = models
        detections = detector(images)
        return dict(pack(detections, segmenter(images, detections), images.shape[1], images.shape[2]))
