"""The check and the `vipocc data` commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kitti_tree import DRIVE, Tree

from vipocc import cli
from vipocc.data_manifests.check import CheckReport, check
from vipocc.data_manifests.config import DataConfig
from vipocc.errors import DataError
from vipocc.workspace import Workspace


def lack(report: CheckReport, job: str, what: str) -> tuple[int, int, str] | None:
    found = [(one.missing, one.needed, *one.downloads) for one in report.job(job).lacks if one.what == what]
    return found[0] if found else None


def test_whole_tree_lacks_nothing(tree: Tree, config: DataConfig) -> None:
    report = check(tree.root, "kitti-360", config)
    assert report.sound
    assert {job.state for job in report.jobs} == {"complete"}
    assert report.listed == report.usable == {"train": 6, "val": 1, "test": 1}
    drive = report.drives[0]
    assert (drive.drive, drive.posed_frames, drive.first_frame, drive.last_frame, drive.gaps, drive.scans) == (
        DRIVE, 16, 1, 16, 0, 16,
    )  # fmt: skip
    assert {camera.images for camera in drive.cameras.values()} == {16}
    assert report.read == 5 * 4
    assert check(tree.root, "kitti-360", config, deep=True, jobs=2).read == 5 * 16


def test_gaps_are_named_by_job_and_download(tree: Tree, config: DataConfig, lists: Path) -> None:
    tree.image(DRIVE, "image_01", 2).unlink()
    tree.image(DRIVE, "image_03", 12).unlink()
    tree.scan(DRIVE, 14).unlink()
    path = tree.poses(DRIVE)
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("6 ")))
    with (lists / "test_files.txt").open("a") as file:
        file.write("\n2013_05_28_drive_0009_sync 0000000007 l\n")
    report = check(tree.root, "kitti-360", config)
    assert report.sound
    assert lack(report, "priors", "images") == (1, 8, '"Perspective Images for Train & Val (128G)"')
    assert lack(report, "train", "images") == (1, 8, '"Perspective Images for Train & Val (128G)"')
    train_fisheye = lack(report, "train", "fisheye images")
    assert train_fisheye is not None
    assert train_fisheye[2] == '"Fisheye Images (355G)"'
    assert lack(report, "eval-occupancy", "LiDAR sweeps") == (2, 6, '"Raw Velodyne Scans (119G)"')
    assert lack(report, "validation", "poses") == (1, 1, '"Vehicle Poses (8.9M)"')
    assert lack(report, "eval-occupancy", "poses") == (1, 2, '"Vehicle Poses (8.9M)"')
    assert report.drives[0].cameras["image_00"].unposed == 1
    assert report.usable["val"] == 0


def test_damage_is_found_by_sampling_or_by_reading_all(tree: Tree, config: DataConfig) -> None:
    tree.image(DRIVE, "image_02", 1).write_bytes(tree.image(DRIVE, "image_02", 1).read_bytes()[:-20])
    tree.image(DRIVE, "image_00", 9).write_bytes(b"")
    report = check(tree.root, "kitti-360", config)
    assert not report.sound
    assert {(Path(fault.path).parts[2:], fault.fault) for fault in report.faults} == {
        (("image_02", "data_rgb", "0000000001.png"), "an image is truncated"),
        (("image_00", "data_rect", "0000000009.png"), "an image is empty"),
    }
    assert any("Fisheye Images" in fault.fix for fault in report.faults)
    tree.scan(DRIVE, 8).write_bytes(tree.scan(DRIVE, 8).read_bytes()[:-3])
    assert len(check(tree.root, "kitti-360", config).faults) == 2
    deep = check(tree.root, "kitti-360", config, deep=True)
    assert any(fault.path.endswith("0000000008.bin") and "truncated" in fault.fault for fault in deep.faults)


def test_real_sample_is_partial_and_sound(sample_data: Path) -> None:
    report = check(sample_data / "KITTI-360", "kitti-360", DataConfig())
    assert report.sound
    assert report.read == 4 + 4 + 1 + 3 + 4
    assert report.usable == {"train": 0, "val": 3, "test": 0}
    assert report.left_out["train"]["the drive is not there"] == 82_358
    missing = lack(report, "train", "images")
    assert missing is not None
    assert missing[0] > 90_000
    assert {drive.drive[-9:]: drive.scans for drive in report.drives} == {"0000_sync": 1, "0008_sync": 5}


def run(*arguments: object) -> int:
    return cli.run([str(argument) for argument in arguments])


@pytest.fixture
def options(tree: Tree, tmp_path: Path, lists: Path) -> list[str]:
    workspace = Workspace.create(tmp_path / "workspace", "kitti-360", tree.root)
    overrides = ["data.image_size=[32,96]", f"data.split={lists}"]
    return ["-C", str(workspace.path), *(part for text in overrides for part in ("-o", text))]


def test_check_command(options: list[str], tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "check", *options) == 0
    text = capsys.readouterr().out
    assert f"{DRIVE}: 16 posed frames 1-16, 0 gaps; images: image_00 16" in text
    assert "train: 6 of 6 listed samples usable" in text
    tree.image(DRIVE, "image_00", 1).write_bytes(b"")
    tree.image(DRIVE, "image_01", 4).unlink()
    assert run("data", "check", "--json", *options) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["sound"] is False
    assert report["faults"][0]["fault"] == "an image is empty"
    assert run("data", "check", *options) == 2
    text = capsys.readouterr().out
    assert "damaged: an image is empty" in text
    assert 'priors, train lack 1 of 8 images (2013_05_28_drive_0003_sync): "Perspective Images' in text


def test_check_writes_nothing(options: list[str], tmp_path: Path) -> None:
    before = sorted((tmp_path / "workspace").rglob("*"))
    assert run("data", "check", *options) == 0
    assert sorted((tmp_path / "workspace").rglob("*")) == before


def test_index_and_prepare_commands(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "index", *options) == 0
    out = capsys.readouterr().out
    assert "1 drives, 16 posed frames" in out
    assert "train: 6 samples" in out
    assert (tmp_path / "workspace/manifests/kitti-360.parquet").is_file()
    assert run("data", "prepare", "--split", "val", "--kinds", "frames, lidar", "--jobs", "1", *options) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("preparing frames, lidar of kitti-360 at 32x96, split val of ")
    stores = tmp_path / "workspace/stores/kitti-360"
    assert sorted(path.name for path in stores.glob("*.zarr")) == ["frames.zarr", "lidar.zarr"]


def test_commands_report_bad_input_in_one_sentence(
    options: list[str], tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.poses(DRIVE).unlink()
    for command in ("check", "index", "prepare"):
        assert run("data", command, *options) == 2
        message = capsys.readouterr().err.strip()
        assert message.startswith("vipocc: error: a drive has images and no poses")
        assert "\n" not in message
    assert not (Path(options[1]) / "manifests").exists()
    assert run("data", "prepare", "--kinds", "frame", *options) == 2
    assert "'frame' cannot be prepared" in capsys.readouterr().err


def test_lists_that_meet_are_refused(tree: Tree, config: DataConfig, lists: Path) -> None:
    (lists / "test_files.txt").write_text(f"{DRIVE} 0000000002 l")
    with pytest.raises(DataError, match="1 frames are in both the train and the test list"):
        check(tree.root, "kitti-360", config)
