from __future__ import annotations

import numpy as np
import pytest

from vipocc.data_manifests.ground_truth.boxes import MOST_OBJECTS, ObjectBox, object_map, objects_among
from vipocc.data_manifests.ground_truth.occupancy import SLICE_GRID, SliceGrid, slice_grid
from vipocc.errors import UsageError
from vipocc.evaluation.metrics import object_cells
from vipocc.geometry.poses import from_rotation, rotation_y

NOTHING = np.zeros(SLICE_GRID.shape, np.bool_)
X, Z = (slice_grid().reshape(160, 80, 3)[..., axis] for axis in (0, 2))


def box(
    instance: int, x: float, z: float, size: tuple[float, float, float] = (2.0, 2.0, 4.0), turn: float = 0.0
) -> ObjectBox:
    """A box in the level frame, about the slice's height."""
    transform = from_rotation(rotation_y(turn))
    transform[:3, 3] = x, 0.4, z
    return ObjectBox(instance, "car", False, transform, np.array(size))


def test_a_box_s_cells_carry_its_number_and_the_rest_is_free_or_static() -> None:
    occupied = Z > 15
    found = object_map([box(40, -1.0, 8.0), box(7, 2.0, 14.0)], np.eye(4), occupied)
    assert found.dtype == np.uint8
    first, second = (np.abs(X - 2) <= 1) & (np.abs(Z - 14) <= 2), (np.abs(X + 1) <= 1) & (np.abs(Z - 8) <= 2)
    np.testing.assert_array_equal(found == 1, first)
    np.testing.assert_array_equal(found == 2, second)
    np.testing.assert_array_equal(found == 255, occupied & ~first & ~second)
    np.testing.assert_array_equal(found == 0, ~occupied & ~first & ~second)
    # As the published evaluation reads a map that has both 0 and 255.
    np.testing.assert_array_equal(object_cells(found), object_cells(found, [1, 2]))


def test_boxes_stand_where_the_world_says() -> None:
    world_from_level = from_rotation(rotation_y(0.7))
    world_from_level[:3, 3] = 1500.0, -3.0, 2200.0
    level = box(3, 1.0, 10.0, turn=0.4)
    moved = ObjectBox(3, "car", True, world_from_level @ level.world_from_box, level.size)
    expected = object_map([level], np.eye(4), NOTHING)
    assert expected.any()
    np.testing.assert_array_equal(object_map([moved], np.linalg.inv(world_from_level), NOTHING), expected)
    assert not object_map([moved], np.eye(4), NOTHING).any()


def test_a_turned_box_is_no_upright_rectangle() -> None:
    turned = object_map([box(1, 0.0, 12.0, turn=np.pi / 4)], np.eye(4), NOTHING) > 0
    along = X * np.cos(np.pi / 4) - (Z - 12) * np.sin(np.pi / 4)
    across = X * np.sin(np.pi / 4) + (Z - 12) * np.cos(np.pi / 4)
    np.testing.assert_array_equal(turned, (np.abs(along) <= 1) & (np.abs(across) <= 2))


def test_a_sheared_box_holds_its_own_points() -> None:
    transform = np.eye(4)
    transform[:3, 1] = 0.6, 0.8, 0.0
    sheared = ObjectBox(1, "car", False, transform, np.array([1.0, 2.0, 1.0]))
    corner = transform[:3, :3] @ np.array([0.49, 0.99, 0.49])
    assert sheared.contains(corner[None])[0]
    assert not sheared.contains(np.array([[0.55, -0.9, 0.0]]))[0]


def test_outside_above_and_partly_inside() -> None:
    level = np.eye(4)
    high = ObjectBox(5, "car", False, from_rotation(np.eye(3)), np.array([2.0, 0.5, 2.0]))
    high.world_from_box[:3, 3] = 0.0, -1.0, 10.0
    half = box(9, 4.0, 20.0)
    found = object_map([high, box(2, 0.0, 40.0), half], level, NOTHING)
    np.testing.assert_array_equal(found, ((X >= 3) & (Z >= 18)).astype(np.uint8))


def test_the_smaller_of_overlapping_boxes_wins_whatever_their_order() -> None:
    rider, bus = box(1, 0.0, 10.0, (0.6, 2.0, 0.6)), box(2, 0.0, 10.0, (3.0, 2.0, 6.0))
    for boxes in ([rider, bus], [bus, rider]):
        found = object_map(boxes, np.eye(4), NOTHING)
        np.testing.assert_array_equal(found == 1, (np.abs(X) <= 0.3) & (np.abs(Z - 10) <= 0.3))
        assert (found == 2).sum() > 5 * (found == 1).sum()


def test_two_boxes_of_one_instance_are_one_object() -> None:
    found = object_map([box(4, -2.0, 8.0, (1.0, 2.0, 1.0)), box(4, 2.0, 12.0, (1.0, 2.0, 1.0))], np.eye(4), NOTHING)
    assert np.unique(found).tolist() == [0, 1]


def test_more_objects_than_numbers() -> None:
    grid = SliceGrid(columns=400, rows=400)
    cells = slice_grid(grid)
    centres = [(x, z) for x in np.linspace(-3.8, 3.8, 17) for z in np.linspace(4.4, 19.6, 16)]
    # Every box but the last few covers a handful of cells; those cover one and lose their number.
    boxes = [box(n, x, z, (0.2, 2.0, 0.4)) for n, (x, z) in enumerate(centres[:-20])]
    tiny = [cells[np.argmin(np.abs(cells[:, [0, 2]] - centre).sum(1))] for centre in centres[-20:]]
    boxes += [box(1000 + n, *cell[[0, 2]], (0.001, 2.0, 0.001)) for n, cell in enumerate(tiny)]
    assert len(boxes) == 272 > MOST_OBJECTS
    found = object_map(boxes, np.eye(4), np.zeros(grid.shape, np.bool_), grid)
    assert np.setdiff1d(found, [0, 255]).tolist() == list(range(1, 255))
    assert (found == 255).sum() == 272 - MOST_OBJECTS


def test_labels_and_shapes() -> None:
    tree = ObjectBox(1, "vegetation", False, np.eye(4), np.ones(3))
    assert objects_among([tree, box(2, 0.0, 8.0)])[0].instance == 2
    assert len(objects_among([tree, box(2, 0.0, 8.0)])) == 1
    with pytest.raises(UsageError, match="must be"):
        object_map([], np.eye(4), np.zeros((460, 80), np.bool_))
