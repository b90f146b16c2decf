"""What `vipocc eval points` hands out: frames, points and calibration that a stranger can rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vipocc.data_manifests.manifest import CameraTable, FrameKey, Manifest, SequenceTable
from vipocc.errors import StoreError, UsageError
from vipocc.evaluation.occupancy.cells import plane_cells
from vipocc.evaluation.points.export import contents, write_points
from vipocc.evaluation.predictors.layout import Meta, points_digest
from vipocc.evaluation.protocols import CUBOID, DDAD_DEPTH, LIDAR_DEPTH, slice_protocol
from vipocc.geometry.cameras import Mei, Pinhole

CAMERA = Pinhole(552.5, 552.5, 682.0, 238.8, 1408, 376)


def manifest(model: Any = CAMERA) -> Manifest:
    camera = CameraTable(
        model,
        pa.array([f"drive/data/{n:010d}.png" for n in range(3)]),
        np.full(3, 100),
        np.tile(np.eye(4), (3, 1, 1)),
        np.full(3, 1 << 6, dtype=np.uint16),
    )
    table = SequenceTable(
        np.array([4, 8, 250]),
        np.full(3, np.nan),
        np.tile(np.eye(4), (3, 1, 1)),
        pa.array([None] * 3, pa.string()),
        {"image_00": camera},
    )
    return Manifest("kitti-360", Path("/data/KITTI-360"), {"drive": table})


KEYS = [FrameKey("drive", "image_00", 0), FrameKey("drive", "image_00", 2)]


@pytest.mark.parametrize(("protocol", "grid"), [(slice_protocol(), (160, 80)), (CUBOID, (4, 160, 80))])
def test_points_come_with_frames_calibration_and_a_meta_to_fill_in(tmp_path: Path, protocol: Any, grid: Any) -> None:
    cells = plane_cells(protocol)
    write_points(tmp_path / "points.npz", contents(manifest(), KEYS, protocol, cells.points, cells.shape))
    assert [path.name for path in tmp_path.iterdir()] == ["points.npz"]
    with np.load(tmp_path / "points.npz", allow_pickle=False) as held:
        assert tuple(held["grid"]) == grid
        points = held["points"].reshape(*grid, 3)
        assert held["prediction"].tolist() == [f"drive/image_00/{n:010d}.npy" for n in (4, 250)]
        assert held["image"].tolist() == [f"drive/data/{n:010d}.png" for n in (0, 2)]
        assert held["frame_id"].tolist() == [4, 250]
        assert held["image_size"].tolist() == [[376, 1408]] * 2
        assert np.array_equal(held["intrinsics"][1], CAMERA.matrix)
        meta = Meta.model_validate(json.loads(str(held["meta"])))
    assert (meta.dataset, meta.unit, meta.protocol, meta.protocol_digest) == (
        "kitti-360", "density", protocol.name, protocol.digest,
    )  # fmt: skip
    assert meta.points_digest == points_digest(points.reshape(-1, 3))
    # Rows from far to near, columns from left to right, and the camera looks 5 degrees down on the level plane.
    assert (np.diff(points[..., 2], axis=-2) < 0).all()
    assert (np.diff(points[..., 0], axis=-1) > 0).all()
    plane = points if points.ndim == 3 else points[1]
    z, y = 20.0, 0.375
    turn = np.deg2rad(5.0)
    expected = [np.cos(turn) * y - np.sin(turn) * z, np.cos(turn) * z + np.sin(turn) * y]
    assert plane[0, 0, 1:] == pytest.approx(expected, abs=1e-5)


def test_depth_has_frames_alone_and_the_rows_that_a_protocol_cuts() -> None:
    whole = contents(manifest(), KEYS, LIDAR_DEPTH)
    assert "points" not in whole
    assert Meta.model_validate(json.loads(str(whole["meta"]))).quantity == "depth"
    assert whole["rows"].tolist() == [[0, 376]] * 2
    cut = contents(manifest(Pinhole(2181.0, 2181.0, 928.0, 615.0, 1936, 1216)), KEYS, DDAD_DEPTH)["rows"]
    assert cut[0, 0] == 0  # DDAD looks less far up than KITTI-360
    assert 615 < cut[0, 1] < 1216


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    arrays = contents(manifest(), KEYS, LIDAR_DEPTH)
    with pytest.raises(UsageError, match=r"in \.npz"):
        write_points(tmp_path / "points.npy", arrays)
    with pytest.raises(UsageError, match="no such folder"):
        write_points(tmp_path / "nowhere" / "points.npz", arrays)
    (tmp_path / "points.npz").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        write_points(tmp_path / "points.npz", arrays)
    assert [path.name for path in tmp_path.iterdir()] == ["points.npz"]
    fisheye = Mei(2.2, 0.0, 0.0, 0.0, 0.0, 1336.0, 1335.0, 716.0, 705.0, 1400, 1400)
    with pytest.raises(UsageError, match="fisheye"):
        contents(manifest(fisheye), KEYS, LIDAR_DEPTH)
