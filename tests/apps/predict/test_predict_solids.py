from __future__ import annotations

import io

import numpy as np
import pytest
import trimesh

from vipocc.apps.predict.grid import Grid
from vipocc.apps.predict.outputs import above, kitti_depth
from vipocc.apps.predict.solids import mesh_ply, points_ply, surface
from vipocc.errors import UsageError
from vipocc.geometry.cameras import Pinhole
from vipocc.pictures import FREE, height_colours

SMALL = Grid((-1, 1), (0, 1), (4, 6), 0.5)


def test_the_default_is_the_papers_cuboid() -> None:
    grid = Grid()
    x, y, z = grid.centres()
    assert grid.shape == (80, 10, 160)
    assert (x[0], x[-1], y[0], z[0], z[-1]) == pytest.approx((-3.95, 3.95, 0.05, 4.05, 19.95))


def test_a_level_road_rises_in_a_camera_that_looks_down() -> None:
    points = Grid(tilt=5.0).points().reshape(80, 10, 160, 3)
    assert points[0, 0, -1, 1] < points[0, 0, 0, 1]
    np.testing.assert_allclose(Grid(tilt=0.0).points()[0], [-3.95, 0.05, 4.05], rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"x": (1, 1)}, {"x": (2, 1)}, {"cell": 0.0}, {"cell": 0.3}, {"tilt": 90.0}, {"cell": 0.005}, {"z": (0, np.inf)}],
)
def test_a_grid_that_cannot_be_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Grid(**options)  # type: ignore[arg-type]


def test_cells_outside_the_picture_are_not_in_view() -> None:
    camera = Pinhole(100.0, 100.0, 49.5, 49.5, 100, 100)
    seen = np.ones((100, 100), np.bool_)
    grid = Grid((-8, 8), (0, 1), (4, 6), 1.0, tilt=0.0)
    found = grid.in_view(camera, seen)
    x, _, z = grid.centres()
    expected = np.abs(x[:, None] / z) < 0.5
    np.testing.assert_array_equal(found[:, 0], expected)
    seen[:, :50] = False
    assert not grid.in_view(camera, seen)[x < 0].any()


def test_the_surface_is_closed_exact_and_turned_outwards() -> None:
    occupied = np.zeros(SMALL.shape, np.bool_)
    occupied[1:3, 0, 1] = True
    occupied[1, 1, 1] = True
    vertices, faces = surface(occupied, SMALL)
    assert len(faces) == 3 * 6 - 2 * 2
    mesh = trimesh.load(io.BytesIO(mesh_ply(occupied, SMALL)), file_type="ply", process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(3 * 0.5**3)
    # x right, y forward, z up: the cells are 4.5 to 5 m ahead and below the camera.
    np.testing.assert_allclose(mesh.bounds, [[-0.5, 4.5, -1.0], [0.5, 5.0, 0.0]], atol=1e-6)
    assert vertices.min() == pytest.approx(-0.5)


def test_points_are_the_cells_coloured_by_height() -> None:
    occupied = np.zeros(SMALL.shape, np.bool_)
    occupied[0, 0, 0] = occupied[3, 1, 3] = True
    cloud = trimesh.load(io.BytesIO(points_ply(occupied, SMALL)), file_type="ply")
    np.testing.assert_allclose(cloud.vertices, [[-0.75, 4.25, -0.25], [0.75, 5.75, -0.75]], atol=1e-6)
    high, low = np.asarray(cloud.colors)[:, :3].sum(1)
    assert high > low


def test_nothing_occupied_is_an_empty_file_and_not_a_fault() -> None:
    empty = np.zeros(SMALL.shape, np.bool_)
    assert b"element vertex 0" in points_ply(empty, SMALL)
    assert b"element face 0" in mesh_ply(empty, SMALL)
    assert above(empty, empty, SMALL).ndim == 3


def test_kittis_depth_holds_metres_times_256() -> None:
    depth = np.array([[1.5, np.nan, 0.0, -2.0, 80.0, 400.0, 1e-4, np.inf]], np.float32)
    assert kitti_depth(depth).tolist() == [[384, 0, 0, 0, 20480, 0, 1, 0]]


def test_seen_from_above_the_highest_cell_shows_and_far_is_at_the_top() -> None:
    occupied = np.zeros(SMALL.shape, np.bool_)
    occupied[0, :, 3] = True  # left, far, both heights
    occupied[3, 1, 0] = True  # right, near, low
    seen = np.ones(SMALL.shape, np.bool_)
    picture = above(occupied, seen, SMALL, height=4)
    title, gap = 20, 8
    cells = picture[gap + title : gap + title + 4, gap : gap + 4].astype(int)
    high, low = height_colours(np.array([-0.25, -0.75]), -1.0, 0.0).astype(int)
    np.testing.assert_array_equal(cells[0, 0], high)
    np.testing.assert_array_equal(cells[3, 3], low)
    np.testing.assert_array_equal(cells[1, 1], FREE)
    paler = above(occupied, ~seen, SMALL, height=4)[gap + title : gap + title + 4, gap : gap + 4]
    assert (paler[0, 0] != cells[0, 0]).any()
