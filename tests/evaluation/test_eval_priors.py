from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from vipocc import cli
from vipocc import config as configuration
from vipocc.data_manifests.ground_truth.boxes import ObjectBox
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.data_manifests.synthetic.exact import ExactTruth
from vipocc.errors import DataError
from vipocc.evaluation.depth.score import counted
from vipocc.evaluation.metrics import depth_metrics
from vipocc.evaluation.priors import (
    BoxObjects,
    ExactObjects,
    Found,
    Objects,
    RowMedians,
    box_in_image,
    box_iou,
    class_figures,
    detection_metrics,
    judge,
    match,
    precision_recall_area,
    row_medians,
)
from vipocc.evaluation.priors.matching import Matches
from vipocc.evaluation.protocols import EXACT_DEPTH
from vipocc.stores import StoreReader
from vipocc.workspace import Workspace

WORLD = (
    "data.world={train_drives: 1, train_frames: 3, val_drives: 0, test_drives: 1, test_frames: 4, scale: 0.25, "
    "lidar_points: 640, shadows: false}"
)
OPTIONS = ("-o", WORLD, "-o", "data.fisheye=false", "-o", "evaluation.resamples=40")


# Matching and average precision.


def test_box_iou() -> None:
    a = np.array([[0, 0, 4, 4], [10, 10, 12, 12]])
    b = np.array([[2, 0, 6, 4], [0, 0, 4, 4], [11, 11, 11, 11]])
    np.testing.assert_allclose(box_iou(a, b), [[8 / 24, 1, 0], [0, 0, 0]])


def test_each_object_is_taken_once_by_the_surest() -> None:
    objects = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], float)
    boxes = np.array([[0, 0, 10, 9], [0, 0, 10, 10], [21, 0, 30, 10], [50, 50, 60, 60]], float)
    found = match(np.array([0.6, 0.9, 0.5, 0.8]), boxes, objects, np.array([True, True]))
    assert found.pairs == [(1, 0), (2, 1)]
    np.testing.assert_array_equal(found.scores, [0.9, 0.8, 0.6, 0.5])
    np.testing.assert_array_equal(found.correct, [True, False, False, True])
    assert found.objects == 2


def test_objects_too_small_to_ask_for_are_neither_missed_nor_found() -> None:
    objects = np.array([[0, 0, 10, 10], [20, 0, 22, 2]], float)
    found = match(np.array([0.9, 0.8]), objects, objects, np.array([True, False]))
    assert (found.objects, found.scores.tolist(), found.correct.tolist()) == (1, [0.9], [True])
    nothing = match(np.zeros(0), np.zeros((0, 4)), objects, np.array([True, True]))
    assert (nothing.objects, len(nothing.scores)) == (2, 0)
    alone = match(np.array([0.4]), objects[:1], np.zeros((0, 4)), np.zeros(0, bool))
    assert (alone.objects, alone.correct.tolist()) == (0, [False])


def test_average_precision_is_the_area_under_the_falling_precision() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    correct = np.array([True, False, True, True, False])
    # recall 1/4, 2/4, 3/4 at precisions 1, 3/4 (the best from there on), 3/4
    got = precision_recall_area(scores, correct, 4, np.ones(5))
    assert got == pytest.approx(0.25 * 1 + 0.25 * 0.75 + 0.25 * 0.75)
    shuffled = np.array([3, 0, 4, 1, 2])
    assert precision_recall_area(scores[shuffled], correct[shuffled], 4, np.ones(5)) == pytest.approx(got)
    # Frames that count twice are the same frames there twice.
    twice = precision_recall_area(np.tile(scores, 2), np.tile(correct, 2), 8, np.ones(10))
    assert precision_recall_area(scores, correct, 8, np.full(5, 2.0)) == pytest.approx(twice)
    assert precision_recall_area(np.ones(4), np.array([True, False, False, True]), 2, np.ones(4)) == pytest.approx(0.5)
    assert precision_recall_area(np.zeros(0), np.zeros(0, bool), 3, np.zeros(0)) == 0
    assert math.isnan(precision_recall_area(scores, correct, 0, np.ones(5)))


def test_average_precision_against_a_plain_twin() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, correct = rng.permutation(30) / 30.0, rng.random(30) < 0.5
        total = int(correct.sum()) + int(rng.integers(0, 9))
        ranked = correct[np.argsort(-scores)]
        curve = [(sum(ranked[: k + 1]) / total, sum(ranked[: k + 1]) / (k + 1)) for k in range(30)]
        wanted, before = 0.0, 0.0
        for recall, _precision in curve:
            wanted += (recall - before) * max(p for r, p in curve if r >= recall)
            before = recall
        assert precision_recall_area(scores, correct, total, np.ones(30)) == pytest.approx(wanted)


