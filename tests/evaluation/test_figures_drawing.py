"""What the figures show stands at the pixels where it belongs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vipocc import pictures
from vipocc.errors import UsageError
from vipocc.evaluation.figures import canvas, depths, occupancy, rays, rig, voxels
from vipocc.geometry.poses import invert, transform_points
from vipocc.priors.snog import Instances, SnogConfig

IMAGE = np.full((96, 320, 3), 120, np.uint8)


def instances() -> Instances:
    index = np.zeros((96, 320), np.uint8)
    index[40:70, 100:160] = 1
    index[10:96, 200:300] = 2
    boxes = np.array([[100, 40, 159, 69], [200, 10, 299, 95]], np.float64)
    return Instances(boxes, np.array([1800, 8600]), np.array([True, False]), index)


def test_axes_put_ticks_at_their_values() -> None:
    axis = canvas.Axis(20.0, 4.0, 4.0, "ahead (m)")
    assert axis.ticks() == [4, 8, 12, 16, 20]
    assert [axis.place(value, 320) for value in axis.ticks()] == [320, 240, 160, 80, 0]
    tile = np.full((320, 160, 3), 7, np.uint8)
    framed = canvas.with_axes(tile, canvas.Axis(-4, 4, 2, "right (m)"), axis)
    assert (framed[8 : 8 + 320, 46 : 46 + 160] == 7).all()
    tick = framed[8 + 80, 41:45]
    assert (tick == pictures.INK).all()
    assert (framed[8 + 100, 41:44] == pictures.PAPER).all()


def test_the_bar_has_the_colours_of_the_maps() -> None:
    bar = canvas.depth_bar(200)
    for metres in (3.0, 10.0, 80.0):
        colour = pictures.depth_picture(np.full((1, 1), metres), canvas.NEAREST, canvas.FARTHEST)[0, 0].astype(int)
        level = np.sqrt((1 / metres - 1 / 80) / (1 / 3 - 1 / 80))
        assert np.abs(bar[round(199 * level), 10].astype(int) - colour).max() <= 3


def test_a_grid_says_what_is_missing() -> None:
    tile = np.full((30, 100, 3), 9, np.uint8)
    made = canvas.grid([[tile, None], [tile, tile]], ["a", "b"], ["one", "two"], width=100)
    assert made.shape == (20 + 2 * 38, 22 + 2 * 108, 3)
    assert (made[20:50, 22:122] == 9).all()
    assert not (made[20:50, 130:230] == 9).all(axis=-1).any()
    assert (made[58:88, 130:230] == 9).all()
    with pytest.raises(UsageError, match="2 columns"):
        canvas.grid([[tile]], ["a", "b"])


def test_errors_from_above_have_their_colours() -> None:
    occupied, visible, predicted = (np.zeros((160, 80), bool) for _ in range(3))
    occupied[10, 20] = occupied[150, 70] = predicted[10, 20] = predicted[80, 40] = True
    visible[100] = True
    occupied[100, 5] = True  # seen and occupied counts as free
    made = occupancy.above({"ours": predicted}, occupied, visible, scale=2)
    panel = made[20:, 46 + 160 + 14 + canvas.GAP :]
    top, left = 8, 46

    def cell(row: int, column: int) -> tuple[int, ...]:
        return tuple(panel[top + 2 * row, left + 2 * column])

    assert cell(10, 20) == pictures.OCCUPIED
    assert cell(150, 70) == pictures.MISSED
    assert cell(80, 40) == pictures.INVENTED
    assert cell(100, 5) == cell(100, 60) == pictures.FREE
    assert cell(60, 60) == pictures.HIDDEN_FREE


def test_points_of_the_volume_are_those_of_its_cells() -> None:
    grid = voxels.VolumeGrid()
    points = grid.level_points().reshape(*grid.shape, 3)
    np.testing.assert_allclose(points[0, 0, 0], [-7.875, -1.625, 4.125])
    np.testing.assert_allclose(points[-1, -1, -1], [7.875, 1.625, 23.875])
    assert points[0, 0, 1, 0] > points[0, 0, 0, 0]
    assert points[0, 1, 0, 2] > points[0, 0, 0, 2]
    camera = grid.camera_points().astype(np.float64)
    back = transform_points(voxels.level_from_world(np.eye(4)), camera).reshape(points.shape)
    np.testing.assert_allclose(back, points, atol=1e-5)
    narrow = np.array([[4.0, 0, 0], [0, 4.0, 0], [0, 0, 1]])
    inside = grid.in_image(narrow).reshape(-1)
    assert 0 < inside.sum() < inside.size
    assert (np.abs(camera[inside, 0]) <= camera[inside, 2] / 4).all()
    np.testing.assert_allclose(invert(voxels.level_from_world(np.eye(4)))[3], [0, 0, 0, 1])


def commonest(picture: np.ndarray) -> int:
    """Brightness of the colour that most pixels have which differ from the empty grid's."""
    empty = voxels.voxel_view(np.zeros(voxels.VOLUME.shape, bool))
    colours, counts = np.unique(picture[(picture != empty).any(axis=-1)], axis=0, return_counts=True)
    return int(colours[counts.argmax()].sum())


def test_cubes_hide_what_is_behind_them() -> None:
    ny, nz, nx = voxels.VOLUME.shape
    wall = np.zeros((ny, nz, nx), bool)
    wall[:, 10:12] = True
    behind = wall.copy()
    # Low, left and close behind the wall: the viewer stands to the right, above.
    behind[-2:, 12, 3:6] = True
    np.testing.assert_array_equal(voxels.voxel_view(wall), voxels.voxel_view(behind))
    before = wall.copy()
    before[-2:, 9, 3:6] = True
    assert (voxels.voxel_view(wall) != voxels.voxel_view(before)).any()


