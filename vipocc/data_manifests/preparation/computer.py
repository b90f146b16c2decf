"""What all computers of prepared rows share: the manifest, loaded in the worker, and sweeps read strictly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.sweeps import ANGULAR_BINS
from vipocc.data_manifests.manifest import Manifest
from vipocc.errors import DataError
from vipocc.stores import Unit


@dataclass
class ManifestComputer(ABC):
    """What all computers share: the manifest, loaded in the worker."""

    manifest_path: Path
    dataset: str
    root: Path
    config: DataConfig
    uses_device: ClassVar[bool] = False
    """Whether it computes on the device that it is opened on, if that is a GPU."""

    def open(self, device: str) -> None:
        """Load the manifest."""
        self.manifest = Manifest.load(self.manifest_path, dataset=self.dataset, root=self.root)

    def check(self, sequence: str) -> None:
        """Raise `DataError` for a file that `compute` would refuse, other than images and sweeps; before any work."""
        return

    @abstractmethod
    def compute(self, unit: Unit, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """Return the arrays of some rows of a unit, each [len(rows), ...]."""

    def close(self) -> None:
        """Let go of the manifest."""
        del self.manifest

    def way_out(self, path: Path) -> str:
        """Return what the user does when a file below the root is absent or damaged."""
        return adapter(self.dataset).way_out(path.relative_to(self.root).as_posix())

    def points(self, sequence: str, row: int) -> np.ndarray:
        """Return a row's sweep float32 [n, 3]; raises `DataError`."""
        path = self.manifest.lidar_path(sequence, row)
        if path is None:
            raise DataError(f"row {row} has no LiDAR scan", where=sequence)
        try:
            points = adapter(self.dataset).read_scan(path)
        except DataError as error:
            raise DataError(error.what, where=path, fix=self.way_out(path)) from None
        if len(points) < ANGULAR_BINS:
            raise DataError(f"a LiDAR scan has only {len(points)} points", where=path, fix=self.way_out(path))
        return points
