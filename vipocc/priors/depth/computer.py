"""Computes the rows of depth.zarr, from prepared frames or from the dataset's own images."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import NonFiniteError
from vipocc.priors.config import DepthConfig
from vipocc.stores import SHARD, StoreReader, Unit

if TYPE_CHECKING:
    from vipocc.data_manifests.manifest import Manifest
    from vipocc.priors.depth.depth_anything import DepthAnything


@dataclass
class DepthComputer:
    """Depth Anything V2 on prepared frames; picklable until opened, the model loaded once per worker.

    Once opened, threads may share it: images are read side by side, the model is one thread's at a time.
    """

    frames: Path
    """frames.zarr."""
    config: DepthConfig
    rows_per_call: int = field(default=SHARD, init=False)
    _model: DepthAnything | None = field(default=None, init=False, repr=False)
    _reader: StoreReader | None = field(default=None, init=False, repr=False)
    _lock: Any = field(default=None, init=False, repr=False)

    def open(self, device: str) -> None:
        """Load the model onto `device`."""
        from vipocc.priors.depth.depth_anything import DepthAnything

        self._model, self._lock = DepthAnything(self.config, device), threading.Lock()
        # A GPU gets a whole unit, so that it never waits; on the CPU, progress is to move within one.
        self.rows_per_call = SHARD if device.startswith("cuda") else self._model.batch.size
        self._open_images()

    def units_at_once(self, device: str) -> int:
        """Return how many units a worker has in hand: one is read, one on the GPU, one written."""
        return 3 if device.startswith("cuda") else 1

    def compute(self, unit: Unit, rows: Sequence[int]) -> Mapping[str, NDArray[Any]]:
        """Return depth [len(rows), H, W] in metres."""
        assert self._model is not None
        images, size = self._images(unit, rows)
        try:
            with self._lock:
                depth = self._model(images, size)
        except NonFiniteError as error:
            raise NonFiniteError(error.what, where=f"{unit.group} rows {list(rows)}", fix=error.fix) from None
        return {"depth": depth}

    def notes(self) -> dict[str, Any]:
        """Return what a unit's record says of the computation besides what decides it."""
        assert self._model is not None
        return {"batch_size": self._model.batch.size}

    def close(self) -> None:
        """Let go of the model and the reader."""
        self._model = self._reader = self._lock = None

    def seconds_per_row(self, device: str, size: tuple[int, int]) -> float:
        """Return the time that one image of `size` takes, measured on the second of two batches of noise."""
        from vipocc.priors.depth.depth_anything import DepthAnything

        model = DepthAnything(self.config.model_copy(update={"compiled": False}), device)
        count = SHARD if device.startswith("cuda") else model.batch.size
        images = np.random.default_rng(0).integers(0, 256, (count, *self._image_size(size), 3), np.uint8)
        model(images, size)
        start = time.perf_counter()
        model(images, size)
        return (time.perf_counter() - start) / len(images)

    def _open_images(self) -> None:
        self._reader = StoreReader(self.frames)

    def _images(self, unit: Unit, rows: Sequence[int]) -> tuple[NDArray[np.uint8], tuple[int, int] | None]:
        """Return the images uint8 [n, H, W, 3] of some rows, and the size of their depth if it is another."""
        assert self._reader is not None
        return self._reader.read_many(unit.group, rows, "rgb"), None

    def _image_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) of what goes in where prepared images are of `size`."""
        return size


@dataclass
class RawDepthComputer(DepthComputer):
    """The same on the dataset's own rectified images, their depth brought to the size of the prepared ones."""

    manifest: Path = Path()
    """The manifest's file."""
    dataset: str = ""
    root: Path = Path()
    """Folder of the dataset."""
    size: tuple[int, int] = (0, 0)
    """Height and width of the prepared images."""
    raw_size: tuple[int, int] = (0, 0)
    """Height and width of the dataset's images, for the estimate of time."""
    _manifest: Manifest | None = field(default=None, init=False, repr=False)

    def _open_images(self) -> None:
        from vipocc.data_manifests.manifest import Manifest

        self._manifest = Manifest.load(self.manifest, dataset=self.dataset, root=self.root)

    def close(self) -> None:
        """Let go of the model and the manifest."""
        super().close()
        self._manifest = None

    def _images(self, unit: Unit, rows: Sequence[int]) -> tuple[NDArray[np.uint8], tuple[int, int] | None]:
        from vipocc.data_manifests.image_files import read_image

        assert self._manifest is not None
        sequence, camera = unit.group.split("/")
        model = self._manifest.camera_model(sequence, camera)
        paths = [self._manifest.image_path(sequence, camera, row) for row in rows]
        fix = "see `vipocc data check`"
        return np.stack([read_image(path, (model.height, model.width), fix) for path in paths]), self.size

    def _image_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.raw_size
