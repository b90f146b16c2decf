"""`vipocc data prepare` as it is run: killed, stopped, on full disks, in parts, dry; values of the official profile."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from kitti_tree import DRIVE, Tree, make_tree

from vipocc import config as configuration
from vipocc.cli import run
from vipocc.data_manifests import stage
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.depth_raster import sparse_depth_official
from vipocc.data_manifests.views import prepared_intrinsics
from vipocc.errors import StoreError, UsageError
from vipocc.geometry.ndc import intrinsics_to_ndc
from vipocc.geometry.poses import relative
from vipocc.stores import StoreReader, verify
from vipocc.workspace import Workspace

FRAMES = 200
OVERRIDES = ("-o", "data.image_size=[96,320]", "-o", "data.fisheye=false")
COMMAND = (sys.executable, "-c", "from vipocc.cli import main; main()")


def bytes_of(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def long_tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tree, Path]:
    """A drive of seven units, and lists that ask for all of it."""
    folder = tmp_path_factory.mktemp("long")
    tree = make_tree(folder / "root", (DRIVE,), FRAMES)
    train = "\n".join(f"{DRIVE} {frame:010d} {side}" for frame in range(1, FRAMES) for side in "lr")
    return tree, tree.write_lists(folder / "lists", train=train)


@pytest.fixture(scope="module")
def undisturbed(long_tree: tuple[Tree, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    workspace = workspace_of(long_tree, tmp_path_factory.mktemp("undisturbed"))
    assert run(arguments(workspace, long_tree, jobs=1)) == 0
    return bytes_of(workspace.store("frames"))


def workspace_of(long_tree: tuple[Tree, Path], folder: Path) -> Workspace:
    return Workspace.create(folder / "workspace", "kitti-360", long_tree[0].root)


def arguments(workspace: Workspace, long_tree: tuple[Tree, Path], *more: str, jobs: int = 2) -> list[str]:
    lists = ("-o", f"data.split={long_tree[1]}")
    given = ("-C", str(workspace.path), "--split", "train", "--kinds", "frames", "--jobs", str(jobs))
    return ["data", "prepare", *given, *OVERRIDES, *lists, *more]


def records(workspace: Workspace) -> int:
    folder = workspace.store("frames").with_name("frames.zarr.ledger")
    return len([*folder.glob(f"{DRIVE}/*/[0-9]*.json")])


def start(workspace: Workspace, long_tree: tuple[Tree, Path]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments(workspace, long_tree)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def await_records(workspace: Workspace, count: int, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and records(workspace) < count:
        time.sleep(0.005)


def survive(workspace: Workspace, long_tree: tuple[Tree, Path], kills: int, seed: int) -> int:
    """Kill the command and its workers at random moments, then let it end; return how many kills hit it at work."""
    draw, at_work = random.Random(seed), 0
    for kill in range(kills):
        process = start(workspace, long_tree)
        await_records(workspace, records(workspace) + draw.randrange(2), process)
        time.sleep(draw.uniform(0, 0.1) if kill % 3 else draw.uniform(0, 2.0))
        at_work += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
        process.communicate()
        if workspace.store("frames").is_dir() and records(workspace):
            assert verify(workspace.store("frames"), deep=True, root=long_tree[0].root).sound
    assert run(arguments(workspace, long_tree)) == 0
    return at_work


def test_two_kills_change_no_byte(long_tree: tuple[Tree, Path], undisturbed: dict[str, str], tmp_path: Path) -> None:
    workspace = workspace_of(long_tree, tmp_path)
    assert survive(workspace, long_tree, kills=2, seed=1) > 0
    assert bytes_of(workspace.store("frames")) == undisturbed


@pytest.mark.slow
def test_many_kills_change_no_byte(long_tree: tuple[Tree, Path], undisturbed: dict[str, str], tmp_path: Path) -> None:
    died = 0
    for seed in range(4):
        workspace = workspace_of(long_tree, tmp_path / str(seed))
        died += survive(workspace, long_tree, kills=4, seed=10 + seed)
        assert bytes_of(workspace.store("frames")) == undisturbed
    assert died >= 8


def test_sigterm_finishes_the_units_in_hand(
    long_tree: tuple[Tree, Path], undisturbed: dict[str, str], tmp_path: Path
) -> None:
    workspace = workspace_of(long_tree, tmp_path)
    process = start(workspace, long_tree)
    await_records(workspace, 1, process)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopping after the units in hand" in said
    assert 1 <= records(workspace) <= 7
    assert verify(workspace.store("frames"), deep=True, root=long_tree[0].root).sound
    assert run(arguments(workspace, long_tree)) == 0
    assert bytes_of(workspace.store("frames")) == undisturbed


def test_parts_make_the_whole(long_tree: tuple[Tree, Path], undisturbed: dict[str, str], tmp_path: Path) -> None:
    workspace = workspace_of(long_tree, tmp_path)
    assert run(arguments(workspace, long_tree, "--shard", "1/2", jobs=1)) == 0
    held = records(workspace)
    assert 0 < held < len([name for name in undisturbed if "/c/" in name and "rgb" in name])
    assert run(arguments(workspace, long_tree, "--shard", "0/2", jobs=1)) == 0
    assert bytes_of(workspace.store("frames")) == undisturbed


def test_dry_run_tells_and_writes_nothing(
    long_tree: tuple[Tree, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = workspace_of(long_tree, tmp_path)
    before = bytes_of(workspace.path)
    assert run(arguments(workspace, long_tree, "--dry-run")) == 0
    said = "".join(capsys.readouterr())
    assert f"frames: {2 * FRAMES} of {2 * FRAMES} rows would be made" in said
    assert "in 2 processes" in said
    assert run(arguments(workspace, long_tree, "--dry-run", "--shard", "0/9")) == 0
    assert "frames: 64 of 64 rows" in "".join(capsys.readouterr())
    assert run(arguments(workspace, long_tree, "--shard", "2/2")) == 2
    assert bytes_of(workspace.path) == before


def test_what_does_not_fit_is_refused_before_anything_is_written(
    long_tree: tuple[Tree, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = workspace_of(long_tree, tmp_path)
    before = bytes_of(workspace.path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("vipocc.stores.space.shutil.disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
    assert run(arguments(workspace, long_tree)) == 2
    assert "400 rows of frames take about" in (said := capsys.readouterr().err)
    assert "vipocc init -C FOLDER" in said
    assert not workspace.store("frames").exists()
    assert {name for name in bytes_of(workspace.path) if name not in before} <= {"manifests/kitti-360.parquet"}


def root_config(data: DataConfig) -> Any:
    return configuration.root_schema()(data=data)


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "the store cannot be written")]
)
def test_disk_that_fails_costs_no_committed_frame(
    tree: Tree, config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    import vipocc.stores.commit as commit

    workspace, whole = Workspace.create(tmp_path / "workspace", "kitti-360", tree.root), root_config(config)
    write, written = commit.write_durably, [0]

    def failing(path: Path, content: bytes) -> None:
        written[0] += 1
        if written[0] > 1:
            raise OSError(number, os.strerror(number))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(commit, "write_durably", failing)
        with pytest.raises(StoreError, match=said):
            stage.ensure_prepared(workspace, whole, "train", jobs=1)
    assert records(workspace) == 1
    assert verify(workspace.store("frames"), deep=True, root=tree.root).sound
    stage.ensure_prepared(workspace, whole, "train", jobs=1)
    assert records(workspace) == 4


def test_kinds_follow_the_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="occupancy cannot be prepared from ddad; use frames, lidar"):
        stage.refuse_unknown_kinds("ddad", ("frames", "occupancy"))
    with pytest.raises(UsageError, match="nothing to prepare"):
        stage.refuse_unknown_kinds("ddad", ())
    Workspace.create(tmp_path / "workspace", "ddad", tmp_path)
    assert run(["data", "prepare", "-C", str(tmp_path / "workspace"), "--kinds", "occupancy"]) == 2
    assert "occupancy cannot be prepared from ddad" in capsys.readouterr().err


def test_digests_in_records_are_those_of_the_files(tree: Tree, config: DataConfig, tmp_path: Path) -> None:
    """Images are digested as they are read for decoding; the record says the same as the file on disk."""
    from vipocc.stores.files import digest_file

    workspace = Workspace.create(tmp_path / "workspace", "kitti-360", tree.root)
    stage.ensure_prepared(workspace, root_config(config), "train", jobs=1)
    held = StoreReader(workspace.store("frames"))
    for camera in ("image_00", "image_02"):
        unit = stage.plan_jobs(
            workspace, config, stage.ensure_indexed(workspace, root_config(config)), "train", ("frames",)
        )[0]
        record = unit.store.record(next(r.unit for r in unit.requests if r.unit.group == f"{DRIVE}/{camera}"))
        assert record is not None
        refs = [ref for entry in record["rows"].values() for ref in entry["inputs"]]
        assert refs
        assert all(ref["digest"] == digest_file(tree.root / ref["path"]) for ref in refs)
    assert held.groups()


def official(lists: Path, size: tuple[int, int]) -> DataConfig:
    return DataConfig(image_size=size, split=str(lists), convention="official", resize="bilinear", fisheye=False)


def released_resize(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The released preprocessing (published_system.md 1.4): floats, bilinear, rounded where the PNG is written."""
    image = cv2.imread(str(path))
    assert image is not None
    floats = cv2.resize(image[:, :, ::-1].astype(np.float32) / 255, size[::-1], interpolation=cv2.INTER_LINEAR) * 255
    # What cv2.imwrite does with floats.
    return np.clip(np.rint(floats), 0, 255).astype(np.uint8)


