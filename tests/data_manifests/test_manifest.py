"""The manifest table: what goes in comes out, and what does not belong is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kitti_tree import DRIVE, SECOND, Tree

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import kitti_360
from vipocc.data_manifests.manifest import FrameKey, Manifest, role_bit
from vipocc.data_manifests.views import View, sample_views
from vipocc.errors import DataError, MissingInputError, UsageError


@pytest.fixture(scope="module")
def manifest(pristine: Tree) -> Manifest:
    made = Manifest("kitti-360", pristine.root, kitti_360.ADAPTER.index(pristine.root), digest="abc")
    left = np.zeros(made.rows(DRIVE), np.uint16)
    left[[2, 5]] = role_bit("train", "key"), role_bit("test", "key") | role_bit("train", "neighbour")
    right = np.zeros_like(left)
    right[2] = role_bit("train", "key")
    fisheye = np.zeros_like(left)
    fisheye[12] = role_bit("train", "fisheye")
    roles = {(DRIVE, "image_00"): left, (DRIVE, "image_01"): right, (DRIVE, "image_02"): fisheye}
    return made.with_roles(roles, {"train": {"a reason": 3}})


@pytest.fixture
def saved(manifest: Manifest, tmp_path: Path) -> Path:
    path = tmp_path / "manifests/kitti-360.parquet"
    manifest.save(path)
    return path


def test_round_trip(manifest: Manifest, saved: Path) -> None:
    again = Manifest.load(saved, dataset="kitti-360")
    assert again.sequences == [DRIVE, SECOND]
    assert (again.root, again.digest, again.left_out) == (manifest.root, "abc", {"train": {"a reason": 3}})
    for sequence in manifest.sequences:
        np.testing.assert_array_equal(again.frame_ids(sequence), manifest.frame_ids(sequence))
        np.testing.assert_array_equal(again.world_from_lidar(sequence), manifest.world_from_lidar(sequence))
        assert again.cameras(sequence) == manifest.cameras(sequence)
        for camera in manifest.cameras(sequence):
            assert again.camera_model(sequence, camera) == manifest.camera_model(sequence, camera)
            assert again.image_path(sequence, camera, 3) == manifest.image_path(sequence, camera, 3)
            for name in ("file_sizes", "world_from_camera", "roles", "has_image"):
                np.testing.assert_array_equal(
                    getattr(again, name)(sequence, camera), getattr(manifest, name)(sequence, camera)
                )
    assert again.lidar_path(DRIVE, 3) == manifest.root / f"data_3d_raw/{DRIVE}/velodyne_points/data/0000000004.bin"


def test_published_columns(saved: Path) -> None:
    table = pq.read_table(saved)
    assert len(table) == 2 * 4 * 20
    row = table.slice(2, 1).to_pylist()[0]
    assert (row["dataset"], row["sequence"], row["camera"], row["frame_id"], row["row"]) == (
        "kitti-360", DRIVE, "image_00", 3, 2,
    )  # fmt: skip
    assert row["roles"] == ["train:key"]
    assert row["camera_model"] == "pinhole"
    assert (row["fx"], row["xi"], row["width"], row["height"]) == (62.4, None, 160, 48)
    assert len(row["world_from_camera"]) == 16
    assert table["camera_model"].to_pylist()[45] == "mei"


def test_keys_and_needed_rows(manifest: Manifest) -> None:
    assert manifest.keys("train") == [FrameKey(DRIVE, "image_00", 2), FrameKey(DRIVE, "image_01", 2)]
    assert manifest.keys("all")[-1] == FrameKey(DRIVE, "image_00", 5)
    assert manifest.keys("val") == []
    needed = manifest.needed("train")
    assert {group: rows.tolist() for group, rows in needed.items()} == {
        (DRIVE, "image_00"): [2, 5],
        (DRIVE, "image_01"): [2],
    }
    assert manifest.needed("train", "all")[DRIVE, "image_02"].tolist() == [12]
    with pytest.raises(UsageError, match="no split 'tran'"):
        manifest.keys("tran")
    with pytest.raises(UsageError, match="no sequence"):
        manifest.rows("drive")
    with pytest.raises(DataError, match="frame 21 has no pose"):
        manifest.row_of(DRIVE, 21)


def test_published_view_order(manifest: Manifest) -> None:
    config = DataConfig()
    views = sample_views(manifest, FrameKey(DRIVE, "image_01", 4), config)
    assert views == [
        View("image_01", 4), View("image_01", 5), View("image_00", 4), View("image_00", 5),
        View("image_03", 14), View("image_03", 15), View("image_02", 14), View("image_02", 15),
    ]  # fmt: skip
    assert sample_views(manifest, FrameKey(DRIVE, "image_00", 4), DataConfig(fisheye=False)) == [
        View("image_00", 4), View("image_00", 5), View("image_01", 4), View("image_01", 5),
    ]  # fmt: skip
    with pytest.raises(DataError, match="too few for a sample at row 10"):
        sample_views(manifest, FrameKey(DRIVE, "image_00", 10), config)


def test_travels_to_workers(manifest: Manifest) -> None:
    again = pickle.loads(pickle.dumps(manifest))
    assert again.keys("all") == manifest.keys("all")


def test_absent_manifest_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="vipocc data index"):
        Manifest.load(tmp_path / "none.parquet")


def test_other_dataset_is_refused(saved: Path) -> None:
    with pytest.raises(DataError, match="of dataset 'kitti-360', not 'ddad'"):
        Manifest.load(saved, dataset="ddad")


@pytest.mark.parametrize("keep", [0, 100, -10])
def test_damaged_file_is_refused(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(DataError, match="vipocc data index"):
        Manifest.load(saved)


@pytest.mark.parametrize("column", ["path", "lidar_path"])
@pytest.mark.parametrize("bad", ["/etc/passwd", "../outside.png", "a/../../b.png", "C:\\x.png", "a\\..\\b.png", "a/.."])
def test_paths_cannot_leave_the_root(saved: Path, column: str, bad: str) -> None:
    table = pq.read_table(saved)
    values = table[column].to_pylist()
    values[7] = bad
    altered = table.set_column(table.schema.get_field_index(column), column, pa.array(values))
    pq.write_table(altered, saved)
    with pytest.raises(DataError, match="leaves the root"):
        Manifest.load(saved)


def test_missing_column_and_disorder_are_refused(saved: Path) -> None:
    table = pq.read_table(saved)
    pq.write_table(table.drop_columns("roles"), saved)
    with pytest.raises(DataError, match="no column roles"):
        Manifest.load(saved)
    pq.write_table(table.take(pa.array([1, 0, *range(2, len(table))])), saved)
    with pytest.raises(DataError, match="not in order"):
        Manifest.load(saved)


def test_root_inside_the_workspace_moves_with_it(manifest: Manifest, tmp_path: Path) -> None:
    inside = Manifest("synthetic", tmp_path / "a/synthetic", {DRIVE: manifest.table(DRIVE)})
    inside.save(tmp_path / "a/manifests/synthetic.parquet")
    (tmp_path / "a").rename(tmp_path / "b")
    assert Manifest.load(tmp_path / "b/manifests/synthetic.parquet").root == tmp_path / "b/synthetic"


def test_failed_save_leaves_the_old_file(manifest: Manifest, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(_writer: pq.ParquetWriter, _table: pa.Table) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="no space"):
        manifest.save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
