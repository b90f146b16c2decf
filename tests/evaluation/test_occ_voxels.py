"""The protocol `voxel` on KITTI-360's real calibration, with labels that the test writes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vipocc import config as configuration
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.voxels import SHAPE, VoxelFiles, write_voxels
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.errors import DataError, UsageError
from vipocc.evaluation.inputs import FrameSource
from vipocc.evaluation.occupancy import SliceTruth, evaluate_occupancy
from vipocc.evaluation.occupancy.run import run_occupancy
from vipocc.evaluation.occupancy.voxels import (
    TEST_DRIVE,
    Voxels,
    in_image,
    labelled_keys,
    refuse_alone,
    voxel_centres,
    why_refused,
)
from vipocc.evaluation.predictors.constant import ConstantOccupancy
from vipocc.evaluation.predictors.interface import Batch
from vipocc.evaluation.protocols import VOXEL
from vipocc.geometry.cameras import Pinhole
from vipocc.model.network import ViPOcc
from vipocc.workspace import Workspace

DRIVE = "2013_05_28_drive_0000_sync"
SIZE = (64, 96)


class Images:
    """A store of one grey image for every row."""

    def has(self, group: str) -> bool:
        return True

    def rows(self, group: str) -> np.ndarray:
        return np.ones(100, np.bool_)

    def read(self, group: str, row: int, array: str | None = None) -> np.ndarray:
        return np.full((*SIZE, 3), 90, np.uint8)


class Dense(ConstantOccupancy):
    """A density that is told cell by cell."""

    def __init__(self, name: str, values: np.ndarray) -> None:
        super().__init__(name, 0)
        self.kind, self.unit, self.values = "measured", "density", values  # type: ignore[assignment]

    def occupancy(self, batch: Batch, points: Tensor) -> Tensor:
        assert points.shape == (len(self.values), 3)
        return torch.from_numpy(self.values).float().expand(len(batch.keys), -1)


@pytest.fixture(scope="module")
def manifest(sample_data: Path) -> Manifest:
    root = sample_data / "KITTI-360"
    return Manifest("kitti-360", root, adapter("kitti-360").index(root))


@pytest.fixture(scope="module")
def voxels(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Voxels:
    """A wall 10 m ahead, 2 m high and wide, free space before it, nothing known elsewhere."""
    folder = tmp_path_factory.mktemp("voxels")
    raw, invalid = np.zeros(SHAPE, np.uint16), np.ones(SHAPE, np.uint8)
    invalid[20:80, 123:133, 5:15] = 0
    raw[50:52, 123:133, 4:15] = 50
    raw[20:80, 123:133, 4] = 40
    write_voxels(folder, DRIVE, 5, raw, invalid)
    return Voxels(manifest, [FrameKey(DRIVE, "image_00", 5)], VoxelFiles(folder), VOXEL, torch.device("cpu"))


def test_the_real_calibration_sees_the_counted_voxels(manifest: Manifest) -> None:
    """comparison_methods.md 6.2: 1,598,151 of 2,097,152 centres show in the image."""
    # By calib_cam_to_velo alone, as SSCBench has it.
    text = (manifest.root / "calibration/calib_cam_to_velo.txt").read_text().split()
    lidar_from_camera = np.eye(4)
    lidar_from_camera[:3] = np.array(text, np.float64).reshape(3, 4)
    seen = (voxel_centres(VOXEL) - lidar_from_camera[:3, 3]) @ lidar_from_camera[:3, :3]
    camera = manifest.camera_model(DRIVE, "image_00")
    assert isinstance(camera, Pinhole)
    assert int(in_image(seen, camera).sum()) == 1_598_151


def test_cells_stand_where_the_rectified_camera_sees_them(voxels: Voxels) -> None:
    points = voxels.cells.points
    # Our images are rectified, which turns the camera by a fraction of a degree.
    assert len(points) == pytest.approx(1_598_151, rel=5e-3)
    assert (points[:, 2] > 0).all()
    assert sum(int(ring.sum()) for ring in voxels.cells.rings) == len(points)


def test_a_wall_of_voxels(voxels: Voxels, manifest: Manifest) -> None:
    key = FrameKey(DRIVE, "image_00", 5)
    truth = voxels.truth(key)
    assert isinstance(truth, SliceTruth)
    assert truth.judged is not None
    x = voxel_centres(VOXEL).reshape(*SHAPE, 3)[..., 0].reshape(-1)[voxels._inside]
    behind = truth.judged & ~truth.occupied & (x > 10.6)
    before = truth.judged & ~truth.occupied & (x < 9.9)
    assert behind.sum() > 100
    assert before.sum() > 500
    assert truth.visible[before].mean() > 0.99
    assert not truth.visible[behind & (x < 12)].any()
    # The wall's face is seen, its second layer is not.
    wall = truth.judged & truth.occupied & (x > 9.9) & (x < 10.5)
    assert truth.visible[wall & (x < 10.2)].mean() > 0.8
    assert truth.visible[wall & (x > 10.2)].mean() < 0.3

    config = configuration.load("demo", overrides=[f"data.image_size=[{SIZE[0]},{SIZE[1]}]"])
    solid = truth.occupied
    report = evaluate_occupancy(
        [
            # 1 - exp(-0.2 d) passes a half at d = 3.466, where a raw density would have at 0.5.
            Dense("right", np.where(solid, 3.5, 3.4)),
            Dense("thin", np.where(solid, 3.4, 0.0)),
            Dense("half", np.where(solid & (x > 10.2), 9.0, 0.0)),
        ],
        FrameSource(manifest, Images(), config),
        [key, FrameKey(DRIVE, "image_00", 10)],
        voxels.truth,
        VOXEL,
        split="test",
        device=torch.device("cpu"),
        cells=voxels.cells,
    )
    assert [(one.frame.row, one.reason) for one in report.skipped] == [(10, "no voxel labels")]
    right = report.row("right").metrics
    assert {right[name].mean for name in ("iou", "precision", "recall", "o_acc", "ie_acc", "ie_rec")} == {1.0}
    assert report.row("thin").metrics["iou"].mean == 0.0
    assert report.row("thin").metrics["average_precision"].mean == 1.0
    found = int((truth.judged & solid & (x > 10.2)).sum())
    total = int((truth.judged & solid).sum())
    assert report.row("half").metrics["iou"].mean == pytest.approx(found / total)
    assert report.row("half").metrics["precision"].mean == 1.0
    by_density = {row.name: row for row in report.breakdowns["Density > 0.5 per metre"]}
    assert by_density["thin"].metrics["iou"].mean == 1.0
    assert by_density["right"].metrics["recall"].mean == 1.0
    assert by_density["right"].metrics["precision"].mean < 1
    pooled = {row.name: row for row in report.breakdowns["Pooled over frames"]}
    assert pooled["half"].metrics["iou"].mean == pytest.approx(found / total)
    free = report.row("everything free").metrics
    assert free["iou"].mean == 0.0
    assert free["ie_rec"].mean == 1.0
    assert report.protocol["origin"] == [0.0, -25.6, -2.0]


def test_the_test_drive_is_refused_for_models_of_the_seg_split(voxels: Voxels, manifest: Manifest) -> None:
    def config(split: str | None) -> Any:
        return SimpleNamespace(data=SimpleNamespace(split=split))

    reason = why_refused(manifest, config(None))
    assert "68 %" in reason
    assert why_refused(manifest, config("seg")) == reason
    # Other lists, which hold no frame of that drive, may be scored on it.
    assert why_refused(manifest, config("lists")) == ""
    test = FrameKey(TEST_DRIVE, "image_00", 0)
    with pytest.raises(UsageError, match=r"scores on drive 0009 are refused.*68 %"):
        refuse_alone([test], reason)
    refuse_alone([test, FrameKey(DRIVE, "image_00", 5)], reason)
    refuse_alone([test], "")
    try:
        voxels.refuse(reason)
        assert voxels.truth(test) == reason
    finally:
        voxels.refuse("")
    assert voxels.truth(test) == "no voxel labels"


def test_only_labelled_rows_are_judged() -> None:
    keys = [FrameKey(DRIVE, "image_00", row) for row in range(3, 12)]
    assert [key.row for key in labelled_keys(keys)] == [5, 10]
    with pytest.raises(DataError, match="every 5th posed frame"):
        labelled_keys(keys[3:4])


@pytest.mark.slow
def test_voxels_from_a_checkpoint_to_the_report(sample_data: Path, tmp_path: Path) -> None:
    """Frame 701 of drive 0000 is row 610, a labelled one; the network never learnt anything."""
    lists, labels = tmp_path / "lists", tmp_path / "labels"
    lists.mkdir()
    (lists / "test_files.txt").write_text(f"{DRIVE} {700:010d} l\n{DRIVE} {701:010d} l\n")
    raw, invalid = np.zeros(SHAPE, np.uint16), np.zeros(SHAPE, np.uint8)
    raw[..., :3], raw[60:, 140:, 3:20] = 40, 50
    invalid[120:] = 1
    write_voxels(labels, DRIVE, 610, raw, invalid)
    workspace = Workspace.create(tmp_path / "ws", "kitti-360", sample_data / "KITTI-360")
    overrides = (f"data.split={lists}", "data.image_size=[64,96]", "data.fisheye=false", "evaluation.untrained=false")
    config = configuration.load("demo", overrides=overrides)
    checkpoint = tmp_path / "random"
    ViPOcc(config.model, config.data.convention).save_pretrained(checkpoint, configuration.as_dict(config))
    report, folder = run_occupancy(
        workspace, config, say=lambda text: None, protocol="voxel", truth_folder=labels, checkpoint=checkpoint
    )
    assert [frame.frame_id for frame in report.used] == [701]
    assert report.skipped == []
    row = report.row("trained").metrics
    assert row["iou"].frames == 1
    assert 0 <= row["iou"].mean <= row["recall"].mean <= 1
    full = report.row("everything occupied").metrics
    assert full["iou"].mean == full["precision"].mean
    text = (folder / "table.md").read_text()
    for part in ("Density > 0.5 per metre", "Pooled over frames", "0-12.8 m: trained", "25.6-51.2 m: trained"):
        assert part in text
