"""What each protocol of occupancy measures, on made-up frames and on real sweeps of KITTI-360."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_slice import FRAMES, SIZE, manifest, source, truth_of, walls
from test_slice import config as config  # a fixture
from torch import Tensor

from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.boxes import ObjectBox
from vipocc.data_manifests.ground_truth.occupancy import (
    level_from_world,
    occupancy_ground_truth,
    occupancy_ground_truth_reference,
)
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.errors import DataError, UsageError
from vipocc.evaluation.metrics import OURS, object_cells, occupancy_metrics
from vipocc.evaluation.occupancy import SliceTruth, evaluate_occupancy, plane_cells, slice_points
from vipocc.evaluation.occupancy.boxed import BoxedCells
from vipocc.evaluation.occupancy.cells import layer_grids
from vipocc.evaluation.occupancy.volume import VolumeTruth
from vipocc.evaluation.predictors.constant import ConstantOccupancy
from vipocc.evaluation.predictors.interface import Batch, OccupancyPredictor
from vipocc.evaluation.protocols import (
    CUBOID,
    EXACT_CUBOID,
    EXACT_OCCUPANCY,
    PUBLISHED_OCCUPANCY,
    VOXEL,
    OccupancyProtocol,
    VoxelProtocol,
    occupancy_protocol,
    require_truth,
    slice_protocol,
)
from vipocc.evaluation.report import Report

CPU = torch.device("cpu")
KEYS = [FrameKey("drive", "image_00", row) for row in range(FRAMES)]


class Seeing(ConstantOccupancy):
    """Says that all is free, and that the surface is `metres` away."""

    def __init__(self, name: str, metres: float) -> None:
        super().__init__(name, 0)
        self.kind, self.metres = "measured", metres  # type: ignore[assignment]

    def depth(self, batch: Batch) -> Sequence[Tensor]:
        return [torch.full(SIZE, self.metres) for _ in batch.keys]


class Lacking(ConstantOccupancy):
    """Has no prediction of odd rows."""

    def __init__(self) -> None:
        super().__init__("lacking", 1)
        self.kind = "measured"
        self.asked: list[int] = []

    def missing(self, key: FrameKey) -> str | None:
        return "missing frame" if key.row % 2 else None

    def occupancy(self, batch: Batch, points: Tensor) -> Tensor:
        assert len(batch.images) == len(batch.intrinsics_ndc) == len(batch.frames)
        self.asked += [key.row for key in batch.keys]
        return super().occupancy(batch, points)


def report(config: object, predictors: list[OccupancyPredictor], protocol: OccupancyProtocol | VoxelProtocol) -> Report:
    return evaluate_occupancy(predictors, source(config), KEYS, truth_of, protocol, split="test", device=CPU)


def test_names_lead_to_protocols() -> None:
    names = (
        "slice-300",
        "slice-300-paper",
        "slice-300-published",
        "slice-20",
        "cuboid",
        "voxel",
        "exact",
        "exact-cuboid",
    )
    found = [occupancy_protocol(name, 24) for name in names]
    assert [one.name for one in found] == list(names)
    assert len({one.digest for one in found}) == len(names)
    assert found[2:] == [PUBLISHED_OCCUPANCY, slice_protocol(20), CUBOID, VOXEL, EXACT_OCCUPANCY, EXACT_CUBOID]
    with pytest.raises(UsageError, match="no occupancy protocol 'slices'"):
        occupancy_protocol("slices", 24)
    for dataset, one in (("kitti-360", EXACT_CUBOID), ("synthetic", VOXEL), ("kitti-raw", CUBOID)):
        with pytest.raises(UsageError):
            require_truth(dataset, one)
    require_truth("kitti-360", VOXEL)


def test_cells_of_the_cuboid() -> None:
    cells = plane_cells(CUBOID)
    assert cells.shape == (4, 160, 80)
    assert cells.points.shape == (4 * 160 * 80, 3)
    # The second layer is the released slice; layers are 25 cm apart, 5 degrees from the camera's own down.
    np.testing.assert_array_equal(cells.points.reshape(4, -1, 3)[1], slice_points())
    steps = np.diff(cells.points.reshape(4, -1, 3), axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=-1), 0.25, atol=1e-5)
    assert [grid.y_range for grid in layer_grids(CUBOID)] == [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]
    assert [grid.y_range for grid in layer_grids(slice_protocol())] == [(0.0, 0.75)]


def test_bts_joins_what_a_model_sees_itself(config: object) -> None:
    far, blind = Seeing("far-sighted", 1000.0), Seeing("blind", 0.1)
    found = report(config, [far, blind], slice_protocol(20))
    assert found.metrics == ("o_acc", "precision", "recall", "ie_acc", "ie_precision", "ie_rec", *OURS)
    # All cells lie before 1000 m: none is hidden, so none is occupied, and nothing is left for IE.
    seeing = found.row("far-sighted").metrics
    assert seeing["o_acc"].mean == 1.0
    assert seeing["ie_acc"].frames == 0
    assert "before its own depth" in found.row("far-sighted").note
    # A depth that no cell lies before leaves LiDAR's visibility alone, which constants have, too.
    for name in ("o_acc", "ie_acc", "ie_rec"):
        assert found.row("blind").metrics[name] == found.row("everything free").metrics[name]
    assert "LiDAR alone" in found.row("everything free").note
    # Nothing is cut off: what BTS's evaluator computes, written down once more.
    truth = truth_of(KEYS[0])
    assert isinstance(truth, SliceTruth)
    hidden = ~truth.visible
    occupied = truth.occupied & hidden
    free = found.row("everything occupied").metrics
    assert free["precision"].mean == pytest.approx(occupied.mean())
    assert free["recall"].mean == 1.0
    assert found.row("everything free").metrics["ie_precision"].mean == pytest.approx((~occupied)[hidden].mean())
    assert found.row("everything free").metrics["ie_acc"].mean == pytest.approx((~occupied)[hidden].mean())


def test_visibility_joins_at_the_surface(config: object) -> None:
    """A wall 10 m ahead: the cells nearer than it are visible, those behind it are not."""
    found = report(config, [Seeing("wall", 10.0)], slice_protocol(20))
    truth = truth_of(KEYS[0])
    assert isinstance(truth, SliceTruth)
    z = slice_points()[:, 2].reshape(160, 80)
    visible = truth.visible | (z < 10.0)
    occupied = truth.occupied & ~visible
    assert found.row("wall").metrics["o_acc"].mean == pytest.approx((~occupied).mean())
    assert found.row("wall").metrics["ie_acc"].mean == pytest.approx((~occupied)[~visible].mean())


def test_parts_of_a_report(config: object) -> None:
    found = report(config, [walls(10.0)], slice_protocol())
    assert list(found.breakdowns) == ["Opacity of a 0.1 m cell > 0.5", "Pooled over frames", "Rings of distance"]
    opacity = found.breakdowns["Opacity of a 0.1 m cell > 0.5"]
    assert [row.name for row in opacity] == ["wall"]
    # A density of 1/m is enough for the released threshold, and next to nothing over 0.1 m.
    assert opacity[0].metrics["ie_rec"].mean == 1.0
    assert opacity[0].metrics["balanced_accuracy"].mean == 0.5
    rings = {row.name: row for row in found.breakdowns["Rings of distance"]}
    assert list(rings)[:3] == ["4-8 m: wall", "4-8 m: everything free", "4-8 m: everything occupied"]
    # Nothing beyond 2 m behind what is visible is judged, which here ends at 9 m.
    assert rings["12-20 m: wall"].metrics["o_acc"].frames == 0
    assert rings["8-12 m: wall"].metrics["o_acc"].mean > 0.95
    assert 0 < rings["8-12 m: everything occupied"].metrics["o_acc"].mean < 1
    assert rings["4-8 m: everything free"].metrics["o_acc"].mean == 1.0
    pooled = {row.name: row for row in found.breakdowns["Pooled over frames"]}
    # Both frames have one truth, so that pooling and averaging agree.
    assert pooled["wall"].metrics["ie_acc"].mean == pytest.approx(found.row("wall").metrics["ie_acc"].mean)
    assert set(found.truth_frames) == set(found.used)


def test_predictions_that_lack_frames_are_counted(config: object) -> None:
    lacking = Lacking()
    found = report(config, [walls(10.0), lacking], slice_protocol())
    assert lacking.asked == [0, 2, 4]
    row = found.row("lacking")
    assert [(one.frame.row, one.reason) for one in row.skipped] == [(1, "missing frame")]
    assert row.note == "1 frame: missing frame"
    assert row.metrics["o_acc"].frames == 2
    assert found.row("wall").metrics["o_acc"].frames == 3
    everything = found.row("everything occupied")
    there = [values["o_acc"] for frame, values in everything.per_frame if frame.row != 1]
    assert row.metrics["o_acc"].mean == pytest.approx(np.mean(there))
    document = found.as_dict()
    assert document["rows"][1]["skipped"][0]["reason"] == "missing frame"


def test_what_cannot_be_evaluated_is_refused(config: object) -> None:
    class Wrong(ConstantOccupancy):
        def occupancy(self, batch: Batch, points: Tensor) -> Tensor:
            return super().occupancy(batch, points)[:, :5]

    with pytest.raises(UsageError, match=r"'wrong' answers with \[2, 5\] for 2 frames and 12,800 points"):
        report(config, [Wrong("wrong", 0)], slice_protocol())
    with pytest.raises(UsageError, match="two rows have one name"):
        report(config, [walls(1.0), walls(2.0)], slice_protocol())
    with pytest.raises(UsageError, match="give their cells"):
        report(config, [walls(1.0)], VOXEL)
    with pytest.raises(DataError, match="no frame of split test can be judged under exact: 5 nothing here"):
        evaluate_occupancy(
            [walls(1.0)], source(config), KEYS, lambda key: "nothing here", EXACT_OCCUPANCY, split="test", device=CPU
        )
    with pytest.raises(DataError, match=r"5 ground truth of another protocol: \[160, 80\] cells"):
        evaluate_occupancy(
            [Seeing("any", 9.0)], source(config), KEYS, lambda key: truth_of(KEYS[0]), CUBOID, split="test", device=CPU
        )


def test_moving_and_standing_objects_by_their_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moving car 10 m ahead, a standing person to its left, a car behind the camera, a house on top of all."""

    def box(instance: int, label: str, moving: bool, level: tuple[float, float, float], size: float) -> ObjectBox:
        pose = np.linalg.inv(level_from_world(np.eye(4)))
        centred = np.eye(4)
        centred[:3, 3] = level
        return ObjectBox(instance, label, moving, pose @ centred, np.full(3, size))

    boxes = [
        box(4, "car", True, (1.0, 0.4, 10.0), 2.0),
        box(9, "person", False, (-2.0, 0.4, 8.0), 0.6),
        box(5, "car", True, (0.0, 0.4, -10.0), 2.0),
        box(1, "building", False, (0.0, 0.4, 10.0), 30.0),
    ]
    known: dict[str, object] = {"drive": lambda frame: boxes if frame == 10 else []}
    fake = SimpleNamespace(boxes=lambda root, sequence: known.get(sequence))
    monkeypatch.setattr("vipocc.evaluation.occupancy.boxed.adapter", lambda dataset: fake)
    for protocol in (slice_protocol(), CUBOID):
        boxed = BoxedCells(manifest(), protocol)
        found = boxed(KEYS[0])
        assert found is not None
        x, z = np.meshgrid(np.linspace(-4, 4, 80), np.linspace(20, 4, 160))
        numbers = np.where((abs(x - 1) <= 1) & (abs(z - 10) <= 1), 5, 0)
        numbers[(abs(x + 2) <= 0.3) & (abs(z - 8) <= 0.3)] = 10
        expected = object_cells(numbers, [5, 10]), object_cells(numbers, [5])
        for mask, plane in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mask, np.broadcast_to(plane, protocol.shape))
        alone = boxed.moving(KEYS[0])
        assert alone is not None
        np.testing.assert_array_equal(alone, found[1])
        empty = boxed.moving(KEYS[1])
        assert empty is not None
        assert not empty.any()
    known.clear()
    assert BoxedCells(manifest(), CUBOID)(KEYS[0]) is None
    assert BoxedCells(manifest(), CUBOID).moving(KEYS[0]) is None


