"""Mistakes that users make, each met by the commands a user would type: one sentence with the way out, exit code 2,
and not a byte of workspace or dataset changed.

The dataset is a small synthetic world. It is KITTI-360 in its layout, so that the same files serve as both datasets.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from workspace_tree import successful, tree_digests

from vipocc.cli import run

PRESET = """
data:
  image_size: [64, 96]
  fisheye: false
  sweeps: 3
  val_occupancy: 1
  world:
    {train_drives: 1, train_frames: 4, val_drives: 1, val_frames: 2, test_drives: 1, test_frames: 4, scale: 0.12,
     lidar_points: 640, antialias: false, shadows: false}
priors: {snog: {anchors: 8, draws: 2}}
model:
  encoder: {name: resnet18, width: 0.125, pretrained: none}
  decoder: {widths: [8, 8, 8, 16, 16], channels: 8}
  field: {hidden: 16}
  depth_branch: {encoder: {name: resnet18, width: 0.125, pretrained: none}, widths: [8, 8, 8, 16, 16], channels: 8}
  renderer: {samples: 8}
training:
  {max_steps: 2, batch_size: 2, patches: 4, depth_patches: 4, workers: 0, validation_frames: 1, tensorboard: false}
"""

TRAIN_DRIVE, TEST_DRIVE = "synthetic_drive_0000_sync", "synthetic_drive_0002_sync"

#: Commands by what they read of a dataset.
READS_CALIBRATION = (
    ["data", "check"],
    ["data", "index"],
    ["data", "prepare"],
    ["priors", "depth"],
    ["priors", "sam"],
    ["train"],
    ["eval", "occupancy"],
    ["eval", "depth"],
    ["eval", "sampler"],
)


class Place:
    """A world and two workspaces on it, in a folder that one test may spoil."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.preset = folder / "tiny.yaml"
        self.world = folder / "world"
        self.lists = folder / "lists"
        self.synthetic = folder / "synthetic"
        """Everything is there: frames, priors, a trained model."""
        self.kitti = folder / "kitti"
        """The world as KITTI-360, indexed and its frames prepared."""

    @classmethod
    def copied(cls, base: Place, folder: Path) -> Place:
        """Copy a place; the workspaces' files name the world by its path, so they are made to name the copy."""
        shutil.copytree(base.folder, folder, copy_function=shutil.copy2)
        # An index depends on the folders' dates, which copytree keeps for folders too.
        place = cls(folder)
        for workspace in (place.synthetic, place.kitti):
            file = workspace / "vipocc.yaml"
            file.write_text(file.read_text().replace(str(base.folder), str(folder)))
        return place

    def arguments(self, workspace: Path, *words: str) -> list[str]:
        split = ["-o", f"data.split={self.lists}"] if workspace == self.kitti else []
        return [*words, "-C", str(workspace), *split]

    def image(self, frame: int = 2) -> Path:
        return self.world / "data_2d_raw" / TRAIN_DRIVE / "image_00/data_rect" / f"{frame:010d}.png"

    def scan(self) -> Path:
        return self.world / "data_3d_raw" / TEST_DRIVE / "velodyne_points/data" / f"{1:010d}.bin"

    def checkpoint(self) -> Path:
        return next(self.synthetic.glob("runs/*/checkpoints/step_2"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Not to be changed: tests copy it."""
    place = Place(tmp_path_factory.mktemp("bad") / "place")
    place.folder.mkdir()
    place.preset.write_text(PRESET)
    synthetic = ["-C", str(place.synthetic)]
    world = ["--root", str(place.world), "--preset", str(place.preset)]
    successful("init", "--dataset", "synthetic", *synthetic, *world)
    successful("priors", "depth", *synthetic, "--jobs", "1")
    successful("priors", "sam", *synthetic, "--jobs", "1")
    successful("train", *synthetic)
    successful("init", "--dataset", "kitti-360", "-C", str(place.kitti), *world)
    shutil.copytree(place.world / "splits", place.lists)
    successful(*place.arguments(place.kitti, "data", "prepare", "--jobs", "1"))
    return place


@pytest.fixture
def place(base: Place, tmp_path: Path) -> Place:
    return Place.copied(base, tmp_path / "place")


Refused = Callable[..., str]


@pytest.fixture
def refused(place: Place, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must fail as a user's mistake does, and return its sentence."""

    def check(workspace: Path, *words: str, names: tuple[str | Path, ...]) -> str:
        before = tree_digests(place.folder)
        capfd.readouterr()
        code = run(place.arguments(workspace, *words))
        out, err = capfd.readouterr()
        lines = err.splitlines()
        assert code == 2, (words, out[-500:], err[-500:])
        assert len(lines) == 1, (words, err)
        assert lines[0].startswith("vipocc: error: "), (words, err)
        assert "Traceback" not in out + err
        sentence = lines[0].removeprefix("vipocc: error: ")
        wrong, way_out = sentence.rpartition("; ")[::2]
        assert wrong, f"no way out: {sentence}"
        assert way_out
        for name in names:
            assert str(name) in sentence, (words, name, sentence)
        after = tree_digests(place.folder)
        changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
        assert not changed, (words, sorted(changed)[:5])
        return sentence

    return check


def forget_preparation(workspace: Path) -> None:
    """Make the next command index and prepare anew."""
    for name in ("stores", "manifests"):
        shutil.rmtree(workspace / name)


def test_these_commands_work_while_the_input_is_good(base: Place, tmp_path: Path) -> None:
    place = Place.copied(base, tmp_path / "copy")
    for workspace in (place.synthetic, place.kitti):
        for words in (["data", "check"], ["data", "index"], ["data", "prepare"]):
            successful(*place.arguments(workspace, *words))
    for words in READS_CALIBRATION[3:]:
        extra = ["-o", "evaluation.iterations=5"] if words == ["eval", "sampler"] else []
        successful(*place.arguments(place.synthetic, *words), *extra)


def test_root_that_is_no_folder(place: Place, refused: Refused, capfd: pytest.CaptureFixture[str]) -> None:
    before = tree_digests(place.folder)
    assert run(["init", "--dataset", "kitti-360", "--root", "/nowhere", "-C", str(place.folder / "new")]) == 2
    assert capfd.readouterr().err == ("vipocc: error: the dataset's root is not a folder: /nowhere; correct --root\n")
    assert tree_digests(place.folder) == before
    # The root was there when the workspace was made, and is not any more.
    place.world.rename(place.folder / "moved")
    for words in (["data", "check"], ["data", "index"], ["data", "prepare"], ["eval", "sampler"]):
        refused(place.kitti, *words, names=("not a folder", place.world, "root: in vipocc.yaml"))


def test_root_of_something_else(place: Place, refused: Refused) -> None:
    shutil.rmtree(place.world)
    (place.world / "photographs").mkdir(parents=True)
    for words in (["data", "check"], ["data", "index"], ["data", "prepare"]):
        refused(place.kitti, *words, names=("no KITTI-360 here", place.world, "data_poses"))


def test_no_poses(place: Place, refused: Refused) -> None:
    shutil.rmtree(place.world / "data_poses")
    poses = place.world / "data_poses" / TRAIN_DRIVE / "poses.txt"
    for words in (["data", "check"], ["data", "index"], ["data", "prepare"]):
        refused(place.kitti, *words, names=("no poses", poses, 'download "Vehicle Poses (8.9M)"'))
    for words in READS_CALIBRATION:
        refused(place.synthetic, *words, names=("no poses", poses, "delete the synthetic world's folder"))


def test_a_drive_that_a_split_needs_is_missing(place: Place, refused: Refused) -> None:
    forget_preparation(place.kitti)
    for kind in ("data_poses", "data_2d_raw", "data_3d_raw"):
        shutil.rmtree(place.world / kind / TRAIN_DRIVE)
    sentence = refused(
        place.kitti,
        "data",
        "prepare",
        "--split",
        "train",
        names=("no sample of split train", place.world, "data check"),
    )
    assert "the drive is not there: 6" in sentence
    for words in READS_CALIBRATION[1:]:
        refused(place.synthetic, *words, names=("a drive", TRAIN_DRIVE, "delete the synthetic world's folder"))


def test_a_missing_drive_beside_others_is_said_and_left_out(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    """A part of the dataset is a legitimate copy: real downloads come drive by drive."""
    for kind in ("data_poses", "data_2d_raw", "data_3d_raw"):
        shutil.rmtree(place.world / kind / TRAIN_DRIVE)
    assert run(place.arguments(place.kitti, "data", "prepare")) == 0
    assert "train: 0 samples; left out: 6 (the drive is not there)" in capfd.readouterr().out
    assert run(place.arguments(place.kitti, "data", "check")) == 0
    assert (
        'priors, train lack 6 of 6 poses (synthetic_drive_0000_sync): "Vehicle Poses (8.9M)"' in capfd.readouterr().out
    )


def test_truncated_image(place: Place, refused: Refused) -> None:
    os.truncate(place.image(), place.image().stat().st_size // 2)
    for workspace, fix in ((place.kitti, 'download "Perspective Images'), (place.synthetic, "delete the synthetic")):
        refused(workspace, "data", "check", names=("an image is truncated", place.image(), fix))
        forget_preparation(workspace)
        refused(workspace, "data", "prepare", names=("an image is truncated", place.image(), fix))
    for words in (["priors", "depth"], ["priors", "sam"], ["priors", "depth", "--split", "train"]):
        refused(place.synthetic, *words, names=("an image is truncated", place.image(), "delete the synthetic"))


def test_image_damaged_in_the_middle(place: Place, refused: Refused) -> None:
    content = bytearray(place.image().read_bytes())
    content[len(content) // 2] ^= 1
    place.image().write_bytes(content)
    refused(place.kitti, "data", "check", names=("a checksum differs", place.image(), 'download "Perspective Images'))


def test_truncated_scan(place: Place, refused: Refused) -> None:
    os.truncate(place.scan(), place.scan().stat().st_size // 32 * 16 + 5)
    for workspace, fix in ((place.kitti, 'download "Raw Velodyne Scans'), (place.synthetic, "delete the synthetic")):
        names = ("scan is truncated", place.scan(), fix)
        refused(workspace, "data", "check", names=names)
        forget_preparation(workspace)
        refused(workspace, "data", "prepare", names=names)
    for words in (["eval", "occupancy"], ["eval", "depth"]):
        refused(place.synthetic, *words, names=names)


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("perspective.txt", "P_rect_00"),
        ("perspective.txt", "R_rect_01"),
        ("perspective.txt", "S_rect_00"),
        ("calib_cam_to_pose.txt", "image_01"),
        ("image_02.yaml", "xi"),
        ("image_03.yaml", "gamma1"),
    ],
)
def test_calibration_without_a_key(place: Place, refused: Refused, file: str, key: str) -> None:
    path = place.world / "calibration" / file
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.strip().startswith(f"{key}:")]
    assert len(kept) == len(lines) - 1
    path.write_text("".join(kept))
    for words in (["data", "check"], ["data", "index"], ["data", "prepare"]):
        refused(place.kitti, *words, names=(key, path, 'download "Calibrations (28K)"'))
    for words in READS_CALIBRATION:
        refused(place.synthetic, *words, names=(key, path, "delete the synthetic world's folder"))


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("training.batchsize=3", ("unknown configuration key 'training.batchsize'", "'training.batch_size'")),
        ("trainig.batch_size=3", ("unknown configuration key 'trainig'", "'training'")),
        ("training.batch_size=many", ("training.batch_size", "'many'", "valid integer")),
        ("model.encoder.name=vgg", ("model.encoder.name", "'vgg'", "resnet18")),
    ],
)
def test_unknown_configuration_key_or_value(
    place: Place, refused: Refused, override: str, names: tuple[str, ...]
) -> None:
    for words in READS_CALIBRATION:
        refused(place.synthetic, *words, "-o", override, names=names)


def test_unknown_key_in_a_preset(place: Place, refused: Refused) -> None:
    place.preset.write_text(PRESET.replace("batch_size: 2", "bach_size: 2"))
    for words in READS_CALIBRATION:
        refused(place.synthetic, *words, names=("training.bach_size", "did you mean 'training.batch_size'?"))


def test_store_of_another_dataset(place: Place, refused: Refused) -> None:
    manifests = (place.kitti / "manifests/kitti-360.parquet").read_bytes()
    shutil.rmtree(place.kitti / "stores")
    shutil.copytree(place.synthetic / "stores/synthetic", place.kitti / "stores/kitti-360")
    checkpoint = ["--checkpoint", str(place.checkpoint())]
    stores = place.kitti / "stores/kitti-360"
    for words, kind in (
        (["data", "prepare"], "frames"),
        (["priors", "anchors"], "frames"),
        (["train"], "frames"),
        (["eval", "occupancy", *checkpoint], "frames"),
        (["eval", "depth", *checkpoint], "frames"),
        (["eval", "sampler"], "instances"),
    ):
        sentence = refused(place.kitti, *words, names=(stores / f"{kind}.zarr", "dataset"))
        assert "synthetic" in sentence
        assert "kitti-360" in sentence
    assert (place.kitti / "manifests/kitti-360.parquet").read_bytes() == manifests


@pytest.mark.parametrize("override", ["data.image_size=[64,128]", "data.resize=bilinear"])
def test_frames_prepared_otherwise(place: Place, refused: Refused, override: str) -> None:
    """The way out is one that the command has: `data prepare` writes no second store."""
    frames = place.synthetic / "stores/synthetic/frames.zarr"
    sentence = refused(
        place.synthetic, "data", "prepare", "-o", override, names=(frames, "vipocc init -C FOLDER", "delete the store")
    )
    assert "--store" not in sentence
    assert "--overwrite" not in sentence


def test_priors_of_another_dataset_beside_our_own_frames(place: Place, refused: Refused) -> None:
    for kind in ("depth", "instances", "anchors"):
        for name in (f"{kind}.zarr", f"{kind}.zarr.ledger"):
            shutil.copytree(place.synthetic / "stores/synthetic" / name, place.kitti / "stores/kitti-360" / name)
    for words, kind in (
        (["train"], "depth"),
        (["priors", "anchors"], "anchors"),
        (["eval", "sampler"], "instances"),
        (["eval", "depth", "--checkpoint", str(place.checkpoint())], "depth"),
    ):
        sentence = refused(place.kitti, *words, names=("dataset", f"{kind}.zarr"))
        assert "synthetic" in sentence


def test_checkpoint_of_another_shape(place: Place, refused: Refused) -> None:
    weights = place.checkpoint() / "model.safetensors"
    names = ("head.hidden.weight is [16, ", "the model's is [24, ", weights, "train anew")
    for words in (
        ["train", "--resume", "-o", "training.max_steps=4"],
        ["eval", "occupancy"],
        ["eval", "depth"],
    ):
        refused(place.synthetic, *words, "-o", "model.field.hidden=24", names=names)
    # The same with the configuration inside the checkpoint.
    config = place.checkpoint() / "config.yaml"
    config.write_text(config.read_text().replace("hidden: 16", "hidden: 24"))
    for words in (["eval", "occupancy"], ["eval", "depth"]):
        refused(place.synthetic, *words, names=names)


def test_truncated_and_absent_checkpoint(place: Place, refused: Refused) -> None:
    weights = place.checkpoint() / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    for words in (["eval", "occupancy"], ["eval", "depth"]):
        refused(place.synthetic, *words, names=("truncated or damaged", weights, "choose another checkpoint"))
        nowhere = place.folder / "nowhere"
        refused(place.synthetic, *words, "--checkpoint", str(nowhere), names=("not a checkpoint", nowhere, "step_*"))
        refused(place.synthetic, *words, "--run", "other", names=("'other'", "vipocc train"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    "words",
    [
        ["train", "--device", "cuda"],
        ["train", "-o", "training.device=cuda"],
        ["eval", "occupancy", "--device", "cuda"],
        ["eval", "depth", "--device", "cuda:0"],
        ["priors", "depth", "--device", "cuda"],
        ["priors", "sam", "--device", "cuda:1"],
        ["priors", "depth", "--devices", "all"],
    ],
    ids=" ".join,
)
def test_no_gpu_where_one_was_asked_for(place: Place, refused: Refused, words: list[str]) -> None:
    forget_preparation(place.kitti)
    refused(place.synthetic, *words, names=("no CUDA device is available", "--device cpu", "nvidia-smi"))


def test_no_such_device(place: Place, refused: Refused) -> None:
    for words in (["train"], ["eval", "occupancy"], ["priors", "depth"]):
        refused(place.synthetic, *words, "--device", "gpu", names=("'gpu' is not a device", "--device auto, cpu, cuda"))


def test_preset_file_is_found_from_anywhere_and_missed_by_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(PRESET)
    assert run(["init", "--dataset", "synthetic", "--preset", "own.yaml", "-C", "ws"]) == 0
    monkeypatch.chdir(tmp_path / "ws")
    assert run(["config", "show"]) == 0
    assert "image_size:\n  - 64" in capfd.readouterr().out
    (tmp_path / "own.yaml").unlink()
    assert run(["config", "show"]) == 2
    error = capfd.readouterr().err
    assert error == (
        f"vipocc: error: the preset's file is not there: {tmp_path / 'own.yaml'}; "
        "correct --preset, or preset: in vipocc.yaml\n"
    )
