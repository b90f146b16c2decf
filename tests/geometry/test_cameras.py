from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vipocc.errors import UsageError
from vipocc.geometry.cameras import Mei, Pinhole, fisheye_table, fisheye_table_ndc_reference
from vipocc.geometry.ndc import intrinsics_to_ndc
from vipocc.geometry.poses import virtual_rotation

FISHEYE = Mei(2.2134, 0.016798, 1.654877, 4.222e-4, 4.246e-4, 1336.322, 1335.788, 716.943, 705.765, 1400, 1400)
STEREO = Pinhole(552.554261, 552.554261, 682.049453, 238.769549, 1408, 376)


def test_official_fisheye_table_is_the_reference_looked_up_corner_aligned() -> None:
    size = (192, 640)
    k = STEREO.resized(size, "official").matrix
    table = fisheye_table(k, size, FISHEYE, virtual_rotation(-15.0), "official")
    reference = fisheye_table_ndc_reference(
        intrinsics_to_ndc(k, size, "official"),
        size,
        xi=FISHEYE.xi,
        k1=FISHEYE.k1,
        k2=FISHEYE.k2,
        gamma1=2 * FISHEYE.gamma1 / 1400,
        gamma2=2 * FISHEYE.gamma2 / 1400,
        u0=2 * FISHEYE.u0 / 1400 - 1,
        v0=2 * FISHEYE.v0 / 1400 - 1,
        source_from_target=virtual_rotation(-15.0),
    )
    assert table.dtype == np.float32
    np.testing.assert_allclose(table, (reference + 1) / 2 * 1399, atol=1e-4)


def test_centre_table_projects_each_pixel_ray_with_the_whole_model() -> None:
    size = (24, 80)
    k = STEREO.resized(size).matrix
    rotation = virtual_rotation(-15.0, 10.0)
    table = fisheye_table(k, size, FISHEYE, rotation, "centre")
    ray = rotation @ np.linalg.inv(k) @ [61.0, 7.0, 1.0]
    np.testing.assert_allclose(table[7, 61], FISHEYE.project(ray), atol=1e-4)
    without = FISHEYE.project(ray, tangential=False)
    assert np.abs(without - table[7, 61]).max() > 0.01
    np.testing.assert_allclose(without, replace(FISHEYE, p1=0.0, p2=0.0).project(ray))


def test_table_points_outside_where_the_fisheye_is_blind() -> None:
    backwards = np.diag([1.0, -1.0, -1.0])
    table = fisheye_table(STEREO.resized((24, 80)).matrix, (24, 80), FISHEYE, backwards, "centre")
    picture = cv2.remap(np.full((1400, 1400), 255, np.uint8), table, None, cv2.INTER_LINEAR)
    assert np.isfinite(table).all()
    assert picture[12, 40] == 0


@given(
    st.floats(0.0, 3.0),
    st.floats(-0.02, 0.3),
    st.floats(0.0, 1.7),
    st.floats(-1e-3, 1e-3),
    st.floats(-1e-3, 1e-3),
    st.floats(-1.4, 1.4),
    st.floats(-np.pi, np.pi),
)
def test_mei_unproject_inverts_project(
    xi: float, k1: float, k2: float, p1: float, p2: float, off_axis: float, around: float
) -> None:
    camera = Mei(xi, k1, k2, p1, p2, 1300.0, 1310.0, 700.0, 710.0, 1400, 1400)
    ray = np.array([np.sin(off_axis) * np.cos(around), np.sin(off_axis) * np.sin(around), np.cos(off_axis)])
    pixel = camera.project(ray)
    np.testing.assert_allclose(camera.project(5.0 * ray), pixel, rtol=1e-12)
    if np.abs(pixel).max() < 5000.0:
        np.testing.assert_allclose(camera.unproject(pixel), ray, atol=1e-6)


@given(st.floats(0, 1407), st.floats(0, 375))
def test_pinhole_project_inverts_unproject(u: float, v: float) -> None:
    ray = STEREO.unproject([u, v])
    np.testing.assert_allclose(np.linalg.norm(ray), 1.0)
    np.testing.assert_allclose(STEREO.project(7.0 * ray), [u, v], atol=1e-9)


def test_mei_pixels_of_the_whole_circle_round_trip() -> None:
    columns, rows = np.meshgrid(np.arange(0, 1400, 25.0), np.arange(0, 1400, 25.0))
    pixels = np.stack([columns, rows], axis=-1)
    rays = FISHEYE.unproject(pixels)
    seen = np.isfinite(rays).all(axis=-1)
    radius = np.hypot(columns - FISHEYE.u0, rows - FISHEYE.v0)
    assert seen[radius < 740].all()
    assert not seen[radius > 770].any()
    np.testing.assert_allclose(np.linalg.norm(rays[seen], axis=-1), 1.0, atol=1e-12)
    np.testing.assert_allclose(FISHEYE.project(rays[seen]), pixels[seen], atol=1e-6)


