from __future__ import annotations

import cv2
import numpy as np
import pytest

from vipocc.apps.predict.cameras import KNOWN
from vipocc.apps.predict.framing import Axis, frame, undistorted
from vipocc.data_manifests.images import resize
from vipocc.errors import DataError
from vipocc.geometry.cameras import Pinhole

TRAINING = KNOWN["kitti-360"].resized((96, 320))


def ramp(camera: Pinhole) -> np.ndarray:
    """A picture whose colours tell the direction of each pixel: linear in x / z and y / z."""
    rows, columns = np.mgrid[: camera.height, : camera.width]
    x, y = (columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
    return np.clip(np.stack([128 + 60 * x, 128 + 60 * y, 0 * x], -1), 0, 255)


def test_a_picture_of_the_dataset_is_prepared_as_in_training() -> None:
    image = np.random.default_rng(0).integers(0, 256, (376, 1408, 3), np.uint8)
    framing = frame(KNOWN["kitti-360"], TRAINING)
    np.testing.assert_array_equal(framing.apply(image), resize(image, (96, 320), "area"))
    assert framing.seen.all()
    assert framing.sentence() == ""


def test_resampling_is_opencvs_area_filter_where_both_can_do_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (376, 1408, 3), np.uint8)
    framing = frame(KNOWN["kitti-360"], TRAINING)
    across = framing.columns.resample(image.transpose(1, 0, 2))
    ours = framing.rows.resample(across.transpose(1, 0, 2))
    assert np.abs(ours - resize(image, (96, 320), "area")).max() <= 1.0


@pytest.mark.parametrize(
    "axis",
    [
        Axis(400, 60, 0.17, -3.3),  # a window
        Axis(100, 60, 0.21, 20.4),  # padded on both sides
        Axis(30, 60, 1.7, 4.2),
        Axis(30, 60, 2.5, -11.0),
        Axis(1, 5, 0.9, 2.0),
        Axis(1, 5, 2.0, 1.0),
        Axis(40, 40, 1.0, 0.0),
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.float64])
def test_fast_resampling_is_the_plain_one_with_and_without_a_crop(axis: Axis, kind: type) -> None:
    values = np.random.default_rng(0).integers(0, 256, (axis.source, 3, 2)).astype(kind)
    expected = axis.resample_reference(values)
    np.testing.assert_allclose(axis.resample(values), expected, atol=1e-6)
    used, inner = axis.cropped()
    np.testing.assert_allclose(inner.resample(values[used]), expected, atol=1e-6)


@pytest.mark.parametrize("convention", ["centre", "official"])
@pytest.mark.parametrize(
    "camera",
    [
        Pinhole(700.0, 690.0, 630.0, 200.0, 1300, 500),
        Pinhole(2900.0, 2900.0, 2016.0, 1512.0, 4032, 3024),
        Pinhole(150.0, 150.0, 160.0, 90.0, 320, 200),
    ],
)
def test_directions_are_kept_by_any_camera(camera: Pinhole, convention: str) -> None:
    half = 0.0 if convention == "centre" else 0.5
    # By `official` a principal point counts from the edge, so the same direction is half a pixel further left.
    image = np.rint(
        ramp(Pinhole(camera.fx, camera.fy, camera.cx - half, camera.cy - half, camera.width, camera.height))
    )
    framing = frame(camera, TRAINING, convention)  # type: ignore[arg-type]
    view = framing.apply(image.astype(np.uint8)).astype(float)
    t = TRAINING
    expected = ramp(Pinhole(t.fx, t.fy, t.cx - half, t.cy - half, t.width, t.height))
    # One step of colour is 1/60 in x / z, four pixels; the border averages or repeats fewer pixels.
    inner = cv2.erode(framing.seen.astype(np.uint8), np.ones((3, 3))) > 0
    assert np.abs(view - expected)[inner][:, :2].max() <= 1.1


def test_padding_is_told_and_marked() -> None:
    phone = Pinhole(2900.0, 2900.0, 2015.5, 1511.5, 4032, 3024)
    framing = frame(phone, TRAINING)
    told = framing.describe()
    assert told["filled_up_pixels_of_view"]["left"] > 50
    assert told["cut_off_pixels_of_picture"]["top"] > 100
    assert told["share_of_view_seen"] == pytest.approx(framing.seen.mean())
    assert "cut off" in framing.sentence()
    assert "%" in framing.sentence()


@pytest.mark.parametrize("camera", [Pinhole(9e4, 9e4, 2000, 1500, 4000, 3000), Pinhole(10.0, 10.0, 16, 16, 32, 32)])
def test_the_absurd_is_refused(camera: Pinhole) -> None:
    with pytest.raises(DataError, match="intrinsics"):
        frame(camera, TRAINING)


def test_values_go_back_to_the_pixels_that_saw_them() -> None:
    camera = Pinhole(700.0, 690.0, 630.0, 200.0, 1300, 500)
    framing = frame(camera, TRAINING)
    _rows, columns = np.mgrid[:96, :320]
    back = framing.to_picture((columns - TRAINING.cx) / TRAINING.fx)
    x = (np.arange(1300) - camera.cx) / camera.fx
    known = np.isfinite(back)
    assert known.mean() > 0.5
    assert np.abs(back - x[None])[known].max() <= 0.5 / TRAINING.fx + 1e-6


def test_another_picture_than_the_cameras_is_refused() -> None:
    with pytest.raises(DataError, match="100x100"):
        frame(KNOWN["kitti-360"], TRAINING).apply(np.zeros((100, 100, 3), np.uint8))


def test_distortion_is_taken_out() -> None:
    camera, distortion = Pinhole(300.0, 300.0, 160.0, 120.0, 320, 240), (-0.3, 0.1, 0.0, 0.0)
    image = np.zeros((240, 320, 3), np.uint8)
    point = np.array([[[0.4, 0.3, 1.0]]])
    seen = cv2.projectPoints(point, np.zeros(3), np.zeros(3), camera.matrix, np.array(distortion))[0].reshape(2)
    cv2.circle(image, tuple(int(v) for v in np.rint(seen)), 3, (255, 255, 255), -1)
    straight = undistorted(image, camera, distortion)
    rows, columns = np.nonzero(straight[..., 0] > 128)
    assert (columns.mean(), rows.mean()) == pytest.approx(tuple(camera.project(point[0, 0])), abs=1.0)
    assert undistorted(image, camera, ()) is image
