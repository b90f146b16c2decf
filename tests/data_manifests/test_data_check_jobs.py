"""The check, job by job: exit codes, what nobody has, repeated poses, leaks, costs, and what people see."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from kitti_raw_tree import DRIVE as RAW_DRIVE
from kitti_raw_tree import RawTree, make_raw_tree
from kitti_tree import DRIVE, SECOND, Tree, make_tree

from vipocc import cli
from vipocc.data_manifests import stage
from vipocc.data_manifests.check import JOBS, check
from vipocc.data_manifests.check.needs import window
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.datasets.adapter import Quirk
from vipocc.data_manifests.datasets.kitti_360 import Kitti360
from vipocc.data_manifests.roles import also_trained
from vipocc.data_manifests.splits import expand, read_folder
from vipocc.errors import UsageError
from vipocc.workspace import Workspace


def run(*arguments: object) -> int:
    return cli.run([str(argument) for argument in arguments])


@pytest.fixture
def options(tree: Tree, tmp_path: Path, lists: Path) -> list[str]:
    workspace = Workspace.create(tmp_path / "workspace", "kitti-360", tree.root)
    overrides = ["data.image_size=[32,96]", f"data.split={lists}"]
    return ["-C", str(workspace.path), *(part for text in overrides for part in ("-o", text))]


def test_each_job_needs_its_own_files(tree: Tree, config: DataConfig) -> None:
    """Damage nothing, take one file at a time: just the jobs that read it lack it."""
    cases = {
        tree.image(DRIVE, "image_00", 2): {"priors", "train"},
        tree.image(DRIVE, "image_01", 4): {"priors", "train"},
        tree.image(DRIVE, "image_02", 11): {"train"},
        tree.image(DRIVE, "image_00", 6): {"validation"},
        tree.image(DRIVE, "image_00", 12): {"eval-occupancy", "eval-depth", "eval-sampler"},
        tree.scan(DRIVE, 12): {"validation", "eval-occupancy", "eval-depth"},
        tree.scan(DRIVE, 13): {"validation", "eval-occupancy"},
        tree.scan(DRIVE, 6): {"validation"},
        tree.scan(DRIVE, 5): set(),
        tree.image(DRIVE, "image_01", 12): set(),
        tree.image(DRIVE, "image_00", 16): set(),
    }
    for path, jobs in cases.items():
        kept = path.read_bytes()
        path.unlink()
        report = check(tree.root, "kitti-360", config)
        assert {job.job for job in report.jobs if job.lacks} == jobs, path
        assert sum(lack.missing for job in report.jobs for lack in job.lacks) == len(jobs)
        path.write_bytes(kept)


def test_exit_codes(options: list[str], tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    for job in (*JOBS, "all"):
        assert run("data", "check", "--for", job, *options) == 0
    tree.image(DRIVE, "image_01", 2).unlink()
    codes = {job: run("data", "check", "--for", job, *options) for job in (*JOBS, "all")}
    assert codes == {**dict.fromkeys(JOBS, 0), "priors": 3, "train": 3, "all": 3}
    assert run("data", "check", *options) == 0, "a part of a dataset is a legitimate copy"
    # Damage concerns the jobs that read the file, and whoever asks about everything.
    tree.image(DRIVE, "image_00", 12).write_bytes(b"not an image")
    capsys.readouterr()
    codes = {job: run("data", "check", "--for", job, *options) for job in JOBS}
    assert codes == {
        "priors": 3, "train": 3, "validation": 0, "eval-occupancy": 2, "eval-depth": 2, "eval-sampler": 2,
    }  # fmt: skip
    assert run("data", "check", "--deep", *options) == 2
    tree.image(DRIVE, "image_00", 12).unlink()
    capsys.readouterr()
    assert run("data", "check", "--for", "eval-sampler", *options) == 2
    assert "nothing of what eval-sampler needs is usable" in capsys.readouterr().err
    assert run("data", "check", "--for", "training", *options) == 2
    error = capsys.readouterr().err
    assert error == f"vipocc: error: there is no job 'training'; use --for {', '.join(JOBS)} or all\n"


def test_a_split_that_lists_nothing_for_a_job(
    options: list[str], lists: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (lists / "train_files.txt").unlink()
    assert run("data", "check", "--for", "train", *options) == 2
    captured = capsys.readouterr()
    assert "lists no frame for train" in captured.err
    assert "train: split train lists no frames" in captured.out
    assert run("data", "check", "--for", "all", *options) == 0
    (lists / "test_files.txt").unlink()
    assert run("data", "check", "--json", *options) == 0
    text = capsys.readouterr().out
    jobs = {job["job"]: job for job in json.loads(text[text.index("{\n") :])["jobs"]}
    assert jobs["eval-depth"]["split"] == "val", "evaluations take val where there is no test list"
    assert jobs["train"]["state"] == "unlisted"


def test_narrowing_reads_and_reports_just_the_job(tree: Tree, config: DataConfig) -> None:
    report = check(tree.root, "kitti-360", config, only=("eval-depth",), deep=True)
    assert [job.job for job in report.jobs] == ["eval-depth"]
    assert report.read == 2, "one image and its sweep"
    assert report.listed == {"test": 1}
    assert [cost.stage for cost in report.costs] == ["frames", "lidar"]
    assert report.leaks == {}


def test_what_was_never_published_is_not_lacking(
    tree: Tree, config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for frame in (2, 3):
        tree.image(DRIVE, "image_01", frame).unlink()
    quirk = Quirk(DRIVE, "frame 3 was never published", "nobody", unpublished={"images": "3"})
    monkeypatch.setattr(Kitti360, "quirks", (quirk,))
    train = check(tree.root, "kitti-360", config).job("train")
    assert (train.lacks[0].missing, train.lacks[0].needed) == (1, 7)
    assert train.unpublished == {"images": 1}
    shutil.copy(tree.image(DRIVE, "image_01", 1), tree.image(DRIVE, "image_01", 2))
    train = check(tree.root, "kitti-360", config).job("train")
    assert train.state == "complete"
    assert train.usable < train.listed


def test_quirks_of_every_drive_are_said_once(tree: Tree, config: DataConfig) -> None:
    report = check(tree.root, "kitti-360", config)
    assert any("hardly moved" in note for note in report.notes)
    assert not any("hardly moved" in fact for drive in report.drives for fact in drive.facts)
    assert report.licence.startswith("CC BY-NC-SA")


def test_repeated_and_standing_poses(tmp_path: Path, config: DataConfig) -> None:
    tree = make_tree(tmp_path / "root", (DRIVE, SECOND), 12)
    lines = tree.poses(DRIVE).read_text().splitlines()
    lines[5] = lines[5].split()[0] + " " + lines[4].split(" ", 1)[1]
    tree.poses(DRIVE).write_text("\n".join(lines))
    report = check(tree.root, "kitti-360", config)
    assert [(repeat.drive, repeat.of, repeat.poses) for repeat in report.repeats] == [(SECOND, DRIVE, 11)]
    assert {drive.drive: drive.standing for drive in report.drives} == {DRIVE: 1, SECOND: 0}


def test_val_frames_that_train_sees_through_the_other_camera(lists: Path, sample_data: Path) -> None:
    assert also_trained(read_folder(lists)) == {}
    (lists / "val_files.txt").write_text(f"{DRIVE} 0000000002 l\n{DRIVE} 0000000006 l\n")
    assert also_trained(read_folder(lists)) == {"val": 1}
    eigen = read_folder(sample_data / "splits/kitti_raw_eigen", lambda listed: listed.rpartition("/")[2])
    assert also_trained(eigen) == {"val": 3950}  # published_system.md 1.7


def test_costs_grow_with_what_is_there(tree: Tree, config: DataConfig) -> None:
    whole = {cost.stage: cost for cost in check(tree.root, "kitti-360", config).costs}
    # Train: 2 x 4 stereo images and 2 x 4 fisheyes; val and test: one image each.
    assert whole["frames"].rows == 18
    assert whole["depth"].rows == whole["instances"].rows == whole["anchors"].rows == 8
    assert whole["lidar"].rows == whole["occupancy"].rows == 2
    assert whole["anchors"].bytes == 8 * 25 * 64 * 4
    assert whole["frames"].bytes == pytest.approx(18 * 32 * 96 * 2.4)
    larger = check(tree.root, "kitti-360", config.model_copy(update={"image_size": (64, 192)}), jobs=2)
    costs = {cost.stage: cost for cost in larger.costs}
    assert costs["frames"].bytes == 4 * whole["frames"].bytes
    assert costs["lidar"].seconds == whole["lidar"].seconds / 2
    tree.image(DRIVE, "image_00", 1).unlink()
    assert {cost.stage: cost.rows for cost in check(tree.root, "kitti-360", config).costs}["depth"] == 7
    assert larger.training_bytes > 0


def test_windows_of_rows() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows, length = np.unique(rng.integers(0, 40, 6)), int(rng.integers(1, 12))
        plain = sorted({row + step for row in rows.tolist() for step in range(length) if row + step < 40})
        assert window(rows, length, 40).tolist() == plain


def test_kitti_raw_has_no_occupancy_and_both_kinds_of_images(tmp_path: Path) -> None:
    tree: RawTree = make_raw_tree(tmp_path / "root", (RAW_DRIVE,), 6)
    tree.to_jpeg("image_03")
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "train_files.txt").write_text(f"2011_09_26/{RAW_DRIVE} 1 l\n2011_09_26/{RAW_DRIVE} 2 r\n")
    (folder / "val_files.txt").write_text(f"2011_09_26/{RAW_DRIVE} 1 r\n")
    (folder / "test_files.txt").write_text(f"2011_09_26/{RAW_DRIVE} 4 l\n")
    config = DataConfig(split=str(folder))
    report = check(tmp_path / "root", "kitti-raw", config, deep=True)
    assert report.sound
    assert {job.job: job.state for job in report.jobs} == {
        job: "complete" for job in JOBS if job != "eval-occupancy"
    }  # fmt: skip
    assert report.also_train == {"val": 1}
    with pytest.raises(UsageError, match="eval-occupancy is not possible on kitti-raw; use --for priors"):
        check(tmp_path / "root", "kitti-raw", config, only=("eval-occupancy",))
    tree.image("image_02", 1).write_bytes(tree.image("image_02", 1).read_bytes()[:100])
    damaged = check(tmp_path / "root", "kitti-raw", config, only=("train",))
    assert [fault.fault for fault in damaged.faults] == ["an image is truncated"]
    assert "2011_09_26_drive_0001" in damaged.faults[0].fix


def test_a_download_for_each_drive(tree: Tree, config: DataConfig, lists: Path) -> None:
    lines = "".join(f"2013_05_28_drive_{n:04d}_sync 0000000007 l\n" for n in (20, 21))
    (lists / "val_files.txt").write_text(lines)
    lacks = {lack.what: lack for lack in check(tree.root, "kitti-360", config).job("validation").lacks}
    assert lacks["poses"].downloads == {'"Vehicle Poses (8.9M)"': [f"2013_05_28_drive_{n:04d}_sync" for n in (20, 21)]}


def test_terminal_shows_a_table_and_colours_only_what_is_missing(
    options: list[str], tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "check", *options) == 0
    plain = capsys.readouterr().out
    assert "\x1b[" not in plain
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert run("data", "check", *options) == 0
    table = capsys.readouterr().out
    row = next(line for line in table.splitlines() if DRIVE in line)
    assert row.split()[:4] == [DRIVE, "16", "1-16", "0"]
    assert "\x1b[33m" not in table
    tree.image(DRIVE, "image_01", 2).unlink()
    assert run("data", "check", *options) == 0
    table = capsys.readouterr().out
    row = next(line for line in table.splitlines() if DRIVE in line)
    assert row.count("\x1b[33m") == 1
    assert "\x1b[33mpriors, train lack 1 of 8 images" in table


@pytest.mark.parametrize("name", ["kitti-360", "kitti-raw", "ddad", "synthetic"])
def test_quirks_name_their_source_and_ranges(name: str) -> None:
    for quirk in adapter(name).quirks:
        assert quirk.fact
        assert quirk.source
        assert all(len(expand(ranges)) for ranges in quirk.unpublished.values())


def test_costs_of_preparation_are_those_that_preparation_says(tree: Tree, config: DataConfig, tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "workspace", "kitti-360", tree.root)
    root = SimpleNamespace(data=config.model_copy(update={"sweeps": 3}))
    manifest = stage.index(workspace, root).manifest
    costs = {cost.stage: cost for cost in check(tree.root, "kitti-360", root.data).costs}
    for split in ("val", "test"):
        for job in stage.plan_jobs(workspace, root.data, manifest, split, ("lidar", "occupancy")):
            cost = costs[job.kind]
            assert cost.rows == 2 * job.plan().missing
            assert cost.bytes == pytest.approx(cost.rows * job.bytes_per_row)
            assert cost.seconds == pytest.approx(cost.rows * job.seconds_per_row)
    (frames,) = stage.plan_jobs(workspace, root.data, manifest, "all", ("frames",))
    assert costs["frames"].rows == frames.plan().missing
    assert costs["frames"].bytes == pytest.approx(costs["frames"].rows * frames.bytes_per_row)
    assert costs["frames"].seconds == pytest.approx(costs["frames"].rows * frames.seconds_per_row)