def test_moving_objects_have_a_table_of_their_own(config: object) -> None:
    def around(key: FrameKey) -> SliceTruth | str:
        truth = truth_of(key)
        if isinstance(truth, str):
            return truth
        objects = np.zeros((160, 80), np.bool_)
        objects[90:120, :40] = True
        moving = objects.copy()
        moving[:, 20:] = False
        return truth._replace(objects=objects, moving=moving)

    found = evaluate_occupancy([walls(10.0)], source(config), KEYS, around, slice_protocol(), split="test", device=CPU)
    rows = {row.name: row.metrics for row in found.breakdowns["Around moving and standing objects"]}
    assert next(iter(rows)) == "moving: wall"
    assert {name.partition(":")[0] for name in rows} == {"moving", "standing"}
    # Every column is the same in this truth, so both parts say what all objects do.
    for kind in ("moving", "standing"):
        assert rows[f"{kind}: wall"]["object_o_acc"].mean == found.row("wall").metrics["object_o_acc"].mean


@pytest.fixture(scope="module")
def kitti_360(sample_data: Path) -> Manifest:
    root = sample_data / "KITTI-360"
    return Manifest("kitti-360", root, adapter("kitti-360").index(root))


def test_the_cuboid_of_real_sweeps(kitti_360: Manifest) -> None:
    """Drive 0008, five sweeps from frame 3000 on: each layer is the slice's rule on the layer's own points."""
    drive = "2013_05_28_drive_0008_sync"
    row = kitti_360.row_of(drive, 3000)
    protocol = replace(CUBOID, sweeps=5)
    truth = VolumeTruth(kitti_360, protocol, CPU)(FrameKey(drive, "image_00", row))
    assert isinstance(truth, SliceTruth)
    assert truth.no_objects == f"{drive} has no 3D boxes"
    rows = range(row, row + 5)
    points = []
    for one in rows:
        path = kitti_360.lidar_path(drive, one)
        assert path is not None
        points.append(adapter("kitti-360").read_scan(path))
    level = level_from_world(kitti_360.world_from_camera(drive, "image_00")[row])
    transforms = level @ kitti_360.world_from_lidar(drive)[row : row + 5]
    twin = [occupancy_ground_truth_reference(points, transforms, grid) for grid in layer_grids(protocol)[1:3]]
    for layer, expected in zip((1, 2), twin, strict=True):
        np.testing.assert_array_equal(truth.occupied[layer], expected.occupied)
        np.testing.assert_array_equal(truth.visible[layer], expected.visible)
    # The released slice of the same sweeps: its points are those of three layers.
    flat = occupancy_ground_truth(points, transforms)
    assert (int(flat.occupied.sum()), int(flat.visible.sum())) == REAL_SLICE
    counts = [(int(o.sum()), int(v.sum())) for o, v in zip(truth.occupied, truth.visible, strict=True)]
    assert counts == REAL_CUBOID
    free = [
        occupancy_metrics(np.zeros((160, 80), np.bool_), o, v)["o_acc"]
        for o, v in zip(truth.occupied, truth.visible, strict=True)
    ]
    assert 0 < min(free) < max(free) < 1


def test_a_frame_with_one_real_sweep_has_no_ground_truth(kitti_360: Manifest) -> None:
    drive = "2013_05_28_drive_0000_sync"
    read = VolumeTruth(kitti_360, CUBOID, CPU)
    assert read(FrameKey(drive, "image_00", kitti_360.row_of(drive, 250))) == "too few LiDAR sweeps"
    assert read(FrameKey(drive, "image_00", kitti_360.row_of(drive, 700))) == "no LiDAR sweep of its own"


REAL_SLICE = (3098, 9698)
REAL_CUBOID = [(3067, 9723), (3025, 9778), (3000, 9800), (2907, 9876)]
"""Occupied and visible cells of each layer."""
