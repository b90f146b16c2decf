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
from vipocc.priors.grounded_sam.records import Detections, pack
from vipocc.stores import StoreReader, Unit

if TYPE_CHECKING:
    from vipocc.priors.grounded_sam.detector import Detector
    from vipocc.priors.grounded_sam.segmenter import Segmenter


@dataclass
class InstancesComputer:
    """Grounding DINO and SAM on prepared frames; picklable until opened, the models loaded once per worker."""

    frames: Path
    """frames.zarr."""
    config: SamConfig
    rows_per_call: int = field(init=False)
    _models: tuple[Detector, Segmenter] | None = field(default=None, init=False, repr=False)
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
        detector, segmenter = self._models
        images = np.asarray(self._reader.read_many(unit.group, rows, "rgb"))
        detections = detector(images)
        return pack(detections, segmenter(images, detections), images.shape[1], images.shape[2])

    def close(self) -> None:
        """Let go of the models and the reader."""
        self._models = self._reader = None

    def seconds_per_row(self, device: str, size: tuple[int, int]) -> float:
        """Return the time that one image of `size` takes, measured on the second of two batches of noise.

        Eight boxes are segmented in each image: noise itself may hold none, and SAM would not run.
        """
        detector, segmenter = self._load(device)
        images = np.random.default_rng(0).integers(0, 256, (self.config.batch_size, *size, 3), np.uint8)
        boxes = np.tile(np.array([0.2, 0.2, 0.6, 0.6]) * np.tile(size[::-1], 2), (8, 1)).astype(np.float32)
        found = [Detections(boxes, np.ones(8, np.float32), np.zeros(8, np.int16))] * len(images)
        for _ in range(2):
            start = time.perf_counter()
            detector(images)
            segmenter(images, found)
        return (time.perf_counter() - start) / len(images)

    def _load(self, device: str) -> tuple[Detector, Segmenter]:
        from vipocc.priors.grounded_sam.detector import GroundingDino
        from vipocc.priors.grounded_sam.segmenter import Sam

        return GroundingDino(self.config, device), Sam(self.config, device)
