from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vipocc import config as configuration
from vipocc.data_manifests.ground_truth.published import PublishedFiles
from vipocc.data_manifests.manifest import CameraTable, FrameKey, Manifest, SequenceTable
from vipocc.errors import DataError, MissingInputError, StoreError
from vipocc.evaluation.inputs import FrameSource, select_keys, untrained_model
from vipocc.evaluation.metrics import OBJECT, OURS, SCENE
from vipocc.evaluation.occupancy import (
    SliceTruth,
    evaluate_occupancy,
    lidar_truth,
    predict_density,
    published_truth,
)
from vipocc.evaluation.predictors.network import NetworkOccupancy
from vipocc.evaluation.protocols import PUBLISHED_OCCUPANCY, slice_protocol
from vipocc.evaluation.report import Report
from vipocc.evaluation.stream import judged_reference, stream, stream_reference
from vipocc.geometry.cameras import Pinhole

SIZE = (64, 96)
FRAMES = 5


class Rows:
    """A store in memory: {(group, row): {array: values}}."""

    def __init__(self, held: dict[tuple[str, int], dict[str, NDArray[Any]]]) -> None:
        self.held = held

    def has(self, group: str) -> bool:
        return any(name == group for name, _ in self.held)

    def rows(self, group: str) -> NDArray[np.bool_]:
        return np.array([(group, row) in self.held for row in range(FRAMES)])

    def read(self, group: str, row: int, array: str | None = None) -> NDArray[Any]:
        return self.held[group, row][array or next(iter(self.held[group, row]))]


class Wall:
    """A stand-in network: occupied from `depth` metres on in the camera's own frame."""

    def __init__(self, depth: float, broken: bool = False) -> None:
        self.depth, self.broken = depth, broken

    def encode_keys(self, images: Tensor, intrinsics_ndc: Tensor, maps: object) -> Tensor:
        assert images.min() >= 0
        assert images.max() <= 1
        return images

    def density(self, features: Tensor, points: Tensor, intrinsics_ndc: Tensor) -> Tensor:
        assert points.shape == (len(features), 12_800, 3)
        sigma = (points[..., 2] > self.depth).float()
        return sigma / 0 if self.broken else sigma


def walls(depth: float) -> NetworkOccupancy:
    return NetworkOccupancy("wall", "measured", Wall(depth))  # type: ignore[arg-type]


def manifest() -> Manifest:
    camera = CameraTable(
        Pinhole(40.0, 42.0, 47.5, 31.5, SIZE[1], SIZE[0]),
        pa.array([f"{n}.png" for n in range(FRAMES)]),
        np.full(FRAMES, 100),
        np.tile(np.eye(4), (FRAMES, 1, 1)),
        np.full(FRAMES, 1 << 6, dtype=np.uint16),
    )
    table = SequenceTable(
        np.arange(FRAMES) * 2 + 10,
        np.full(FRAMES, np.nan),
        np.tile(np.eye(4), (FRAMES, 1, 1)),
        pa.array([None] * FRAMES, pa.string()),
        {"image_00": camera, "image_01": camera},
    )
    return Manifest("synthetic", Path("world"), {"drive": table})


@pytest.fixture(scope="module")
def config() -> Any:
    return configuration.load("demo", overrides=[f"data.image_size=[{SIZE[0]},{SIZE[1]}]", "evaluation.batch_size=2"])


def source(config: Any, missing: tuple[int, ...] = ()) -> FrameSource:
    rng = np.random.default_rng(0)
    held = {
        ("drive/image_00", row): {"rgb": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)}
        for row in range(FRAMES)
        if row not in missing
    }
    return FrameSource(manifest(), Rows(held), config)


def truth_of(key: FrameKey) -> SliceTruth | str:
    if key.row == 3:
        return "no LiDAR ground truth"
    z = np.linspace(20, 4, 160)[:, None].repeat(80, 1)
    return SliceTruth(z > 10, (z < 9) & (key.row != 4), no_objects="no boxes")


