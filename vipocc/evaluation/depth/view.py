"""Images of another camera brought to the vertical field of view that a network was trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.image_files import read_image
from vipocc.data_manifests.images import resize
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.errors import DataError, UsageError
from vipocc.evaluation.inputs import FrameSource
from vipocc.evaluation.predictors.prior import Priors
from vipocc.evaluation.report import Skipped
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.ndc import intrinsics_to_ndc, resize_intrinsics

View: TypeAlias = tuple[float, float]
"""Tangents of the angles from the optical axis to the upper and to the lower edge."""
Depth: TypeAlias = NDArray[np.float32]
TruthReader: TypeAlias = Callable[[FrameKey], "Depth | str"]
"""Returns a key's true depth [H, W] in metres, 0 or NaN where unknown; in words, why there is none."""


def pinhole(manifest: Manifest, key: FrameKey) -> Pinhole:
    """Return the calibration of a key's raw image; raises `DataError` if it is no pinhole camera."""
    model = manifest.camera_model(key.sequence, key.camera)
    if not isinstance(model, Pinhole):
        raise DataError("depth is evaluated in pinhole cameras only", where=f"{key.sequence} {key.camera}")
    return model


def rows_of_view(model: Pinhole, view: View) -> tuple[int, int]:
    """Return the first row of the raw image inside the view and the one after the last, whole pixels.

    A view that is higher than the image is as much of it as the image has; see `share_of_view`.
    """
    axis = model.cy + 0.5  # from the image's upper edge, pixel 0 being centred half a pixel below it
    top, bottom = round(axis - view[0] * model.fy), round(axis + view[1] * model.fy)
    return max(0, top), min(model.height, bottom)


def share_of_view(model: Pinhole, view: View) -> float:
    """Return how much of the view's height, on the image plane, the image has."""
    top, bottom = rows_of_view(model, view)
    return (bottom - top) / ((view[0] + view[1]) * model.fy)


class RawImages:
    """Stands in for `frames.zarr`: raw images cut to the view's rows and resized when they are asked for."""

    def __init__(self, manifest: Manifest, config: Any, view: View) -> None:
        self.manifest, self.config, self.view = manifest, config, view

    def has(self, group: str) -> bool:
        """Whether there is such a camera."""
        sequence, camera = group.split("/")
        return sequence in self.manifest.sequences and camera in self.manifest.cameras(sequence)

    def rows(self, group: str) -> NDArray[np.bool_]:
        """Which rows have an image."""
        return self.manifest.has_image(*group.split("/"))

    def read(self, group: str, row: int, array: str | None = None) -> NDArray[Any]:
        """Return uint8 RGB [H, W, 3] of the configured size; raises `DataError`."""
        sequence, camera = group.split("/")
        path = self.manifest.image_path(sequence, camera, row)
        model = pinhole(self.manifest, FrameKey(sequence, camera, row))
        fix = adapter(self.manifest.dataset).way_out(path.relative_to(self.manifest.root).as_posix())
        image = read_image(path, model.size, fix)[slice(*rows_of_view(model, self.view))]
        data = self.config.data
        return resize(np.ascontiguousarray(image), tuple(data.image_size), data.resize)


class ViewSource(FrameSource):
    """Images of a view's rows with the intrinsics that go with them."""

    def __init__(self, manifest: Manifest, config: Any, view: View, maps: Mapping[str, Any]) -> None:
        """Read raw images; `maps` must be empty, for stored maps are of whole images."""
        if maps:
            raise UsageError(
                f"this protocol crops images, and stored maps ({', '.join(sorted(maps))}) are of whole ones",
                fix="evaluate a model without model.head.maps",
            )
        super().__init__(manifest, RawImages(manifest, config, view), config)
        self.view = view
        self._faults: dict[FrameKey, str] = {}

    def split(self, keys: Sequence[FrameKey]) -> tuple[list[FrameKey], list[Skipped]]:
        """See `FrameSource`; nothing is prepared, so an image can only be absent from the dataset."""
        there, missing = super().split(keys)
        return there, [Skipped(one.frame, "image missing") for one in missing]

    def read_images(self, keys: Sequence[FrameKey], out: NDArray[np.uint8]) -> None:
        """See `FrameSource`; an image that cannot be read becomes black, and `readable` tells of it."""
        for at, key in enumerate(keys):
            try:
                out[at] = self.image(key)
            except DataError as error:
                out[at] = 0
                self._faults[key] = error.what

    def readable(self, truth: TruthReader) -> TruthReader:
        """Return a reader that gives the fault of an image in place of the truth, so that the frame is not judged."""
        return lambda key: self._faults.get(key) or truth(key)

    def intrinsics(self, key: FrameKey) -> NDArray[np.float32]:
        """Return normalised intrinsics [3, 3] of the cut image."""
        model, data = pinhole(self.manifest, key), self.config.data
        top, bottom = rows_of_view(model, self.view)
        matrix = np.array(model.matrix, np.float64)
        matrix[1, 2] -= top
        pixels = resize_intrinsics(matrix, (bottom - top, model.width), data.image_size, data.convention)
        return np.asarray(intrinsics_to_ndc(pixels, data.image_size, data.convention), np.float32)


class ViewPriors:
    """Pseudo-depth of whole prepared images on the pixels of cut ones, nearest."""

    def __init__(self, priors: Priors, manifest: Manifest, view: View, size: tuple[int, int]) -> None:
        self.priors, self.manifest, self.view, self.size = priors, manifest, view, size

    def has(self, key: FrameKey) -> bool:
        """See `Priors`."""
        return self.priors.has(key)

    def read(self, key: FrameKey) -> NDArray[Any]:
        """See `Priors`."""
        whole, model = self.priors.read(key), pinhole(self.manifest, key)
        top, bottom = rows_of_view(model, self.view)
        # The raw row at the middle of each row of the cut image, and the stored row that covers it.
        middles = top + (np.arange(self.size[0]) + 0.5) * (bottom - top) / self.size[0]
        rows = (middles * whole.shape[0] / model.height).astype(int).clip(0, whole.shape[0] - 1)
        columns = np.arange(self.size[1]) * whole.shape[1] // self.size[1]
        return np.asarray(whole[rows[:, None], columns[None, :]])
