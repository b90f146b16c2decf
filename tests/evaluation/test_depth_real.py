"""Real samples of KITTI Raw and DDAD through their protocols, by the commands that a user types."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from vipocc import cli
from vipocc import config as configuration
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.depth_raster import sparse_depth_reference
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.data_manifests.views import prepared_intrinsics
from vipocc.evaluation.depth import (
    Contender,
    ViewPriors,
    ViewSource,
    evaluate_depth,
    rows_of_view,
    share_of_view,
    sweep_truth,
)
from vipocc.evaluation.metrics import depth_metrics, nearest_resize
from vipocc.evaluation.predictors.interface import Batch
from vipocc.evaluation.predictors.network import NetworkDepth
from vipocc.evaluation.protocols import DDAD_DEPTH, EIGEN_DEPTH
from vipocc.evaluation.protocols.depth import KITTI_360_VIEW
from vipocc.evaluation.stream import stream_reference
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.poses import relative
from vipocc.model.network import ViPOcc

RAW, SCENE, FRONT = "2011_09_26_drive_0002_sync", "000150", "CAMERA_01"
SIZE = (64, 160)
TINY = [
    f"data.image_size=[{SIZE[0]},{SIZE[1]}]",
    "model.encoder={name: resnet18, width: 0.125, pretrained: none}",
    "model.decoder={widths: [8, 8, 16, 16, 32], channels: 16}",
    "model.field.hidden=16",
    "model.depth_branch.encoder={name: resnet18, width: 0.125, pretrained: none}",
    "model.depth_branch.widths=[8, 8, 16, 16, 32]",
    "model.depth_branch.channels=8",
    "model.renderer.samples=16",
    "evaluation.resamples=50",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network as if trained in a KITTI-360 workspace, with a split that only that has."""
    config = configuration.load("vipocc", overrides=[*TINY, "data.split=seg", "data.sweeps=30"])
    folder = tmp_path_factory.mktemp("trained") / "step_9"
    torch.manual_seed(0)
    ViPOcc(config.model, config.data.convention).save_pretrained(folder, configuration.as_dict(config))
    return folder


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.run(["eval", "depth", "--device", "cpu", "--json", *arguments]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def index(name: str, root: Path) -> Manifest:
    return Manifest(name, root, adapter(name).index(root))


def test_eigen_on_the_known_frame(
    sample_data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("train", "val"):
        (lists / f"{name}_files.txt").write_text("")
    frames = [f"2011_09_26/{RAW} {frame:010d} l" for frame in (0, 1, 3)]
    (lists / "test_files.txt").write_text("\n".join(frames))
    here = ["-C", str(tmp_path / "w")]
    root = sample_data / "KITTI-raw"
    assert cli.run(["init", "--dataset", "kitti-raw", "--root", str(root), "-o", f"data.split={lists}", *here]) == 0
    capsys.readouterr()
    report = evaluated(capsys, "--checkpoint", str(checkpoint), "--scaling", "all", *here)
    assert report["protocol"]["name"] == "eigen"
    assert report["protocol"]["digest"] == EIGEN_DEPTH.digest
    assert report["frames"]["used"] == 2
    assert [(one["frame_id"], one["reason"]) for one in report["frames"]["skipped"]] == [(1, "no LiDAR sweep")]
    rows = {row["name"]: row for row in report["rows"]}
    for name in ("rendered", "rendered, median-scaled", "rendered, least-squares"):
        assert rows[name]["per_frame"][0]["frame_id"] == 0
        assert rows[name]["per_frame"][0]["pixels"] == 17_197
    assert rows["ViPOcc"]["metrics"]["abs_rel"]["mean"] == 0.096  # Table 3
    assert any("branch (no pseudo-depth)" in note for note in report["notes"])


def test_eigen_truth_is_the_raster_of_the_development_kit(sample_data: Path) -> None:
    """The whole chain again, from the calibration's text: 19,137 valid pixels, 17,197 inside the Garg crop."""
    root = sample_data / "KITTI-raw"
    manifest = index("kitti-raw", root)
    found = sweep_truth(manifest, EIGEN_DEPTH)(FrameKey(RAW, "image_02", 0))
    assert isinstance(found, np.ndarray)

    def matrix(file: str, key: str) -> np.ndarray:
        lines = dict(
            line.split(": ", 1) for line in (root / "2011_09_26" / file).read_text().splitlines() if ": " in line
        )
        return np.array(lines[key].split(), np.float64)

    velo = np.eye(4)
    velo[:3, :3] = matrix("calib_velo_to_cam.txt", "R").reshape(3, 3)
    velo[:3, 3] = matrix("calib_velo_to_cam.txt", "T")
    turn = np.eye(4)
    turn[:3, :3] = matrix("calib_cam_to_cam.txt", "R_rect_00").reshape(3, 3)
    projection = matrix("calib_cam_to_cam.txt", "P_rect_02").reshape(3, 4) @ turn @ velo
    points = np.fromfile(manifest.lidar_path(RAW, 0), np.float32).reshape(-1, 4)  # type: ignore[arg-type]
    points = points[points[:, 0] >= 0]
    points[:, 3] = 1
    u, v, z = projection @ points.T.astype(np.float64)
    columns, rows = np.round(u / z).astype(int) - 1, np.round(v / z).astype(int) - 1
    inside = (columns >= 0) & (rows >= 0) & (columns < 1242) & (rows < 375)
    depth = np.zeros((375, 1242))
    seen: dict[tuple[int, int], list[float]] = {}
    for row, column, value in zip(rows[inside], columns[inside], z[inside], strict=True):
        depth[row, column] = value
        seen.setdefault((row, column), []).append(value)
    for (row, column), values in seen.items():
        if len(values) > 1:
            depth[row, column] = min(values)
    depth[depth < 0] = 0
    assert np.count_nonzero(depth) == 19_137
    crop = np.zeros(depth.shape, bool)
    crop[int(0.40810811 * 375) : int(0.99189189 * 375), int(0.03594771 * 1242) : int(0.96405229 * 1242)] = True
    crop &= (depth > 1e-3) & (depth < 80)
    assert np.count_nonzero(crop) == np.isfinite(found).sum() == 17_197
    np.testing.assert_array_equal(np.isfinite(found), crop)
    np.testing.assert_allclose(found[crop], depth[crop], rtol=1e-6)


def test_kitti_360_as_published(
    sample_data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drive 0000 frame 250, the only one of its stereo frames with a sweep; frame 700 has none and is told."""
    drive, root, lists = "2013_05_28_drive_0000_sync", sample_data / "KITTI-360", tmp_path / "lists"
    lists.mkdir()
    for name in ("train", "val"):
        (lists / f"{name}_files.txt").write_text("")
    (lists / "test_files.txt").write_text(f"{drive} {250:010d} l\n{drive} {700:010d} l")
    here = ["-C", str(tmp_path / "w")]
    options = ["-o", f"data.split={lists}", "-o", "data.fisheye=false"]
    assert cli.run(["init", "--dataset", "kitti-360", "--root", str(root), *options, *here]) == 0
    capsys.readouterr()
    report = evaluated(capsys, "--checkpoint", str(checkpoint), *here)
    assert (report["protocol"]["name"], report["split"]) == ("lidar", "test")
    assert [(one["frame_id"], one["reason"]) for one in report["frames"]["skipped"]] == [(700, "no lidar depth")]
    manifest, data = index("kitti-360", root), configuration.load("vipocc", overrides=TINY).data
    row = manifest.row_of(drive, 250)
    points = adapter("kitti-360").read_scan(manifest.lidar_path(drive, row))  # type: ignore[arg-type]
    assert len(points) == 119_901
    camera = relative(manifest.world_from_camera(drive, "image_00")[row], manifest.world_from_lidar(drive)[row])
    truth = sparse_depth_reference(points, camera, prepared_intrinsics(manifest, drive, "image_00", data), SIZE)
    (measured,) = next(one for one in report["rows"] if one["name"] == "rendered")["per_frame"]
    assert measured["pixels"] == np.isfinite(truth).sum() > 2_000


def test_the_view_is_kitti_360s_own(sample_data: Path) -> None:
    manifest = index("kitti-360", sample_data / "KITTI-360")
    drive = manifest.sequences[0]
    model = manifest.camera_model(drive, "image_00")
    assert isinstance(model, Pinhole)
    assert rows_of_view(model, KITTI_360_VIEW) == (0, model.height)
    assert share_of_view(model, KITTI_360_VIEW) == pytest.approx(1, abs=1e-5)
    # Of a taller image with the same focal length, the same angles about its own principal point.
    taller = Pinhole(model.fx, model.fy, model.cx, model.cy + 300, model.width, model.height + 500)
    assert rows_of_view(taller, KITTI_360_VIEW) == (300, 300 + model.height)


def test_ddad_zero_shot(
    sample_data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ["-C", str(tmp_path / "w")]
    assert cli.run(["init", "--dataset", "ddad", "--root", str(sample_data / "DDAD"), *here]) == 0
    capsys.readouterr()
    report = evaluated(capsys, "--checkpoint", str(checkpoint), *here)
    assert report["split"] == "val"  # no test frame of DDAD has public truth
    assert (report["protocol"]["name"], report["protocol"]["scaling"]) == ("ddad", "median")
    assert report["frames"] == {**report["frames"], "used": 3, "skipped": []}
    assert any("DDAD's test split is not public" in note for note in report["notes"])
    assert any("78%" in note for note in report["notes"])
    assert not (tmp_path / "w" / "stores").exists()  # images are cut when they are read

    # Every number again, step by step.
    manifest = index("ddad", sample_data / "DDAD")
    key = FrameKey(SCENE, FRONT, 1)
    model = manifest.camera_model(SCENE, FRONT)
    assert isinstance(model, Pinhole)
    top, bottom = rows_of_view(model, KITTI_360_VIEW)
    assert (top, bottom) == (0, 1156)  # 60 rows of bonnet and road below go, above nothing is left to cut
    image = cv2.imread(str(manifest.image_path(*key)))[top:bottom, :, ::-1]
    image = cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA)
    network = ViPOcc.from_pretrained(checkpoint)
    config = configuration.load("vipocc", overrides=TINY)
    source = ViewSource(manifest, config, KITTI_360_VIEW, {})
    np.testing.assert_array_equal(source.image(key), image)
    intrinsics = source.intrinsics(key)
    assert intrinsics[1, 1] == pytest.approx(2 * model.fy / (bottom - top), rel=1e-6)
    assert intrinsics[1, 2] == pytest.approx(2 * (model.cy + 0.5 - top) / (bottom - top) - 1, abs=1e-6)
    (batch,) = stream_reference(source, [key], 1, torch.device("cpu"))
    predicted = NetworkDepth(network, "rendered").depth(batch)[0].numpy()
    points = adapter("ddad").read_scan(manifest.lidar_path(SCENE, 1))  # type: ignore[arg-type]
    camera = relative(manifest.world_from_camera(SCENE, FRONT)[1], manifest.world_from_lidar(SCENE)[1])
    x, y, z = (points.astype(np.float64) @ camera[:3, :3].T + camera[:3, 3]).T
    u, v = np.floor(model.fx * x / z + model.cx + 0.5), np.floor(model.fy * y / z + model.cy + 0.5)
    truth = np.full((model.height, model.width), np.inf)
    for row, column, value in zip(v, u, z, strict=True):
        if value > 0 and 0 <= row < model.height and 0 <= column < model.width:
            truth[int(row), int(column)] = min(truth[int(row), int(column)], value)
    mask = cv2.imread(str(sample_data / "DDAD/masks/01.png"), cv2.IMREAD_GRAYSCALE)
    truth[(mask == 0) | (truth >= 80)] = 0
    wanted = depth_metrics(predicted, truth[top:bottom].astype(np.float32), "median")
    row = next(one for one in report["rows"] if one["name"] == "rendered, median-scaled")
    assert row["per_frame"][1]["pixels"] == np.count_nonzero(truth[top:bottom])
    for name, value in wanted.items():
        assert row["per_frame"][1][name] == pytest.approx(value, rel=2e-4, abs=1e-6)


def test_a_damaged_image_or_sweep_costs_one_frame(sample_data: Path, tmp_path: Path) -> None:
    shutil.copytree(sample_data / "DDAD" / "ddad_train_val", tmp_path / "DDAD" / "ddad_train_val")
    manifest = index("ddad", tmp_path / "DDAD")
    image, sweep = manifest.image_path(SCENE, FRONT, 0), manifest.lidar_path(SCENE, 1)
    assert sweep is not None
    for path in (image, sweep):
        path.write_bytes(path.read_bytes()[:20_000])

    class Flat:
        name, kind, note = "flat", "baseline", ""

        def missing(self, key: FrameKey) -> None:
            return None

        def depth(self, batch: Batch) -> list[torch.Tensor]:
            return [torch.full(SIZE, 20.0) for _ in batch.keys]

    source = ViewSource(manifest, configuration.load("vipocc", overrides=TINY), KITTI_360_VIEW, {})
    report = evaluate_depth(
        [Contender(Flat())],  # type: ignore[arg-type]
        source,
        [FrameKey(SCENE, FRONT, row) for row in range(3)],
        source.readable(sweep_truth(manifest, DDAD_DEPTH)),
        DDAD_DEPTH,
        split="val",
        device=torch.device("cpu"),
    )
    assert [frame.row for frame in report.used] == [2]
    assert [one.frame.row for one in report.skipped] == [0, 1]
    assert "image" in report.skipped[0].reason
    assert "LiDAR scan" in report.skipped[1].reason


def test_priors_of_whole_images_on_the_rows_of_a_view(sample_data: Path) -> None:
    manifest = index("ddad", sample_data / "DDAD")
    key = FrameKey(SCENE, FRONT, 0)
    rows = np.repeat(np.arange(64.0), 160).reshape(64, 160)

    class Whole:
        def has(self, key: FrameKey) -> bool:
            return key.row == 0

        def read(self, key: FrameKey) -> np.ndarray:
            return rows

    view = ViewPriors(Whole(), manifest, KITTI_360_VIEW, SIZE)
    assert view.has(key)
    cut = view.read(key)
    assert cut.shape == SIZE
    # The stored row that shows the raw row in the middle of each row of the cut image.
    raw = (np.arange(64) + 0.5) * 1156 / 64
    np.testing.assert_array_equal(cut[:, 7], np.floor(raw * 64 / 1216))
    whole = nearest_resize(rows, (1216, 1936))[:1156]
    np.testing.assert_allclose(nearest_resize(cut, (1156, 1936)), whole, atol=1)