def test_occupancy_counts_uses_and_skips(config: Any) -> None:
    keys = select_keys(manifest(), "test", None)
    assert [key.row for key in keys] == list(range(FRAMES))
    assert {key.camera for key in keys} == {"image_00"}
    kept = []
    report = evaluate_occupancy(
        [walls(10.0), NetworkOccupancy("broken", "untrained", Wall(5.0, broken=True))],  # type: ignore[arg-type]
        source(config, missing=(1,)),
        keys,
        truth_of,
        slice_protocol(),
        split="test",
        device=torch.device("cpu"),
        keep=lambda frame, image, densities, truth: kept.append((frame.frame_id, image.shape, list(densities))),
    )
    assert [frame.frame_id for frame in report.used] == [10, 14]
    assert {(one.frame.row, one.reason) for one in report.skipped} == {
        (1, "image not prepared"),
        (3, "no LiDAR ground truth"),
        (4, "no visible cell"),
    }
    wall = report.row("wall").metrics
    assert wall["o_acc"].mean > 0.97
    assert wall["o_acc"].frames == 2
    assert wall["average_precision"].mean > 0.95
    assert not set(OBJECT) & wall.keys()
    assert any("Object metrics are left out" in note and "2 frames: no boxes" in note for note in report.notes)
    assert report.row("broken").note == "2 frames: prediction not finite"
    assert report.row("broken").metrics["o_acc"].frames == 0
    assert report.row("everything free").metrics["ie_rec"].mean == 1.0
    assert report.row("everything occupied").metrics["ie_rec"].mean == 0.0
    for name in ("everything free", "everything occupied"):
        assert report.row(name).metrics["balanced_accuracy"].mean == 0.5
    assert report.row("ViPOcc").metrics["ie_acc"].mean == 0.71
    assert report.metrics == (*SCENE, *OURS)
    assert kept == [(10, (*SIZE, 3), ["wall", "broken"]), (14, (*SIZE, 3), ["wall", "broken"])]


def test_object_metrics_of_a_store_and_what_is_said_of_them(config: Any) -> None:
    """Frame 0 has two objects, 1 none, of frame 2 they are unknown."""
    z = np.linspace(20, 4, 160)[:, None].repeat(80, 1)
    objects = np.zeros((3, 160, 80), np.uint8)
    objects[0, 100:110, 20:30], objects[0, 60:64, 70:80] = 1, 2
    objects[:, :20] = 255
    held: dict[tuple[str, int], dict[str, NDArray[Any]]] = {
        ("slice-300/drive", row): {
            "occupied": (z > 10).astype(np.uint8),
            "visible": (z < 9).astype(np.uint8),
            "object": objects[row],
            "objects_known": np.uint8(row != 2),  # type: ignore[dict-item]
        }
        for row in range(3)
    }
    read = lidar_truth(Rows(held), slice_protocol())
    around = read(FrameKey("drive", "image_00", 0))
    assert isinstance(around, SliceTruth)
    assert around.objects is not None
    expected = np.zeros((160, 80), np.bool_)
    expected[80:129, 15:34] = True
    expected[40:83, 65:80] = True
    np.testing.assert_array_equal(around.objects, expected)

    def report(rows: list[int]) -> Report:
        return evaluate_occupancy(
            [walls(10.0)],
            source(config),
            [FrameKey("drive", "image_00", row) for row in rows],
            read,
            slice_protocol(),
            split="test",
            device=torch.device("cpu"),
        )

    whole = report([0, 1, 2])
    assert whole.metrics == (*SCENE, *OBJECT, *OURS)
    assert whole.row("wall").metrics["object_o_acc"].frames == 1
    assert whole.row("wall").metrics["object_o_acc"].mean > 0.95
    assert (
        "Object metrics are means over the 1 frames with an object on the slice; 1 have none, of others objects are "
        "unknown (1 frames: drive had no 3D boxes when it was prepared)."
    ) in whole.notes
    assert report([0]).truth_digest != report([1]).truth_digest
    unknown = report([2])
    assert not set(OBJECT) & set(unknown.metrics)
    assert "no 3D boxes" in unknown.markdown()
    assert "object" not in unknown.markdown().split("|")[2]