def test_low_cubes_are_darker_than_high_ones() -> None:
    low, high = (np.zeros(voxels.VOLUME.shape, bool) for _ in range(2))
    low[-1, 30:50, 20:40] = True
    high[0, 30:50, 20:40] = True
    assert commonest(voxels.voxel_view(high)) > commonest(voxels.voxel_view(low)) + 100
    picture = voxels.voxel_view(low, size=(200, 300))
    assert picture.shape == (200, 300, 3)
    np.testing.assert_array_equal(picture, voxels.voxel_view(low, size=(200, 300)))


def test_the_side_shows_how_much_of_the_width_is_occupied() -> None:
    occupied = np.zeros(voxels.VOLUME.shape, bool)
    occupied[5, 40, 16:48] = True  # |x| < 4
    occupied[7, 40, :16] = True  # beside the road
    picture = voxels.side_view(occupied, scale=4)[8:, 46:]
    assert tuple(picture[4 * 5 + 1, 4 * 40 + 1]) == (0, 0, 0)
    assert tuple(picture[4 * 7 + 1, 4 * 40 + 1]) == (255, 255, 255)


def test_depth_tiles_are_of_the_image_s_size() -> None:
    small = np.full((48, 160), 10.0)
    assert depths.depth_tile(small, IMAGE).shape == IMAGE.shape
    sparse = np.zeros((376, 1408), np.float32)
    sparse[200, 704] = 5.0
    tile = depths.truth_tile(sparse, IMAGE)
    colour = pictures.depth_picture(np.full((1, 1), 5.0))[0, 0]
    assert (tile[int(200 * 96 / 376), int(704 * 320 / 1408)] == colour).all()
    assert (tile[5, 5] == 40).all()
    made = depths.comparison([IMAGE], {"a": [small], "b": [None]}, ["frame 1"], [sparse], width=100)
    assert made.shape[1] == 22 + 4 * 108 + 58


def test_distributions_count_the_pixels_whose_truth_is_known() -> None:
    truth = np.zeros((10, 20))
    truth[2, 4], truth[9, 19], truth[0, 0] = 12.5, 79.0, 90.0
    predicted = np.full((5, 10), 3.5)
    predicted[1, 2] = 12.2
    predicted[4, 9] = 200.0
    held = depths.Distributions()
    held.add({"branch": predicted}, truth)
    assert np.flatnonzero(held.counts["truth"]).tolist() == [12, 79]
    assert np.flatnonzero(held.counts["branch"]).tolist() == [12, 79]  # what is farther is in the last part
    picture = depths.distributions(held.counts)
    assert picture.shape == (230 + 44, 420 + 60, 3)
    assert (picture == depths.COLOURS["branch"]).all(axis=-1).any()
    with pytest.raises(UsageError, match="no depth"):
        depths.distributions({"branch": np.zeros(80, int)})


def test_distributions_are_read_back(tmp_path: Path) -> None:
    held = depths.Distributions()
    held.add({"a/b": np.full((4, 4), 7.0)}, np.full((4, 4), 8.0))
    path = tmp_path / "d.npz"
    path.write_bytes(held.content())
    read = depths.Distributions.read(path)
    assert (read.frames, read.farthest) == (1, 80.0)
    assert {name: one.tolist() for name, one in read.counts.items()} == {
        name: one.tolist() for name, one in held.counts.items()
    }


def test_patches_tell_whether_they_lie_on_an_instance() -> None:
    anchors = np.array([[130, 55], [20, 20], [250, 50]])  # on the car, on nothing, on what is not critical
    picture = rays.patches(IMAGE, anchors, instances(), 8, 2)
    assert picture.shape == (192, 640, 3)
    assert [tuple(picture[2 * (y - 4), 2 * (x - 4)]) for x, y in anchors] == [rays.ON, rays.OFF, rays.OFF]
    outside = picture[2 * 80, 2 * 180]
    assert (outside == round(0.45 * 120)).all()


def test_samplers_state_what_their_draws_have() -> None:
    rng = np.random.default_rng(3)
    picture, counts = rays.samplers(IMAGE, instances(), SnogConfig(), rng, width=320)
    assert counts["SNOG"][0] == 64 * 64  # no ray twice
    assert counts["random"][0] < 64 * 64
    assert counts["SNOG"][1] > counts["random"][1]
    again, _ = rays.samplers(IMAGE, instances(), SnogConfig(), np.random.default_rng(3), width=320)
    np.testing.assert_array_equal(picture, again)
    third = rays.sampler(IMAGE, instances(), SnogConfig(), np.random.default_rng(3), width=320)
    assert third.shape[1] > 3 * 320


def test_frusta_stand_where_the_cameras_look() -> None:
    intrinsics = np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 1]])
    turned = np.eye(4)
    turned[:3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]  # looks to the right
    turned[:3, 3] = [2, 0, 5]
    ahead = rig.DrawnView("left", IMAGE, np.eye(4), intrinsics)
    right = rig.DrawnView("fisheye", IMAGE, turned, intrinsics)
    np.testing.assert_allclose(rig.footprint(ahead, 10), [[0, 0], [-10, 10], [10, 10]])
    np.testing.assert_allclose(rig.footprint(right, 10), [[2, 5], [12, 15], [12, -5]], atol=1e-12)
    picture = rig.frusta([ahead], 10.0, 200)
    inside, outside = picture[8 + 60, 46 + 100], picture[8 + 180, 46 + 20]
    assert (outside == 255).all()
    assert (inside != 255).any()
    assert rig.views([ahead, right]).ndim == 3
