from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image
from predict_cases import street, tiny_checkpoint, write_phone

from vipocc.cli import run
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.images import Preparation
from vipocc.geometry.cameras import Pinhole
from vipocc.model.network import ViPOcc
from vipocc.priors.tiny import make_tiny_depth

SMALL_GRID = ("--x", "-2", "2", "--z", "4", "8", "--cell", "0.5")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "street.png"
    Image.fromarray(street()).save(path)
    return path


def predict(*arguments: object) -> int:
    return run(["predict", *(str(one) for one in arguments)])


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "prediction.json").read_text())
    return found


def test_a_kitti_picture_is_what_the_network_says_of_it_prepared(
    sample_data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    folder = sample_data / "KITTI-360" / "data_2d_raw" / "2013_05_28_drive_0000_sync" / "image_00" / "data_rect"
    file = folder / "0000000250.png"
    calibration = sample_data / "KITTI-360" / "calibration" / "perspective.txt"
    out = tmp_path / "out"
    assert predict(file, "-o", out, "--checkpoint", checkpoint, "--calibration", calibration) == 0

    camera = Pinhole(552.554261, 552.554261, 682.049453, 238.769549, 1408, 376)
    config = DataConfig(image_size=(64, 192))
    prepared = Preparation(camera, camera, config)(cv2.imread(str(file))[:, :, ::-1])
    view = cv2.imread(str(out / "0000000250" / "view.png"))[:, :, ::-1]
    np.testing.assert_array_equal(view, prepared)

    import torch

    from vipocc.geometry.ndc import intrinsics_to_ndc

    model = ViPOcc.from_pretrained(checkpoint)
    small = camera.resized((64, 192))
    matrix = torch.tensor(intrinsics_to_ndc(small.matrix, small.size, "centre"), dtype=torch.float32)[None]
    image = torch.tensor(prepared.copy()).permute(2, 0, 1)[None] / 255.0
    with torch.no_grad():
        features = model.encode(image)
        depth = model.render_depth(features, matrix, (64, 192))[0, 0].numpy()
        held = np.load(out / "0000000250" / "occupancy.npz")
        at = (10, 3, 20)
        point = held["camera_from_grid"] @ [held["x"][at[0]], held["y"][at[1]], held["z"][at[2]], 1.0]
        sigma = model.density(features, torch.tensor(point[:3], dtype=torch.float32)[None, None], matrix)
    np.testing.assert_allclose(np.load(out / "0000000250" / "depth.npy"), depth, rtol=1e-4)
    assert float(held["density"][at]) == pytest.approx(float(sigma), rel=1e-4)


def test_every_file_says_the_same(checkpoint: Path, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(picture, "-o", out, "--checkpoint", checkpoint, "--fov", 100, "--full-size", "--cell", 0.5) == 0
    told = record(out / "street")
    assert set(told["files"].values()) | {"prediction.json"} == {path.name for path in (out / "street").iterdir()}
    assert told["depth"]["by"] == "rendered"
    metres = np.load(out / "street" / "depth.npy")
    png = cv2.imread(str(out / "street" / "depth.png"), cv2.IMREAD_UNCHANGED)
    assert png.dtype == np.uint16
    known = np.isfinite(metres)
    np.testing.assert_allclose(png[known] / 256, metres[known], atol=1 / 512 + 1e-6)
    assert (png[~known] == 0).all()
    assert np.load(out / "street" / "depth_of_picture.npy").shape == (188, 704)
    held = np.load(out / "street" / "occupancy.npz")
    np.testing.assert_array_equal(held["occupied"], held["density"] > 0.5)
    assert held["density"].shape == (16, 2, 32) == tuple(json.loads(str(held["about"]))["shape"])
    assert told["occupancy"]["occupied_cells"] == held["occupied"].sum()
    if held["occupied"].any():
        cloud = trimesh.load(out / "street" / "occupancy.ply")
        assert len(cloud.vertices) == held["occupied"].sum()


def test_pseudo_depth_is_that_of_the_priors_command_and_the_branch_refines_it(
    checkpoint: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_tiny_depth(tmp_path / "depth")
    out = tmp_path / "out"
    options = (
        "--checkpoint",
        checkpoint,
        "--fov",
        104,
        "--no-occupancy",
        "--override",
        "priors.depth.input_size=native",
    )
    assert predict(picture, "-o", out, *options, "--depth-model", model) == 0
    assert "refined from pseudo-depth" in capsys.readouterr().out
    assert record(out / "street")["depth"]["by"] == "refined"

    from vipocc.priors.config import DepthConfig
    from vipocc.priors.depth.depth_anything import DepthAnything

    view = cv2.imread(str(out / "street" / "view.png"))[None, :, :, ::-1]
    prior = DepthAnything(DepthConfig(model=str(model), input_size="native"))(np.ascontiguousarray(view))[0].astype(
        np.float32
    )
    refined = np.load(out / "street" / "depth.npy")
    known = np.isfinite(refined)
    # An untrained branch adds nothing to 1 / prior.
    np.testing.assert_allclose(refined[known], prior[known].clip(0.1, 80.0), rtol=1e-3)
    assert not (out / "street" / "occupancy.npz").exists()


def test_a_phones_picture_brings_its_own_focal_length_upright(checkpoint: Path, tmp_path: Path) -> None:
    lying = write_phone(tmp_path / "phone.jpg", orientation=6)
    out = tmp_path / "out"
    assert predict(lying, "-o", out, "--checkpoint", checkpoint, "--cell", 0.5) == 0
    told = record(out / "phone")
    assert (told["camera"]["width"], told["camera"]["height"]) == (600, 800)
    assert told["camera"]["fx"] == pytest.approx(26 / 43.26661530556787 * 1000)
    assert told["warnings"] == []
    assert told["view"]["made_by"]["share_of_view_seen"] < 0.5
    depth = np.load(out / "phone" / "depth.npy")
    assert np.isnan(depth[:, 0]).all()
    assert np.isfinite(depth[:, 96]).any()
    held = np.load(out / "phone" / "occupancy.npz")
    assert 0 < held["in_view"].sum() < held["in_view"].size


def test_one_bad_picture_does_not_stop_the_others(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    phone = write_phone(folder / "good.jpg")
    (folder / "cut.jpg").write_bytes(phone.read_bytes()[:9000])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no picture")
    Image.fromarray(street(20, 20)).save(folder / "more" / "tiny.png")
    Image.fromarray(np.zeros((100, 100), np.uint16)).save(folder / "deep.png")
    (folder / "notes.txt").write_text("left alone")
    out = tmp_path / "out"
    assert predict(folder, "-o", out, "--checkpoint", checkpoint, "--json", *SMALL_GRID) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["predicted"] == 1
    failed = {one["name"]: one["error"] for one in told["failed"]}
    assert set(failed) == {"cut", "deep", "empty", "more/tiny", "text"}
    assert "truncated" in failed["cut"]
    assert "kind I;16" in failed["deep"]
    assert "empty" in failed["empty"]
    assert "no picture" in failed["text"]
    assert "20x20" in failed["more/tiny"]
    assert (out / "good" / "prediction.json").is_file()
    assert predict(folder / "text.png", "-o", out, "--checkpoint", checkpoint) == 2


def test_a_second_run_does_what_is_missing_or_asked_for_otherwise(
    checkpoint: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def counts(*more: object) -> tuple[int, int]:
        assert (
            predict(picture, "-o", out, "--checkpoint", checkpoint, "--focal", 300, "--json", *SMALL_GRID, *more) == 0
        )
        told = json.loads(capsys.readouterr().out)
        return told["predicted"], told["skipped"]

    assert counts() == (1, 0)
    assert counts() == (0, 1)
    assert counts("--overwrite") == (1, 0)
    assert counts("--threshold", 0.4) == (1, 0)
    assert counts("--threshold", 0.4) == (0, 1)
    (out / "street" / "above.png").unlink()
    assert counts("--threshold", 0.4) == (1, 0)
    Image.fromarray(street(seed=1)).save(picture)
    assert counts("--threshold", 0.4) == (1, 0)


def test_frames_of_a_video_are_named_by_their_number(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (704, 188))
    for number in range(7):
        writer.write(np.ascontiguousarray(street(seed=number)[:, :, ::-1]))
    writer.release()
    out = tmp_path / "out"
    options = ("-o", out, "--checkpoint", checkpoint, "--fov", 104, *SMALL_GRID)
    assert predict(video, "--every", 3, "--limit", 2, *options) == 0
    assert sorted(path.name for path in (out / "drive").iterdir()) == ["frame_000000", "frame_000003"]
    assert predict(video, "--every", 3, *options) == 0
    assert "1 predicted, 2 there already" in capsys.readouterr().out
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    assert predict(tmp_path / "broken.mp4", *options) == 2


def test_batches_change_nothing(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(street(seed=number)).save(folder / f"{number}.png")
    options = ("--checkpoint", checkpoint, "--fov", 104, *SMALL_GRID)
    assert predict(folder, "-o", tmp_path / "together", "--batch-size", 3, *options) == 0
    assert predict(folder, "-o", tmp_path / "alone", "--batch-size", 1, *options) == 0
    for number in range(3):
        one, other = (np.load(tmp_path / where / str(number) / "depth.npy") for where in ("together", "alone"))
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_pictures_of_one_name_are_kept_apart(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "a.jpg"):
        Image.fromarray(street()).save(folder / name)
    out = tmp_path / "out"
    assert predict(folder, "-o", out, "--checkpoint", checkpoint, "--fov", 104, "--no-depth", *SMALL_GRID) == 0
    assert {path.name for path in out.iterdir()} == {"a_png", "a_jpg", "predictions.json"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--no-depth", "--no-occupancy"), "nothing to do"),
        (("--no-depth", "--full-size"), "contradicts"),
        (("--focal", 300, "--fov", 90), "--focal and --fov"),
        (("--cell", 0.3), "whole number of cells"),
        (("--calibration", "nowhere.txt"), "nowhere.txt"),
        (("--training-camera", "mine"), "--training-camera"),
        (("--depth-model", "nowhere"), "--depth-model"),
        (("--depth-model", "simulated"), "--depth-model"),
        (("--run", "a"), "--checkpoint and --run"),
    ],
)
def test_a_wrong_call_is_one_sentence_before_anything_is_written(
    checkpoint: Path,
    picture: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[Any, ...],
    told: str,
) -> None:
    assert predict(picture, "-o", tmp_path / "out", "--checkpoint", checkpoint, *options) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_checkpoint_or_workspace_the_way_out_is_told(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert predict(picture, "-o", tmp_path / "out") == 2
    assert "--checkpoint" in capsys.readouterr().err
    assert predict(tmp_path / "none.png", "-o", tmp_path / "out") == 2
    assert "none.png" in capsys.readouterr().err


def test_a_branch_without_a_prior_is_used_as_it_is(picture: Path, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", "model.depth_branch.kind=depth")
    out = tmp_path / "out"
    assert predict(picture, "-o", out, "--checkpoint", checkpoint, "--fov", 104, "--no-occupancy") == 0
    assert record(out / "street")["depth"]["by"] == "predicted"


@pytest.mark.gpu
def test_a_gpu_says_what_the_cpu_says(picture: Path, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", "training.dtype=float32")
    options = ("--checkpoint", checkpoint, "--fov", 104, *SMALL_GRID)
    for device in ("cpu", "cuda"):
        assert predict(picture, "-o", tmp_path / device, "--device", device, *options) == 0
    one, other = (np.load(tmp_path / device / "street" / "occupancy.npz")["density"] for device in ("cpu", "cuda"))
    np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-4)
    one, other = (np.load(tmp_path / device / "street" / "depth.npy") for device in ("cpu", "cuda"))
    np.testing.assert_allclose(one, other, rtol=1e-2)
