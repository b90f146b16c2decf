"""KITTI Raw from a folder on disk to prepared stores, planned priors and training samples of four views."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from kitti_raw_tree import (
    CAMERAS,
    DRIVE,
    PLACES,
    SECOND,
    SECOND_DAY,
    SIZE,
    RawTree,
    make_raw_tree,
    rect0_from_lidar,
    world_from_rect0,
)

from vipocc import cli
from vipocc import config as configuration
from vipocc.data_manifests import stage
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import kitti_raw
from vipocc.data_manifests.ground_truth.depth_raster import sparse_depth_reference
from vipocc.data_manifests.image_files import read_image
from vipocc.data_manifests.images import resize
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.views import prepared_intrinsics, view_offsets
from vipocc.errors import DataError
from vipocc.geometry.poses import relative
from vipocc.priors.inputs import wanted_rows
from vipocc.stores import StoreReader
from vipocc.training.config import TrainingConfig
from vipocc.training.samples import SamplePaths, TrainingSamples
from vipocc.training.table import sample_table
from vipocc.workspace import Workspace

REAL = "2011_09_26_drive_0002_sync"


@pytest.fixture
def raw(tmp_path: Path) -> RawTree:
    return make_raw_tree(tmp_path / "root", frames=8)


@pytest.fixture
def raw_lists(tmp_path: Path) -> Path:
    """Lists in the published format, ids not zero-padded: train frames 1-3, val 5, test 7."""
    folder = tmp_path / "lists"
    folder.mkdir()
    first, second = f"{DRIVE[:10]}/{DRIVE}", f"{SECOND_DAY}/{SECOND}"
    train = [f"{first} 3 r", f"{first} 1 l", f"{first} 2 l", f"{first} 1 r", f"{second} 2 r"]
    (folder / "train_files.txt").write_text("\n".join(train) + "\n")
    (folder / "val_files.txt").write_text(f"{first} 5 r\n{first} 5 l\n")
    (folder / "test_files.txt").write_text(f"{first} {7:010d} l\n")
    return folder


def data_config(lists: Path, **options: object) -> DataConfig:
    return DataConfig.model_validate({"image_size": (32, 96), "split": str(lists), **options})


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def workspace(raw: RawTree, tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "workspace", "kitti-raw", raw.root)


def test_the_commands_of_a_user(
    raw: RawTree, raw_lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """init, check, index, prepare, on a folder whose right images were converted to JPEG."""
    raw.to_jpeg("image_03")
    before = files_of(raw.root)
    here = ["-C", str(tmp_path / "w")]
    options = ["-o", "data.image_size=[32,96]", "-o", f"data.split={raw_lists}"]
    assert cli.run(["init", "--dataset", "kitti-raw", "--root", str(raw.root), *options, *here]) == 0
    capsys.readouterr()
    cli.run(["data", "check", "--json", "--for", "train", *here])
    report = json.loads(capsys.readouterr().out)
    drive = next(one for one in report["drives"] if one["drive"] == DRIVE)
    assert "poses: ORB-SLAM" in drive["facts"]
    assert report["usable"]["train"] == report["listed"]["train"] == 5
    assert report["faults"] == []
    assert cli.run(["data", "index", *here]) == 0
    assert "2 drives, 16 posed frames" in capsys.readouterr().out
    assert cli.run(["data", "prepare", "--kinds", "frames,lidar", *here]) == 0
    workspace = Workspace.open(tmp_path / "w")
    frames = StoreReader(workspace.store("frames"))
    assert frames.groups() == [f"{drive}/{camera}" for drive in (DRIVE, SECOND) for camera in CAMERAS]
    assert np.flatnonzero(frames.rows(f"{DRIVE}/image_02")).tolist() == [1, 2, 3, 4, 5, 7]
    assert np.flatnonzero(frames.rows(f"{DRIVE}/image_03")).tolist() == [1, 2, 3, 4, 5]
    for camera, ending in (("image_02", ".png"), ("image_03", ".jpg")):
        expected = resize(read_image(raw.image(camera, 4, ending=ending), SIZE, ""), (32, 96), "area")
        np.testing.assert_array_equal(frames.read(f"{DRIVE}/{camera}", 4, "rgb"), expected)
    assert files_of(raw.root) == before


def test_lidar_depth_equals_its_reference(workspace: Workspace, raw: RawTree, raw_lists: Path) -> None:
    config = data_config(raw_lists)
    manifest = stage.ensure_prepared(workspace, configuration.root_schema()(data=config), "test", ("lidar",))
    points = np.fromfile(raw.scan(7), "<f4").reshape(-1, 4)[:, :3]
    rect0_from_camera = np.eye(4)
    rect0_from_camera[:3, 3] = PLACES["image_02"]
    intrinsics = prepared_intrinsics(manifest, DRIVE, "image_02", config)
    camera_from_lidar = np.linalg.inv(rect0_from_camera) @ rect0_from_lidar()
    expected = sparse_depth_reference(points, camera_from_lidar, intrinsics, (32, 96))
    depth = StoreReader(workspace.store("lidar")).read(f"{DRIVE}/image_02", 7, "depth")
    assert np.isfinite(expected).sum() > 50
    np.testing.assert_array_equal(np.isfinite(depth), np.isfinite(expected))
    np.testing.assert_allclose(depth, expected, rtol=1e-6)


def test_other_poses_are_indexed_anew(workspace: Workspace, raw_lists: Path) -> None:
    def index(**options: object) -> Manifest:
        config = configuration.root_schema()(data=data_config(raw_lists, **options))
        return stage.ensure_indexed(workspace, config)

    first, oxts = index(), index(poses="oxts")
    assert first.digest != oxts.digest
    assert index(poses="auto").digest == first.digest
    places = (manifest.world_from_camera(DRIVE, "image_02")[:, :3, 3] for manifest in (first, oxts))
    assert not np.allclose(*places, atol=0.1)


@pytest.mark.parametrize("how", ["empty", "truncated", "page", "other size"])
@pytest.mark.parametrize(("camera", "ending"), [("image_02", ".png"), ("image_03", ".jpg")])
def test_a_bad_image_is_one_sentence_and_nothing_is_written(
    workspace: Workspace, raw: RawTree, raw_lists: Path, camera: str, ending: str, how: str
) -> None:
    raw.to_jpeg("image_03")
    path = raw.image(camera, 2, ending=ending)
    spoilt = {"empty": b"", "truncated": path.read_bytes()[:-40], "page": b"<html>404</html>"}
    if how == "other size":
        assert cv2.imwrite(str(path), np.zeros((40, 100, 3), np.uint8))
    else:
        path.write_bytes(spoilt[how])
    before = files_of(workspace.path)
    with pytest.raises(DataError) as caught:
        stage.ensure_prepared(workspace, configuration.root_schema()(data=data_config(raw_lists)), "train")
    assert files_of(workspace.path) == before
    said = str(caught.value)
    assert str(path) in said
    assert '"[synced+rectified data]" of 2011_09_26_drive_0001' in said
    assert "\n" not in said


def test_an_absent_image_leaves_its_samples_out(workspace: Workspace, raw: RawTree, raw_lists: Path) -> None:
    raw.image("image_02", 2).unlink()
    whole = configuration.root_schema()(data=data_config(raw_lists))
    manifest = stage.ensure_indexed(workspace, whole)
    # Frame 2 is a key itself, t+1 of both keys at frame 1, and no view of those at frames 3 and of the other drive.
    assert [tuple(key) for key in manifest.keys("train")] == [(DRIVE, "image_03", 3), (SECOND, "image_03", 2)]
    assert manifest.left_out["train"] == {"an image is missing": 3}


@pytest.mark.parametrize("how", ["empty", "truncated", "not finite"])
def test_a_bad_scan_is_one_sentence(workspace: Workspace, raw: RawTree, raw_lists: Path, how: str) -> None:
    content = raw.scan(7).read_bytes()
    nan = np.full(4, np.nan, "<f4").tobytes()
    raw.scan(7).write_bytes({"empty": b"", "truncated": content[:-7], "not finite": nan + content}[how])
    config = configuration.root_schema()(data=data_config(raw_lists))
    with pytest.raises(DataError, match=r"LiDAR scan .*0000000007.bin; .*synced\+rectified data.*drive_0001") as caught:
        stage.ensure_prepared(workspace, config, "test", ("lidar",))
    assert "\n" not in str(caught.value)
    # What the size tells is seen before the store is made, what is within only when the file is read.
    assert workspace.store("lidar").exists() == (how == "not finite")
    assert how != "not finite" or not StoreReader(workspace.store("lidar")).rows(f"{DRIVE}/image_02").any()


def test_days_of_other_image_sizes_meet_at_one(raw: RawTree, raw_lists: Path, tmp_path: Path) -> None:
    """Each day has its own raw size; prepared images have one, and each camera its own intrinsics."""
    path = raw.calibration("calib_cam_to_cam.txt", SECOND_DAY)
    path.write_text(path.read_text().replace("1.600000e+02 4.800000e+01", "1.500000e+02 4.600000e+01"))
    for camera in CAMERAS:
        for frame in range(8):
            image = cv2.imread(str(raw.image(camera, frame, SECOND)))
            assert cv2.imwrite(str(raw.image(camera, frame, SECOND)), image[:46, :150])
    workspace = Workspace.create(tmp_path / "workspace", "kitti-raw", raw.root)
    config = data_config(raw_lists)
    manifest = stage.ensure_prepared(workspace, configuration.root_schema()(data=config), "train")
    frames = StoreReader(workspace.store("frames"))
    for drive, size in ((DRIVE, SIZE), (SECOND, (46, 150))):
        assert frames.read(f"{drive}/image_03", 2, "rgb").shape == (32, 96, 3)
        intrinsics = prepared_intrinsics(manifest, drive, "image_03", config)
        assert intrinsics[0, 0] == pytest.approx(92.0 * 96 / size[1])
        assert intrinsics[1, 2] == pytest.approx((22.5 + 0.5) * 32 / size[0] - 0.5)


def test_a_training_sample_sees_four_views(workspace: Workspace, raw: RawTree, raw_lists: Path) -> None:
    """The key at t and t+1, then the other camera: images, metric relative poses and the pair of view sets."""
    config = data_config(raw_lists)
    manifest = stage.ensure_prepared(workspace, configuration.root_schema()(data=config), "train")
    assert view_offsets("kitti-raw", "image_03", config) == [
        ("image_03", 0), ("image_03", 1), ("image_02", 0), ("image_02", 1),
    ]  # fmt: skip
    table = sample_table(manifest, "train", config)
    assert len(table) == 5
    training = TrainingConfig.model_validate({"sampler": "uniform", "depth_sampler": "uniform"})
    samples = TrainingSamples(table, SamplePaths(workspace.store("frames"), None, None), training, (32, 96), 0)
    poses, right, left = world_from_rect0(8), np.eye(4), np.eye(4)
    right[:3, 3], left[:3, 3] = PLACES["image_03"], PLACES["image_02"]
    seen = set()
    for position in range(5):
        sample = samples[position]
        index = int(sample["index"])
        names = [table.groups[int(at)] for at in table.group[index]]
        row = int(table.row[index, 0])
        assert table.row[index].tolist() == [row, row + 1, row, row + 1]
        drive, camera = names[0].split("/")
        other = next(name for name in CAMERAS if name != camera)
        assert names == [f"{drive}/{name}" for name in (camera, camera, other, other)]
        own, across = (right, left) if camera == "image_03" else (left, right)
        expected = relative(poses[row] @ own, np.stack([poses[at] @ t for t in (own, across) for at in (row, row + 1)]))
        np.testing.assert_allclose(sample["key_from_view"], expected, atol=1e-5)
        assert abs(sample["key_from_view"][2, 0, 3]) == pytest.approx(0.54, abs=1e-5)
        assert sorted(sample["render_views"].tolist()) in ([0, 3], [1, 2])
        for view, name in enumerate(names):
            path = raw.image(name.split("/")[1], row + view % 2, drive)
            np.testing.assert_array_equal(sample["images"][view], resize(read_image(path, SIZE, ""), (32, 96), "area"))
        seen.add((drive, camera, row))
    assert seen == {
        (DRIVE, "image_02", 1), (DRIVE, "image_02", 2), (DRIVE, "image_03", 1), (DRIVE, "image_03", 3),
        (SECOND, "image_03", 2),
    }  # fmt: skip


def test_priors_are_wanted_of_all_views(workspace: Workspace, raw_lists: Path) -> None:
    manifest = stage.ensure_indexed(workspace, configuration.root_schema()(data=data_config(raw_lists)))
    assert {group: rows.tolist() for group, rows in wanted_rows(manifest, "train").items()} == {
        (DRIVE, "image_02"): [1, 2, 3, 4],
        (DRIVE, "image_03"): [1, 2, 3, 4],
        (SECOND, "image_02"): [2, 3],
        (SECOND, "image_03"): [2, 3],
    }
    assert {group: rows.tolist() for group, rows in wanted_rows(manifest, "val").items()} == {
        (DRIVE, "image_02"): [5],
        (DRIVE, "image_03"): [5],
    }


@pytest.mark.slow
@pytest.mark.parametrize("images", ["prepared", "raw"])
def test_depth_priors_of_all_views(workspace: Workspace, raw_lists: Path, tmp_path: Path, images: str) -> None:
    """`vipocc priors depth` prepares what it needs and fills the rows of both cameras and both time steps."""
    from vipocc.priors.tiny import make_tiny_depth

    options = (
        f"data.split={raw_lists}",
        "data.image_size=[32,96]",
        f"priors.depth.images={images}",
        "priors.depth.short_side=28",
    )
    arguments = [part for option in options for part in ("-o", option)]
    model = str(make_tiny_depth(tmp_path / "model"))
    here = ["-C", str(workspace.path), "--device", "cpu", "--model", model]
    assert cli.run(["priors", "depth", "--split", "train", *arguments, *here]) == 0
    depth = StoreReader(workspace.store("depth", "raw" if images == "raw" else None))
    assert {group: np.flatnonzero(depth.rows(group)).tolist() for group in depth.groups()} == {
        f"{DRIVE}/image_02": [1, 2, 3, 4],
        f"{DRIVE}/image_03": [1, 2, 3, 4],
        f"{SECOND}/image_02": [2, 3],
        f"{SECOND}/image_03": [2, 3],
    }
    assert np.isfinite(depth.read(f"{SECOND}/image_03", 3, "depth")).all()


def test_real_samples(sample_data: Path, tmp_path: Path) -> None:
    """Four stereo frames and two sweeps of drive 0002, by both kinds of poses."""
    lists = tmp_path / "lists"
    lists.mkdir()
    drive = f"2011_09_26/{REAL}"
    (lists / "train_files.txt").write_text("\n".join(f"{drive} {frame} {side}" for frame in (0, 1) for side in "lr"))
    (lists / "val_files.txt").write_text(f"{drive} 3 l")
    workspace = Workspace.create(tmp_path / "workspace", "kitti-raw", sample_data / "KITTI-raw")
    for poses in ("auto", "oxts"):
        config = DataConfig(split=str(lists), poses=poses)  # type: ignore[arg-type]
        whole = configuration.root_schema()(data=config)
        manifest = stage.ensure_prepared(workspace, whole, "all", ("frames", "lidar"))
        table = sample_table(manifest, "train", config)
        assert len(table) == 4
        at = next(i for i in range(4) if table.name(i).endswith("image_02 row 0"))
        apart = table.key_from_view[at][:, :3, 3].numpy()
        assert apart[2] == pytest.approx([0.53271, -0.00275, 0.00002], abs=1e-5)
        assert apart[1, 2] == pytest.approx(0.89, abs=0.03)
    frames = StoreReader(workspace.store("frames"))
    image = frames.read(f"{REAL}/image_03", 1, "rgb")
    assert image.shape == (192, 640, 3)
    assert 60 < image.mean() < 160
    depth = StoreReader(workspace.store("lidar")).read(f"{REAL}/image_02", 3, "depth")
    assert 14_000 < np.isfinite(depth).sum() < 19_137
    assert 8 < np.nanmedian(depth) < 16
    assert kitti_raw.ADAPTER.products == ("frames", "lidar")