def test_detection_metrics_and_their_intervals() -> None:
    frames = [
        Matches(np.array([0.9, 0.4]), np.array([True, False]), 1, [(0, 0)]),
        Matches(np.array([0.8]), np.array([True]), 2, [(0, 1)]),
        Matches(np.zeros(0), np.zeros(0, bool), 0, []),
    ]
    found = detection_metrics(frames, [[0.8], [0.6], []], 100, 0.9)
    assert found["recall50"].mean == pytest.approx(2 / 3)
    assert found["ap50"].mean == pytest.approx(2 / 3)
    assert found["mask_iou"].mean == pytest.approx(0.7)
    assert [found[name].frames for name in ("ap50", "recall50", "mask_iou")] == [2, 2, 2]
    assert found["recall50"].low < 2 / 3 < found["recall50"].high


def test_classes_are_counted_and_judged_apart() -> None:
    index = np.zeros((8, 8), np.uint8)
    index[:4, :4], index[4:, 4:] = 1, 2
    found = Found(np.array([0, 2]), np.array([0.9, 0.8]), np.array([[0, 0, 4, 4], [4, 4, 8, 8]], float), index)
    figures = class_figures(found, 3)
    assert figures[0] == {"detections": 1, "empty": 0, "area_share": 0.25}
    assert figures[1] == {"detections": 0, "empty": 1, "area_share": 0}
    assert figures[3] == {"detections": 2, "empty": 0, "area_share": 0.5}
    masks = np.zeros((1, 8, 8), bool)
    masks[0, :4, :3] = True
    objects = Objects(np.array([0]), np.array([[0, 0, 3, 4]], float), np.array([True]), masks)
    matches, overlaps = judge(found, objects, 0)
    assert matches.correct.tolist() == [True]
    assert overlaps == [0.75]
    assert judge(found, objects, 2)[0].correct.tolist() == [False]
    none = class_figures(Found(np.zeros(0, int), np.zeros(0), np.zeros((0, 4)), np.zeros((8, 8), np.uint8)), 3)
    assert none[3] == {"detections": 0, "empty": 1, "area_share": 0}


# The guess by image rows.


def test_row_medians_are_lower_medians_of_training_truth() -> None:
    truths: dict[int, Any] = {
        0: np.array([[1, 3, 0], [np.nan, 90, 0], [7, 8, 9]], np.float32),
        1: np.array([[2, 4, 0], [0, np.inf, 0], [1, 0, 0]], np.float32),
        2: "no LiDAR sweep",
    }

    def truth(key: FrameKey) -> Any:
        if key.row == 3:
            raise DataError("a LiDAR scan is truncated")
        return truths[key.row]

    keys = [FrameKey("drive", "image_00", row) for row in range(4)]
    medians, frames = row_medians(truth, keys, EXACT_DEPTH)
    np.testing.assert_array_equal(medians, [2, 2, 7])  # the middle row has none and takes its upper neighbour's
    assert frames == 2
    guess = RowMedians(medians, frames)
    assert guess.missing(keys[0]) is None
    assert row_medians(truth, keys[2:], EXACT_DEPTH)[1] == 0
    assert row_medians(truth, [], EXACT_DEPTH)[1] == 0


# The command.


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    place = tmp_path_factory.mktemp("priors")
    here = ["-C", str(place)]
    assert cli.run(["init", "--dataset", "synthetic", "--preset", "demo", *OPTIONS, *here]) == 0
    for kind in ("depth", "sam"):
        assert cli.run(["priors", kind, "--split", "test", *here]) == 0
    return Workspace.open(place)


