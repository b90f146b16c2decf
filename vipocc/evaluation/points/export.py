"""Writing the frames and the query points of a protocol, so that any method can be run on them elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.errors import StoreError, UsageError
from vipocc.evaluation.depth.view import rows_of_view
from vipocc.evaluation.inputs import frame_of
from vipocc.evaluation.predictors.layout import Meta, frame_file, points_digest
from vipocc.evaluation.protocols import Protocol, SweepProtocol
from vipocc.geometry.cameras import Pinhole

NAME = "my method"
FRAME = "key camera: x right, y down, z forward, origin at its centre; metres"


def contents(
    manifest: Manifest,
    keys: Sequence[FrameKey],
    protocol: Protocol,
    points: NDArray[np.float32] | None = None,
    grid: tuple[int, ...] = (),
) -> dict[str, NDArray[Any]]:
    """Return the arrays of the file; docs/evaluating-your-method.md describes each.

    Args:
        manifest: the dataset's.
        keys: the frames, of a pinhole camera.
        protocol: what will be measured.
        points: [N, 3] of occupancy in the key camera's frame; None for depth.
        grid: shape that those points form.
    """
    frames = [frame_of(manifest, key) for key in keys]
    models = [manifest.camera_model(key.sequence, key.camera) for key in keys]
    cameras = [one for one in models if isinstance(one, Pinhole)]
    if len(cameras) < len(models):
        raise UsageError("frames of a fisheye camera have no intrinsics matrix to be written")
    paths = [manifest.image_path(key.sequence, key.camera, key.row) for key in keys]
    meta = Meta(name=NAME, dataset=manifest.dataset, unit="metres", protocol=protocol.name)
    arrays: dict[str, NDArray[Any]] = {
        "sequence": np.array([frame.sequence for frame in frames]),
        "camera": np.array([frame.camera for frame in frames]),
        "frame_id": np.array([frame.frame_id for frame in frames], np.int64),
        "prediction": np.array([frame_file(frame.sequence, frame.camera, frame.frame_id) for frame in frames]),
        "image": np.array([Path(os.path.relpath(path, manifest.root)).as_posix() for path in paths]),
        "image_size": np.array([camera.size for camera in cameras], np.int64),
        "intrinsics": np.stack([camera.matrix for camera in cameras]),
        "rows": np.array([_rows(protocol, camera) for camera in cameras], np.int64),
    }
    if points is not None:
        told = {"points_digest": points_digest(points), "protocol_digest": protocol.digest}
        meta = meta.model_copy(update={"unit": "density", **told})
        arrays |= {"points": points, "grid": np.array(grid, np.int64), "points_frame": np.array(FRAME)}
    else:
        meta = meta.model_copy(update={"protocol_digest": protocol.digest})
    return {**arrays, "meta": np.array(json.dumps(meta.model_dump(), indent=1))}


def _rows(protocol: Protocol, camera: Pinhole) -> tuple[int, int]:
    """The image rows that a depth map covers: from, and up to but without."""
    if isinstance(protocol, SweepProtocol) and protocol.view is not None:
        return rows_of_view(camera, protocol.view)
    return 0, camera.height


def write_points(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write the arrays as `.npz`, whole or not at all.

    Raises:
        UsageError: the file's name does not end in `.npz`, or its folder is absent.
        StoreError: it cannot be written.
    """
    if path.suffix != ".npz":
        raise UsageError("points are written as .npz", where=path, fix="end the name given to --output in .npz")
    if not path.parent.is_dir():
        raise UsageError("there is no such folder", where=path.parent, fix="make it, or correct --output")
    aside = path.with_name(f".{path.name}.partial")
    try:
        with aside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StoreError(f"the points cannot be written ({error.strerror or error})", where=path) from None