def test_rays_that_a_camera_cannot_see_are_nan() -> None:
    assert np.isnan(FISHEYE.project([0.0, 0.1, -1.0])).all()
    assert np.isnan(STEREO.project([0.0, 0.1, -1.0])).all()
    assert np.isfinite(FISHEYE.project([1.0, 0.0, -0.2])).all()


def test_a_mei_camera_without_mirror_or_distortion_is_a_pinhole() -> None:
    camera = Mei(0.0, 0.0, 0.0, 0.0, 0.0, 500.0, 510.0, 300.0, 200.0, 640, 400)
    pinhole = Pinhole(500.0, 510.0, 300.0, 200.0, 640, 400)
    points = np.array([[0.3, -0.2, 1.0], [-2.0, 1.0, 5.0]])
    np.testing.assert_allclose(camera.project(points), pinhole.project(points))
    np.testing.assert_allclose(camera.resized((200, 320)).project(points), pinhole.resized((200, 320)).project(points))


def test_cameras_refuse_impossible_parameters_and_shapes() -> None:
    with pytest.raises(UsageError, match="fx must be a positive number, not -1"):
        Pinhole(-1.0, 1.0, 0.0, 0.0, 10, 10)
    with pytest.raises(UsageError, match=r"rays must have shape \[..., 3\], not \[4, 2\]"):
        STEREO.project(np.zeros((4, 2)))
    with pytest.raises(UsageError, match="intrinsics must be"):
        Pinhole.from_matrix(np.array([[5.0, 1.0, 0], [0, 5.0, 0], [0, 0, 1.0]]), (4, 4))
    with pytest.raises(UsageError, match="pixel convention must be"):
        fisheye_table(np.eye(3), (4, 4), FISHEYE, np.eye(3), "corner")  # type: ignore[arg-type]


@pytest.fixture
def kitti_360_fisheye(sample_data: Path) -> tuple[Mei, np.ndarray]:
    text = (sample_data / "KITTI-360/calibration/image_02.yaml").read_text().replace("%YAML:1.0", "")
    read = yaml.safe_load(text)
    camera = Mei(
        xi=read["mirror_parameters"]["xi"],
        **read["distortion_parameters"],
        **read["projection_parameters"],
        width=read["image_width"],
        height=read["image_height"],
    )
    image = cv2.imread(str(sample_data / "KITTI-360/fisheye_sample/image_02.png"))
    assert image.shape == (camera.height, camera.width, 3)
    return camera, image


def test_real_fisheye_resamples_to_the_virtual_camera(kitti_360_fisheye: tuple[Mei, np.ndarray]) -> None:
    camera, image = kitti_360_fisheye
    size = (192, 640)
    k = STEREO.resized(size).matrix
    table = fisheye_table(k, size, camera, virtual_rotation(-15.0), "centre")
    inside = (table >= 0).all(-1) & (table[..., 0] <= camera.width - 1) & (table[..., 1] <= camera.height - 1)
    assert inside.all()
    view = cv2.remap(image, table, None, cv2.INTER_LINEAR)
    assert (view.max(axis=-1) == 0).mean() < 0.01, "the virtual view reaches into the black surround"

    # Warping the view back through the model returns the fisheye's own pixels.
    columns, rows = np.meshgrid(np.arange(500, 900, 4.0), np.arange(650, 800, 4.0))
    rays = camera.unproject(np.stack([columns, rows], -1)) @ virtual_rotation(-15.0)
    target = Pinhole.from_matrix(k, size).project(rays).astype(np.float32)
    back = cv2.remap(view, target, None, cv2.INTER_LINEAR).astype(np.float64)
    shown = (target >= 1).all(-1) & (target[..., 0] <= 638) & (target[..., 1] <= 190)
    assert shown.mean() > 0.5
    blurred = cv2.GaussianBlur(image, (0, 0), 1.0)
    original = blurred[rows.astype(int), columns.astype(int)].astype(np.float64)
    assert np.corrcoef(back[shown].ravel(), original[shown].ravel())[0, 1] > 0.97


def test_the_two_conventions_differ_by_a_pixel_at_most_on_the_real_camera(
    kitti_360_fisheye: tuple[Mei, np.ndarray],
) -> None:
    camera, _ = kitti_360_fisheye
    size = (192, 640)
    rotation = virtual_rotation(-15.0)
    centre = fisheye_table(STEREO.resized(size).matrix, size, camera, rotation, "centre")
    official = fisheye_table(STEREO.resized(size, "official").matrix, size, camera, rotation, "official")
    shift = np.abs(centre - official).max()
    # Tangential terms, corner alignment and the half pixel together; a wrong rotation would be hundreds of pixels.
    assert 0.3 < shift < 4.0