def test_eval_priors_on_the_synthetic_world(world: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["eval", "priors", "--json", "-C", str(world.path)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["kind"], report["protocol"]["name"], report["checkpoint"]) == ("priors", "exact", None)
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows)[:4] == ["prior", "prior, median-scaled", "prior, least-squares", "median of each row"]
    assert rows["prior"]["note"] == "simulated prior"
    assert "2 training frames" in rows["median of each row"]["note"]
    # The simulated prior is 1.6 times too far, so as it is it loses against the guess, and scaled it wins.
    error = {name: row["metrics"]["abs_rel"]["mean"] for name, row in rows.items()}
    assert error["prior, median-scaled"] < error["median of each row"] < error["prior"]
    assert "Pseudo depth (median scaling)" in rows

    manifest = Manifest.load(world.manifest)
    config, truth = configuration.load(world.preset), ExactTruth(manifest.root)
    depths, instances = StoreReader(world.store("depth")), StoreReader(world.store("instances"))
    keys = [key for key in manifest.keys("test") if key.camera == "image_00"]
    assert report["frames"]["used"] == len(keys) >= 2
    for at, key in enumerate(keys):
        group, frame = f"{key.sequence}/{key.camera}", int(manifest.frame_ids(key.sequence)[key.row])
        exact = truth.depth(key.sequence, key.camera, frame)
        wanted = depth_metrics(np.asarray(depths.read(group, key.row, "depth"), np.float32), exact, "median", 80.0)
        given = rows["prior, median-scaled"]["per_frame"][at]
        assert given["abs_rel"] == pytest.approx(wanted["abs_rel"], rel=1e-9)
        assert given["pixels"] == counted(exact, EXACT_DEPTH).sum()

    (title,) = (name for name in report["breakdowns"] if name.startswith("Instances by class"))
    by_class = {row["name"]: row["metrics"] for row in report["breakdowns"][title]}
    counts = [int(instances.read(f"{key.sequence}/{key.camera}", key.row, "count")) for key in keys]
    assert by_class["all classes"]["detections"]["mean"] == pytest.approx(np.mean(counts))
    judged = {
        row["name"]: row["metrics"]
        for row in report["breakdowns"]["Instances against the objects that the image shows"]
    }
    assert 0.3 < judged["car"]["ap50"]["mean"] <= 1
    assert judged["car"]["mask_iou"]["mean"] > 0.7
    assert judged["car"]["ap50"]["low"] <= judged["car"]["ap50"]["mean"] <= judged["car"]["ap50"]["high"]
    assert not {"road", "sky", "bus"} & judged.keys()
    objects = ExactObjects(manifest, config.priors.sam.classes, instances.attrs["labels"]).read(
        keys[0], tuple(config.data.image_size)
    )
    assert objects.counts.any()
    assert objects.boxes[:, 2:].max(0)[0] <= config.data.image_size[1]


def test_eval_priors_under_lidar_and_limits(world: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    here = ["--json", "-C", str(world.path)]
    assert cli.run(["eval", "priors", "--protocol", "lidar", "--no-auto", *here]) == 2
    assert "vipocc data prepare" in capsys.readouterr().err
    assert cli.run(["eval", "priors", "--protocol", "lidar", "--limit", "2", *here]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["frames"]["used"] == 2
    assert not any("objects that the image shows" in title for title in report["breakdowns"])
    (title,) = (name for name in report["breakdowns"] if "against 3D boxes" in name)
    judged = {row["name"]: row["metrics"] for row in report["breakdowns"][title]}
    assert 0 < judged["car"]["recall50"]["mean"] <= 1
    assert judged["car"]["mask_iou"]["mean"] is None
    assert any(row["name"] == "median of each row" for row in report["rows"])


def test_3d_boxes_fall_where_the_exact_masks_are(world: Workspace) -> None:
    manifest, config = Manifest.load(world.manifest), configuration.load(world.preset)
    classes, labels = config.priors.sam.classes, ["car", "building"]
    keys = [key for key in manifest.keys("test") if key.camera == "image_00"]
    size = tuple(config.data.image_size)
    boxes = BoxObjects.open(manifest, config.data, classes, labels, keys)
    assert boxes is not None
    overlaps = []
    for key in keys:
        exact, boxed = ExactObjects(manifest, classes, labels).read(key, size), boxes.read(key, size)
        assert boxed.masks is None
        cars = exact.boxes[(exact.labels == 0) & exact.counts]
        # A box goes round a car's hidden parts, too; one that nothing hides has the mask's own edges.
        overlaps += box_iou(cars, boxed.boxes[boxed.labels == 0]).max(1).tolist()
    assert len(overlaps) > 5
    assert np.median(overlaps) > 0.6
    assert np.quantile(overlaps, 0.9) > 0.8


def test_a_box_in_an_image() -> None:
    place = np.eye(4)
    place[:3, 3] = (0, 0, 10)
    box = ObjectBox(1, "car", False, place, np.array([2.0, 4.0, 0.0]))
    intrinsics = np.array([[100.0, 0, 31.5], [0, 100, 15.5], [0, 0, 1]])
    np.testing.assert_allclose(box_in_image(box, np.eye(4), intrinsics, (64, 64)), [22, 0, 42, 36])  # type: ignore[arg-type]
    behind = np.eye(4)
    behind[2, 3] = -9.8
    assert box_in_image(box, behind, intrinsics, (64, 64)) is None


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [
        (["--split", "train"], "vipocc priors depth --split train"),
        (["--store", "tiny"], "neither pseudo-depth nor instances named tiny"),
        (["--protocol", "eigen"], "defined on kitti-raw"),
        (["--protocol", "garg"], "--protocol lidar or exact"),
    ],
)
def test_what_is_missing_is_one_sentence(
    world: Workspace, arguments: list[str], way_out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["eval", "priors", *arguments, "-C", str(world.path)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert way_out in said
    assert "Traceback" not in said
