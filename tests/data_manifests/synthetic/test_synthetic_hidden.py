"""What lies out of sight, and what follows from what is seen."""

import numpy as np
import pytest
from small_worlds import small_config

from vipocc.data_manifests.synthetic.drive import DriveWriter
from vipocc.data_manifests.synthetic.exact import ExactTruth
from vipocc.data_manifests.synthetic.generate import write_record
from vipocc.data_manifests.synthetic.hidden import Behind, what_is_behind
from vipocc.data_manifests.synthetic.scene import LABELS

DRIVE = "synthetic_drive_0000_sync"


@pytest.fixture
def cells(world):
    return what_is_behind(ExactTruth(world[0]), DRIVE, 1)


def test_hidden_cells_are_those_that_are_not_visible(world, cells):
    truth = ExactTruth(world[0])
    occupied, visible = truth.occupancy(DRIVE, 1)
    np.testing.assert_array_equal(cells.occupied, occupied.ravel())
    np.testing.assert_array_equal(cells.hidden, ~visible.ravel())
    assert np.all(cells.distance[cells.hidden] > 0)
    assert np.all(cells.front[cells.hidden] >= 0)
    assert np.all(cells.front[~cells.hidden] == -1)


def test_the_surface_in_front_is_where_the_object_begins(world, cells):
    """Stepping back from a hidden cell by its distance leads to a point on the surface of such a thing."""
    truth = ExactTruth(world[0])
    points = truth.slice_points(DRIVE, 1).reshape(-1, 3)
    origin = truth.world_from_camera(DRIVE, 1, "image_00")[:3, 3]
    unit = (points - origin) / np.linalg.norm(points - origin, axis=1, keepdims=True)
    some = np.flatnonzero(cells.hidden)
    inside = points[some] - unit[some] * (cells.distance[some, None] - 0.005)
    before = points[some] - unit[some] * (cells.distance[some, None] + 0.005)
    found = truth.instance_at(inside, DRIVE, 1)
    labels = np.concatenate([[-1, 0], truth.scene(DRIVE).label])[found]
    assert np.mean(labels == cells.front[some]) > 0.97
    assert np.mean(truth.occupancy_at(before, DRIVE, 1)) < 0.03


def made_up(depth, free):
    """Cells behind one car: occupied up to `depth` metres, and `free` visible ones."""
    distance = np.concatenate([np.linspace(0.05, 4.0, 80), np.zeros(free)]).astype(np.float32)
    hidden = distance > 0
    front = np.where(hidden, LABELS.index("car"), -1).astype(np.int16)
    return Behind(hidden & (distance < depth), hidden, front, distance, np.zeros(len(hidden), bool))


def test_who_knows_how_deep_things_are_is_right():
    report = made_up(1.5, 20).report(made_up(1.5, 0))
    accuracy = report["balanced_accuracy_of_hidden"]
    assert accuracy["all_occupied"] == 0.5
    assert accuracy["as_deep_as_its_kind"] == 1.0
    assert 0.5 < accuracy["two_metres_thick"] < 1.0
    assert report["visible_free"] == 0.2
    assert report["hidden_free"] + report["hidden_occupied"] == pytest.approx(0.8)
    misled = made_up(1.5, 0).report(made_up(3.5, 0))["balanced_accuracy_of_hidden"]
    assert misled["as_deep_as_its_kind"] < 0.75


def test_hidden_space_of_the_world_can_be_inferred(tmp_path):
    """Depth and the kind of thing say far more than a guess about the cells behind, in a street never seen."""
    config = small_config(train_frames=80, test_frames=80)
    write_record(tmp_path, config, complete=False)
    for index in range(2):
        DriveWriter(tmp_path, config, index).write_tables()
    truth = ExactTruth(tmp_path)
    train, test = (
        Behind.joined([what_is_behind(truth, name, frame) for frame in range(1, 70, 12)])
        for name in (DRIVE, "synthetic_drive_0001_sync")
    )
    report = test.report(train)
    assert report["hidden_free"] > 0.02
    assert report["hidden_occupied"] > 0.01
    assert report["occupied_behind_another_object"] > 0.02
    accuracy = report["balanced_accuracy_of_hidden"]
    assert accuracy["two_metres_thick"] > 0.65
    assert accuracy["as_deep_as_its_kind"] > 0.65