def rounded_bilinear(path: Path, size: tuple[int, int]) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    floats = cv2.resize(image[:, :, ::-1].astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.rint(floats).astype(np.uint8)


def test_official_frames_are_the_released_bytes(tree: Tree, lists: Path, tmp_path: Path) -> None:
    workspace, data = Workspace.create(tmp_path / "workspace", "kitti-360", tree.root), official(lists, (32, 96))
    stage.ensure_prepared(workspace, root_config(data), "train", jobs=1)
    frames = StoreReader(workspace.store("frames"))
    for row in (0, 1, 2):
        stored = frames.read(f"{DRIVE}/image_00", row, "rgb")
        path = tree.image(DRIVE, "image_00", row + 1)
        np.testing.assert_array_equal(stored, rounded_bilinear(path, (32, 96)))
        # The released code divides by 255 and multiplies again, which tips values half-way between two; at this size
        # many are.
        assert np.abs(stored.astype(int) - released_resize(path, (32, 96))).max() <= 1


def test_official_profile_on_real_samples(sample_data: Path, tmp_path: Path) -> None:
    drive, frame, size = "2013_05_28_drive_0000_sync", 250, (192, 640)
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "test_files.txt").write_text(f"{drive} {frame:010d} l")
    workspace = Workspace.create(tmp_path / "workspace", "kitti-360", sample_data / "KITTI-360")
    data = official(lists, size)
    manifest = stage.ensure_prepared(workspace, root_config(data), "test", ("frames", "lidar"), jobs=1)
    row = manifest.row_of(drive, frame)
    path = manifest.image_path(drive, "image_00", row)
    stored = StoreReader(workspace.store("frames")).read(f"{drive}/image_00", row, "rgb")
    np.testing.assert_array_equal(stored, rounded_bilinear(path, size))
    assert (stored != released_resize(path, size)).mean() < 1e-3
    scan = manifest.lidar_path(drive, row)
    assert scan is not None
    points = adapter("kitti-360").read_scan(scan)
    transform = relative(manifest.world_from_camera(drive, "image_00")[row], manifest.world_from_lidar(drive)[row])
    ndc = intrinsics_to_ndc(prepared_intrinsics(manifest, drive, "image_00", data), size, "official")
    expected = sparse_depth_official(points, transform, ndc, size)
    depth = StoreReader(workspace.store("lidar")).read(f"{drive}/image_00", row, "depth")
    np.testing.assert_array_equal(depth, expected)
    assert np.isfinite(depth).sum() > 20_000
