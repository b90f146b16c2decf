"""From a folder on disk to stores: what lands there, that a second run does nothing, that bad input changes nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kitti_tree import DRIVE, Tree

from vipocc import config as configuration
from vipocc.data_manifests import stage
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.ground_truth.depth_raster import sparse_depth_reference
from vipocc.data_manifests.ground_truth.occupancy import level_from_world, occupancy_ground_truth_reference
from vipocc.data_manifests.image_files import read_image
from vipocc.data_manifests.images import Preparation
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.preparation import occupancy_group, sweep_rows
from vipocc.data_manifests.views import prepared_intrinsics
from vipocc.errors import DataError, MissingInputError, StoreError, UsageError
from vipocc.geometry.poses import relative
from vipocc.stores import StoreReader, verify
from vipocc.workspace import Workspace


def tree_hash(folder: Path) -> str:
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        state.update(str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b"/"))
    return state.hexdigest()


def root_config(data: DataConfig) -> Any:
    schema = configuration.root_schema()
    return schema(data=data)


@pytest.fixture
def workspace(tree: Tree, tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "workspace", "kitti-360", tree.root)


@pytest.fixture
def whole(config: DataConfig) -> Any:
    return root_config(config)


def test_everything_a_split_needs_is_prepared(workspace: Workspace, whole: Any, tree: Tree) -> None:
    manifest = stage.ensure_prepared(workspace, whole, "all", ("frames", "lidar", "occupancy"))
    frames = StoreReader(workspace.store("frames"))
    expected = {"image_00": [0, 1, 2, 3, 5, 11], "image_01": [0, 1, 2, 3], "image_02": [10, 11, 12, 13]}
    for camera, rows in expected.items():
        group = f"{DRIVE}/{camera}"
        assert np.flatnonzero(frames.rows(group)).tolist() == rows
        np.testing.assert_array_equal(frames.frame_ids(group), np.arange(1, 17))
        model, left = manifest.camera_model(DRIVE, camera), manifest.camera_model(DRIVE, "image_00")
        make = Preparation(model, left, whole.data)
        raw = read_image(tree.image(DRIVE, camera, rows[1] + 1), (model.height, model.width), "")
        np.testing.assert_array_equal(frames.read(group, rows[1], "rgb"), make(raw))
    lidar = StoreReader(workspace.store("lidar"))
    assert np.flatnonzero(lidar.rows(f"{DRIVE}/image_00")).tolist() == [0, 1, 2, 5, 11]
    truth = StoreReader(workspace.store("occupancy"))
    assert np.flatnonzero(truth.rows(occupancy_group(whole.data, DRIVE))).tolist() == [5, 11]
    for kind in ("frames", "lidar", "occupancy"):
        assert verify(workspace.store(kind), deep=True, root=tree.root).sound


def test_lidar_and_occupancy_equal_their_references(workspace: Workspace, whole: Any, tree: Tree) -> None:
    manifest = stage.ensure_prepared(workspace, whole, "test", ("lidar", "occupancy"))
    row, left = 11, "image_00"

    def points(at: int) -> np.ndarray:
        return np.fromfile(tree.scan(DRIVE, at + 1), np.float32).reshape(-1, 4)[:, :3]

    camera_from_lidar = relative(manifest.world_from_camera(DRIVE, left)[row], manifest.world_from_lidar(DRIVE)[row])
    intrinsics = prepared_intrinsics(manifest, DRIVE, left, whole.data)
    expected = sparse_depth_reference(points(row), camera_from_lidar, intrinsics, whole.data.image_size)
    depth = StoreReader(workspace.store("lidar")).read(f"{DRIVE}/{left}", row, "depth")
    np.testing.assert_array_equal(depth, expected)
    assert np.isfinite(depth).any()
    window = sweep_rows(manifest, DRIVE, row, whole.data.sweeps)
    assert window.tolist() == [11, 12, 13, 14, 15]
    level = level_from_world(manifest.world_from_camera(DRIVE, left)[row])
    transforms = level @ manifest.world_from_lidar(DRIVE)[window]
    reference = occupancy_ground_truth_reference([points(int(k)) for k in window], transforms)
    reader, group = StoreReader(workspace.store("occupancy")), occupancy_group(whole.data, DRIVE)
    np.testing.assert_array_equal(reader.read(group, row, "occupied"), reference.occupied)
    np.testing.assert_array_equal(reader.read(group, row, "visible"), reference.visible)
    assert int(reader.read(group, row, "sweeps")) == 5


def test_second_run_does_nothing_and_more_rows_extend(
    workspace: Workspace, whole: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.ensure_prepared(workspace, whole, "test")
    assert "preparing 1 rows of frames" in capsys.readouterr().err
    before = tree_hash(workspace.path)
    stage.ensure_prepared(workspace, whole, "test")
    assert capsys.readouterr().err == ""
    assert tree_hash(workspace.path) == before
    stage.ensure_prepared(workspace, whole, "train")
    assert "preparing 16 rows of frames" in capsys.readouterr().err
    assert StoreReader(workspace.store("frames")).rows(f"{DRIVE}/image_00").sum() == 5
    stage.ensure_prepared(workspace, whole, "all", auto=True)
    with pytest.raises(UsageError, match="'depths' cannot be prepared"):
        stage.ensure_prepared(workspace, whole, "all", ("depths",))


def test_only_perspective_cameras(workspace: Workspace, whole: Any) -> None:
    stage.ensure_prepared(workspace, whole, "train", cameras="perspective")
    assert StoreReader(workspace.store("frames")).groups() == [f"{DRIVE}/image_00", f"{DRIVE}/image_01"]


@pytest.mark.slow
def test_processes_make_the_same_bytes(workspace: Workspace, tmp_path: Path, whole: Any, tree: Tree) -> None:
    """One process and two write the same shards."""
    from vipocc.data_manifests.preparation import job

    other = Workspace.create(tmp_path / "second", "kitti-360", tree.root)
    stage.ensure_prepared(workspace, whole, "train", jobs=1)
    threshold, job.WORTH_PROCESSES = job.WORTH_PROCESSES, 1
    try:
        stage.ensure_prepared(other, whole, "train", jobs=2)
    finally:
        job.WORTH_PROCESSES = threshold
    assert tree_hash(workspace.store("frames")) == tree_hash(other.store("frames"))


def test_no_auto_refuses_and_names_the_command(workspace: Workspace, whole: Any) -> None:
    before = tree_hash(workspace.path)
    with pytest.raises(
        MissingInputError, match=r"rows of frames are not prepared; run `vipocc data prepare --split val`"
    ):
        stage.ensure_prepared(workspace, whole, "val", auto=False)
    assert tree_hash(workspace.path) == before
    stage.ensure_prepared(workspace, whole, "val")
    stage.ensure_prepared(workspace, whole, "val", auto=False)


def test_manifest_is_made_again_when_something_changed(workspace: Workspace, tree: Tree, lists: Path) -> None:
    def index(**data: Any) -> Manifest:
        return stage.ensure_indexed(workspace, root_config(DataConfig(image_size=(32, 96), split=str(lists), **data)))

    first = index()
    written = workspace.manifest.stat().st_mtime_ns
    assert index().digest == first.digest
    assert workspace.manifest.stat().st_mtime_ns == written
    stereo = index(fisheye=False)
    assert stereo.digest != first.digest
    assert stereo.needed("train", "all").keys() == {(DRIVE, "image_00"), (DRIVE, "image_01")}
    tree.image(DRIVE, "image_01", 2).unlink()
    assert len(index(fisheye=False).keys("train")) == len(stereo.keys("train")) - 4
    (lists / "val_files.txt").write_text(f"{DRIVE} {7:010d} l")
    assert [key.row for key in index(fisheye=False).keys("val")] == [6]
    workspace.manifest.write_bytes(b"PAR1")
    assert [key.row for key in index(fisheye=False).keys("val")] == [6]


def test_dataset_may_move(workspace: Workspace, whole: Any, tree: Tree, tmp_path: Path) -> None:
    stage.ensure_indexed(workspace, whole)
    moved = tmp_path / "elsewhere"
    tree.root.rename(moved)
    (workspace.path / "vipocc.yaml").unlink()
    again = Workspace.create(workspace.path, "kitti-360", moved)
    manifest = stage.ensure_indexed(again, whole)
    assert manifest.image_path(DRIVE, "image_00", 0).is_file()


def test_split_without_samples_says_why(workspace: Workspace, lists: Path, tree: Tree) -> None:
    before = tree_hash(workspace.path)
    with pytest.raises(DataError, match=r"no sample of split train can be used .*the drive is not there: \d"):
        stage.ensure_prepared(workspace, root_config(DataConfig(image_size=(32, 96))), "train")
    for frame in range(1, 17):
        tree.image(DRIVE, "image_02", frame).unlink()
    with pytest.raises(DataError, match=r"a fisheye image is missing: 6.*data.fisheye=false"):
        stage.ensure_prepared(workspace, root_config(DataConfig(image_size=(32, 96), split=str(lists))), "train")
    assert tree_hash(workspace.path) == before


def test_store_of_another_size_is_refused(workspace: Workspace, whole: Any, lists: Path) -> None:
    stage.ensure_prepared(workspace, whole, "val")
    before = tree_hash(workspace.path)
    with pytest.raises(StoreError, match="image_size"):
        stage.ensure_prepared(workspace, root_config(DataConfig(image_size=(64, 96), split=str(lists))), "val")
    with pytest.raises(StoreError, match="resize"):
        other = DataConfig(image_size=(32, 96), split=str(lists), resize="bilinear")
        stage.ensure_prepared(workspace, root_config(other), "all")
    assert tree_hash(workspace.path) == before


def _spoil(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-7])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("<html>404</html>")
    else:
        import cv2

        height, width = int(how.split("x")[1]), int(how.split("x")[0])
        assert cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "100x40"])
@pytest.mark.parametrize(
    ("camera", "frame", "download"),
    [
        ("image_00", 1, "Perspective"),
        ("image_01", 2, "Perspective"),
        ("image_02", 11, "Fisheye"),
        ("image_03", 14, "Fisheye"),
    ],
)
def test_bad_image_is_one_sentence_and_nothing_is_written(
    workspace: Workspace, whole: Any, tree: Tree, camera: str, frame: int, download: str, how: str
) -> None:
    path = tree.image(DRIVE, camera, frame)
    _spoil(path, how)
    before = tree_hash(workspace.path)
    with pytest.raises(DataError) as caught:
        stage.ensure_prepared(workspace, whole, "train")
    assert str(path) in str(caught.value)
    assert download in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tree_hash(workspace.path) == before


@pytest.mark.parametrize("kind", ["lidar", "occupancy"])
@pytest.mark.parametrize("how", ["truncated", "empty"])
def test_bad_scan_is_one_sentence_and_nothing_is_written(
    workspace: Workspace, whole: Any, tree: Tree, how: str, kind: str
) -> None:
    path = tree.scan(DRIVE, 12)
    _spoil(path, how)
    before = tree_hash(workspace.path)
    with pytest.raises(DataError, match=r"LiDAR scan is truncated.*Raw Velodyne Scans \(119G\)") as caught:
        stage.ensure_prepared(workspace, whole, "test", (kind,))
    assert str(path) in str(caught.value)
    assert tree_hash(workspace.path) == before


def test_damage_inside_a_file_stops_its_unit_alone(workspace: Workspace, whole: Any, tree: Tree) -> None:
    path = tree.image(DRIVE, "image_03", 12)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"checksum.*Fisheye"):
        stage.ensure_prepared(workspace, whole, "train")
    frames = StoreReader(workspace.store("frames"))
    assert frames.rows(f"{DRIVE}/image_00").sum() == 4
    assert not frames.rows(f"{DRIVE}/image_03").any()


def test_changed_image_is_prepared_again(
    workspace: Workspace, whole: Any, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.ensure_prepared(workspace, whole, "val")
    path = tree.image(DRIVE, "image_00", 6)
    path.write_bytes(tree.image(DRIVE, "image_00", 7).read_bytes())
    capsys.readouterr()
    stage.ensure_prepared(workspace, whole, "val")
    assert "preparing 1 rows of frames" in capsys.readouterr().err
    frames = StoreReader(workspace.store("frames"))
    manifest = stage.ensure_indexed(workspace, whole)
    left = manifest.camera_model(DRIVE, "image_00")
    expected = Preparation(left, left, whole.data)(read_image(path, (left.height, left.width), ""))
    np.testing.assert_array_equal(frames.read(f"{DRIVE}/image_00", 5, "rgb"), expected)


def test_changed_fisheye_calibration_is_seen(
    workspace: Workspace, whole: Any, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.ensure_prepared(workspace, whole, "train")
    path = tree.calibration("image_02.yaml")
    path.write_text(path.read_text().replace("9.0e+01", "8.0e+01"))
    capsys.readouterr()
    stage.ensure_prepared(workspace, whole, "train")
    assert "preparing 4 rows of frames" in capsys.readouterr().err


def test_val_occupancy_is_a_fixed_spread(workspace: Workspace, tree: Tree, lists: Path) -> None:
    (lists / "val_files.txt").write_text("\n".join(f"{DRIVE} {k:010d} l" for k in range(1, 11)))
    (lists / "train_files.txt").unlink()
    data = DataConfig(image_size=(32, 96), split=str(lists), val_occupancy=4)
    stage.ensure_prepared(workspace, root_config(data), "val", ("occupancy",))
    rows = StoreReader(workspace.store("occupancy")).rows(occupancy_group(data, DRIVE))
    assert np.flatnonzero(rows).tolist() == [0, 3, 6, 9]


def test_missing_scans_are_left_out_and_said(
    workspace: Workspace, whole: Any, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    for frame in (13, 14):
        tree.scan(DRIVE, frame).unlink()
    stage.ensure_prepared(workspace, whole, "test", ("occupancy",))
    assert "1 frames accumulate fewer sweeps than published" in capsys.readouterr().err
    reader = StoreReader(workspace.store("occupancy"))
    assert int(reader.read(occupancy_group(whole.data, DRIVE), 11, "sweeps")) == 3
    tree.scan(DRIVE, 12).unlink()
    stage.ensure_prepared(workspace, whole, "test", ("lidar",))
    assert not workspace.store("lidar").exists()


def test_real_samples(sample_data: Path, tmp_path: Path) -> None:
    """Frames 700-702 of drive 0000, LiDAR of its frame 250, and occupancy from the five sweeps of drive 0008."""
    first, second = "2013_05_28_drive_0000_sync", "2013_05_28_drive_0008_sync"
    lists = tmp_path / "lists"
    lists.mkdir()
    train = [f"{first} {frame:010d} {side}" for frame in (700, 701) for side in "lr"]
    (lists / "train_files.txt").write_text("\n".join(train))
    (lists / "test_files.txt").write_text(f"{first} 0000000250 l\n{second} 0000003000 l\n{second} 0000003002 l")
    whole = root_config(DataConfig(split=str(lists), fisheye=False))
    workspace = Workspace.create(tmp_path / "workspace", "kitti-360", sample_data / "KITTI-360")
    manifest = stage.ensure_prepared(workspace, whole, "all", ("frames", "lidar", "occupancy"))
    assert len(manifest.keys("train")) == 4
    frames = StoreReader(workspace.store("frames"))
    image = frames.read(f"{first}/image_01", manifest.row_of(first, 702), "rgb")
    assert image.shape == (192, 640, 3)
    assert 60 < image.mean() < 160
    depth = StoreReader(workspace.store("lidar")).read(f"{first}/image_00", manifest.row_of(first, 250), "depth")
    assert 20_000 < np.isfinite(depth).sum() < 27_523
    assert 4 < np.nanmedian(depth) < 15
    truth = StoreReader(workspace.store("occupancy"))
    row, group = manifest.row_of(second, 3000), occupancy_group(whole.data, second)
    assert int(truth.read(group, row, "sweeps")) == 5
    assert 0.02 < truth.read(group, row, "occupied").mean() < 0.7
    assert truth.read(group, row, "visible").mean() > 0.3


def test_absent_synthetic_world_is_refused_without_auto(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "workspace", "synthetic")
    before = tree_hash(workspace.path)
    with pytest.raises(MissingInputError, match=r"synthetic world is not generated.*vipocc data prepare"):
        stage.ensure_prepared(workspace, root_config(DataConfig()), "train", auto=False)
    with pytest.raises(MissingInputError, match="synthetic world is not generated"):
        stage.ensure_indexed(workspace, root_config(DataConfig()), auto=False)
    assert tree_hash(workspace.path) == before


def test_synthetic_world_is_generated_once_and_read_by_the_same_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The world's generator has its own tests; here it is any writer of KITTI-360's layout with lists beside it."""
    from kitti_tree import make_tree

    made: list[Path] = []

    def generate(root: Path, world: Any, jobs: int) -> None:
        tree = make_tree(root, (DRIVE,), 16)
        tree.write_lists(root / "splits", train=f"{DRIVE} 0000000001 l\n", val=f"{DRIVE} 0000000009 l\n")
        made.append(root)

    monkeypatch.setattr(stage, "generate", generate)
    monkeypatch.setattr(stage, "is_complete", lambda root, world: root in made)
    workspace = Workspace.create(tmp_path / "workspace", "synthetic")
    config = root_config(DataConfig(image_size=(32, 96)))
    manifest = stage.ensure_prepared(workspace, config, "all", jobs=1)
    assert "generating a synthetic world of" in capsys.readouterr().err
    assert (manifest.dataset, len(manifest.keys("train")), len(manifest.keys("val"))) == ("synthetic", 1, 1)
    assert StoreReader(workspace.store("frames")).attrs["dataset"] == "synthetic"
    stage.ensure_prepared(workspace, config, "all")
    assert capsys.readouterr().err == ""
    assert made == [workspace.root]
    moved = tmp_path / "moved"
    workspace.path.rename(moved)
    assert Manifest.load(moved / "manifests/synthetic.parquet").image_path(DRIVE, "image_00", 0).is_file()


def test_dataset_without_reader_is_refused(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "workspace", "nuscenes", tmp_path)
    with pytest.raises(UsageError, match=r"'nuscenes' cannot be read by this version.*kitti-360, .*synthetic"):
        stage.ensure_indexed(workspace, root_config(DataConfig()))
