"""Where true depth comes from: sparse LiDAR in a store, raw sweeps, the synthetic world's exact depth."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.depth_raster import eigen_mask, sparse_depth, sparse_depth_eigen
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.data_manifests.preparation.lidar import LidarComputer
from vipocc.errors import DataError
from vipocc.evaluation.depth.view import Depth, TruthReader, pinhole, rows_of_view
from vipocc.evaluation.inputs import RowReader, committed, group_of
from vipocc.evaluation.protocols import SweepProtocol
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.poses import relative
from vipocc.stores.spec import SHARD, Unit
from vipocc.workspace import Workspace


def lidar_truth(reader: RowReader) -> TruthReader:
    """Return a reader of the sparse depth in `lidar.zarr`."""

    def read(key: FrameKey) -> Depth | str:
        group = group_of(key)
        if not committed(reader, group, key.row):
            return "no lidar depth"
        return np.asarray(reader.read(group, key.row, "depth"), np.float32)

    return read


def prepared_lidar_truth(workspace: Workspace, manifest: Manifest, config: DataConfig) -> TruthReader:
    """Return a reader of what `lidar.zarr` would hold of a frame, made from its sweep when it is asked for."""
    computer = LidarComputer(workspace.manifest, manifest.dataset, manifest.root, config)
    computer.manifest = manifest  # in place of `open`, which would read it once more

    def read(key: FrameKey) -> Depth | str:
        if manifest.lidar_path(key.sequence, key.row) is None:
            return "no LiDAR sweep"
        unit = Unit(group_of(key), key.row // SHARD)
        return np.asarray(computer.compute(unit, [key.row])["depth"][0], np.float32)

    return read


def exact_truth(manifest: Manifest) -> TruthReader:
    """Return a reader of the synthetic world's exact depth, which nothing but the protocol `exact` may open."""
    from vipocc.data_manifests.synthetic.exact import ExactTruth

    truth = ExactTruth(manifest.root)

    def read(key: FrameKey) -> Depth:
        frame_id = int(manifest.frame_ids(key.sequence)[key.row])
        return truth.depth(key.sequence, key.camera, frame_id)

    return read


def sweep_truth(manifest: Manifest, protocol: SweepProtocol) -> TruthReader:
    """Return a reader of raw sweeps, rasterised at the raw image's resolution as the protocol says.

    Pixels that the protocol does not count are NaN. Where it has a view, the rows of that view are returned alone.
    """
    raster = _eigen if protocol.dataset == "kitti-raw" else _nearest
    sees_car = lru_cache(lambda sequence, camera: _car(manifest, sequence, camera))

    def read(key: FrameKey) -> Depth | str:
        path = manifest.lidar_path(key.sequence, key.row)
        if path is None:
            return "no LiDAR sweep"
        camera_from_lidar = relative(
            manifest.world_from_camera(key.sequence, key.camera)[key.row],
            manifest.world_from_lidar(key.sequence)[key.row],
        )
        model = pinhole(manifest, key)
        depth = raster(adapter(manifest.dataset).read_scan(path), camera_from_lidar, model)
        car = sees_car(key.sequence, key.camera)
        if car is not None:
            depth = np.where(car, np.nan, depth)
        if protocol.view is not None:
            depth = depth[slice(*rows_of_view(model, protocol.view))]
        counts = (depth > protocol.floor) & (depth < (np.inf if protocol.cap is None else protocol.cap))
        return np.where(counts, depth, np.nan).astype(np.float32)

    return read


def _eigen(points: NDArray[np.float32], camera_from_lidar: NDArray[np.float64], model: Pinhole) -> Depth:
    """KITTI Raw as every Eigen-split table has it, inside the Garg crop (published_system.md 1.7)."""
    depth = sparse_depth_eigen(points, model.matrix @ camera_from_lidar[:3], model.size)
    return np.where(eigen_mask(depth), depth, np.nan).astype(np.float32)


def _nearest(points: NDArray[np.float32], camera_from_lidar: NDArray[np.float64], model: Pinhole) -> Depth:
    return sparse_depth(points, camera_from_lidar, model.matrix, model.size)


def _car(manifest: Manifest, sequence: str, camera: str) -> NDArray[np.bool_] | None:
    """Where a camera sees its own car [H, W], which is no depth of the scene; None where it does not or nobody says."""
    path = adapter(manifest.dataset).mask(manifest.root, sequence, camera)
    if path is None:
        return None
    seen = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    model = manifest.camera_model(sequence, camera)
    if seen is None or seen.shape != (model.height, model.width):
        raise DataError("the mask of the car is unreadable or not of the image's size", where=path)
    return np.asarray(seen == 0)