def test_published_files_as_truth(config: Any, tmp_path: Path) -> None:
    """Frame 10 has all maps, 12 no object map, 14 nothing; object ids are the sorted values without first and last."""
    z = np.linspace(50, 4, 460)[:, None].repeat(80, 1)
    objects = np.zeros((460, 80), np.uint8)
    objects[:320], objects[400:410, 20:30], objects[420:424, 60:70] = 255, 3, 9
    for folder in ("GT_Occ", "Object_Label"):
        (tmp_path / folder).mkdir()
    for frame in (10, 12):
        np.save(tmp_path / f"GT_Occ/drive_{frame:010d}_occgt.npy", z > 10)
        np.save(tmp_path / f"GT_Occ/drive_{frame:010d}_visgt.npy", z < 9)
    assert cv2.imwrite(str(tmp_path / "Object_Label/drive_0000000010_occgt_anno.png"), objects)
    read = published_truth(manifest(), PublishedFiles(tmp_path))
    first = read(FrameKey("drive", "image_00", 0))
    assert isinstance(first, SliceTruth)
    assert first.objects is not None
    expected = np.zeros((160, 80), np.bool_)
    expected[80:129, 15:34] = True
    expected[100:143, 55:74] = True
    np.testing.assert_array_equal(first.objects, expected)
    report = evaluate_occupancy(
        [walls(10.0)],
        source(config),
        [FrameKey("drive", "image_00", row) for row in range(3)],
        read,
        PUBLISHED_OCCUPANCY,
        split="test",
        device=torch.device("cpu"),
    )
    assert report.protocol["name"] == "slice-300-published"
    assert report.protocol["digest"] == PUBLISHED_OCCUPANCY.digest
    assert len(report.truth_digest) == 16
    assert [(one.frame.frame_id, one.reason) for one in report.skipped] == [(14, "no published ground truth")]
    assert report.row("wall").metrics["object_o_acc"].frames == 1
    assert any("there is no Object_Label file" in note for note in report.notes)
    np.save(tmp_path / "GT_Occ/drive_0000000014_visgt.npy", z < 9)
    with pytest.raises(DataError, match="map of the published ground truth is missing"):
        read(FrameKey("drive", "image_00", 2))


def test_a_real_network_fits_the_slice(config: Any) -> None:
    model = untrained_model(config, torch.device("cpu"))
    again = untrained_model(config, torch.device("cpu"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    (some,) = stream(source(config), select_keys(manifest(), "test", 2), 2, torch.device("cpu"))
    density = predict_density(model, some.images, some.intrinsics_ndc)
    assert density.shape == (2, 160, 80)
    assert (density >= 0).all()
    one = predict_density(model, some.images[1:], some.intrinsics_ndc[1:])
    np.testing.assert_allclose(one[0], density[1], rtol=1e-4, atol=1e-5)


def test_an_evaluation_is_that_of_a_plain_loop_bit_for_bit(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained_model(config, torch.device("cpu"))

    def evaluate() -> dict[str, Any]:
        return evaluate_occupancy(
            [NetworkOccupancy("network", "untrained", model)],
            source(config),
            select_keys(manifest(), "test", None),
            truth_of,
            slice_protocol(),
            split="test",
            device=torch.device("cpu"),
        ).as_dict()

    fast = evaluate()
    monkeypatch.setattr("vipocc.evaluation.occupancy.evaluate.stream", stream_reference)
    monkeypatch.setattr("vipocc.evaluation.occupancy.evaluate.judged", judged_reference)
    assert evaluate() == fast


def test_missing_frames_and_other_sizes_are_refused(config: Any) -> None:
    with pytest.raises(MissingInputError, match="vipocc data prepare"):
        source(config, missing=tuple(range(FRAMES))).split(select_keys(manifest(), "test", None))
    with pytest.raises(DataError, match="no key frame"):
        select_keys(manifest(), "val", None)
    other = FrameSource(manifest(), Rows({("drive/image_00", 0): {"rgb": np.zeros((32, 32, 3), np.uint8)}}), config)
    with pytest.raises(StoreError, match="32x32, not 64x96"):
        other.image(FrameKey("drive", "image_00", 0))
    assert [key.row for key in select_keys(manifest(), "test", 3)] == [0, 2, 4]
