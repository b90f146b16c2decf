from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipocc.errors import DataError, UsageError
from vipocc.geometry.poses import (
    check_rigid,
    from_rotation,
    invert,
    relative,
    rotation_x,
    rotation_y,
    transform_points,
    virtual_rotation,
)

angles = st.floats(-np.pi, np.pi)
metres = st.floats(-5000.0, 5000.0)


def pose(a: float, b: float, x: float, y: float, z: float) -> np.ndarray:
    matrix = from_rotation(rotation_x(a) @ rotation_y(b))
    matrix[:3, 3] = x, y, z
    return matrix


poses = st.builds(pose, angles, angles, metres, metres, metres)


@given(poses)
def test_invert_undoes(transform: np.ndarray) -> None:
    np.testing.assert_allclose(invert(transform) @ transform, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(invert(invert(transform)), transform, atol=1e-9)
    check_rigid(invert(transform), "inverse")


@given(poses, poses)
def test_relative_leads_from_b_to_a(a: np.ndarray, b: np.ndarray) -> None:
    points = np.array([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]])
    through_world = transform_points(invert(a), transform_points(b, points))
    np.testing.assert_allclose(transform_points(relative(a, b), points), through_world, atol=1e-8)


def test_relative_keeps_millimetres_far_from_the_origin() -> None:
    a, b = pose(0, 0, 3999.1234, 1000.0, 100.0), pose(0, 0, 3999.1244, 1000.0, 100.0)
    np.testing.assert_allclose(relative(a, b)[:3, 3], [1e-3, 0, 0], atol=1e-9)
    assert relative(np.stack([a, b]), b).shape == (2, 4, 4)


def test_virtual_camera_looks_fifteen_degrees_down() -> None:
    rotation = virtual_rotation(-15.0)
    np.testing.assert_allclose(rotation, [[1, 0, 0], [0, 0.965926, 0.258819], [0, -0.258819, 0.965926]], atol=1e-6)
    np.testing.assert_allclose(rotation @ [0, 0, 1], [0, 0.258819, 0.965926], atol=1e-6)


def test_yaw_follows_pitch_about_the_fixed_axis() -> None:
    rotation = virtual_rotation(-15.0, 30.0)
    np.testing.assert_allclose(rotation @ [1, 0, 0], rotation_y(np.deg2rad(30.0)) @ [1, 0, 0])
    # The axis stays 15 degrees down, whatever the yaw.
    np.testing.assert_allclose((rotation @ [0, 0, 1])[1], np.sin(np.deg2rad(15.0)))


def test_rotations_turn_the_way_their_names_say() -> None:
    quarter = np.pi / 2
    np.testing.assert_allclose(rotation_x(quarter) @ [0, 1, 0], [0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(rotation_y(quarter) @ [0, 0, 1], [1, 0, 0], atol=1e-15)


def test_transform_points_keeps_the_dtype() -> None:
    points = np.ones((5, 3), dtype=np.float32)
    moved = transform_points(pose(0, 0, 1, 2, 3), points)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, np.tile([2.0, 3.0, 4.0], (5, 1)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: m.__setitem__((1, 0, 3), np.nan), "pose holds NaN or infinity: poses.txt, pose 1"),
        (lambda m: m.__setitem__((2, 3, 3), 0.0), "last row other than 0 0 0 1: poses.txt, pose 2"),
        (lambda m: m.__setitem__((0, 0, 0), 1.1), "not a rotation and a translation: poses.txt, pose 0"),
        (lambda m: m.__setitem__((2, 1, 1), -1.0), r"mirrors the axes \(left-handed\): poses.txt, pose 2"),
    ],
)
def test_check_rigid_names_what_is_wrong_and_where(damage, message: str) -> None:
    transforms = np.tile(np.eye(4), (3, 1, 1))
    np.testing.assert_array_equal(check_rigid(transforms, "poses.txt"), transforms)
    damage(transforms)
    with pytest.raises(DataError, match=message):
        check_rigid(transforms, "poses.txt")


def test_shapes_are_told() -> None:
    with pytest.raises(UsageError, match=r"transform must have shape \[..., 4, 4\], not \[3, 4\]"):
        invert(np.zeros((3, 4)))
