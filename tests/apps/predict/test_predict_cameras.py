from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from vipocc.apps.predict.calibration import read_calibration
from vipocc.apps.predict.cameras import KNOWN, Intrinsics
from vipocc.errors import DataError, UsageError

SIZE = (480, 640)


def exif(**tags: object) -> Image.Exif:
    found = Image.Exif()
    inside = found.get_ifd(ExifTags.IFD.Exif)
    for name, value in tags.items():
        inside[getattr(ExifTags.Base, name)] = value
    return found


def test_a_focal_length_puts_the_principal_point_in_the_middle() -> None:
    known = Intrinsics(focal=500.0).of_picture(SIZE)
    assert (known.camera.fx, known.camera.fy, known.camera.cx, known.camera.cy) == (500.0, 500.0, 319.5, 239.5)
    assert not known.warning


def test_an_angle_of_view_spans_the_width() -> None:
    camera = Intrinsics(fov=90.0).of_picture(SIZE).camera
    left = camera.unproject([-0.5, camera.cy])
    assert math.degrees(math.atan2(-left[0], left[2])) == pytest.approx(45.0)


def test_the_35_mm_equivalent_goes_by_the_diagonal() -> None:
    known = Intrinsics().of_picture((3000, 4000), exif=exif(FocalLengthIn35mmFilm=26))
    assert known.camera.fx == pytest.approx(26 / math.hypot(36, 24) * 5000)
    assert "EXIF" in known.origin
    assert not known.warning


def test_the_sensors_pixels_do_where_there_is_no_equivalent() -> None:
    told = exif(FocalLength=5.0, FocalPlaneXResolution=6000.0, FocalPlaneResolutionUnit=3, ExifImageWidth=4000,
                ExifImageHeight=3000)  # fmt: skip
    assert Intrinsics().of_picture((1500, 2000), exif=told).camera.fx == pytest.approx(5.0 * 600.0 / 2)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"FocalLengthIn35mmFilm": 0},
        {"FocalLengthIn35mmFilm": 26, "ExifImageWidth": 4000, "ExifImageHeight": 3000},  # cropped since
        {"FocalLength": 5.0},
    ],
)
def test_what_exif_does_not_tell_is_guessed_with_a_warning(tags: dict[str, object]) -> None:
    known = Intrinsics().of_picture((1000, 4000), exif=exif(**tags))
    assert known.camera.fx / 4000 == pytest.approx(KNOWN["kitti-360"].fx / 1408)
    assert "--focal" in known.warning


def test_a_size_of_kitti_is_kittis_camera_with_a_warning() -> None:
    known = Intrinsics().of_picture((376, 1408))
    assert known.camera == KNOWN["kitti-360"]
    assert "kitti-360" in known.warning


@pytest.mark.parametrize(
    "said",
    [
        {"focal": 500.0, "fov": 60.0},
        {"cx": 3.0},
        {"focal": -1.0},
        {"fov": 179.0},
        {"camera": "02"},
        {"focal": 5.0, "file": Path("k")},
    ],
)
def test_what_contradicts_itself_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--"):
        Intrinsics(**said)  # type: ignore[arg-type]


@pytest.mark.parametrize("said", [{"focal": 10.0}, {"focal": 100_000.0}, {"focal": 500.0, "cx": 5000.0}])
def test_an_impossible_camera_is_refused(said: dict[str, float]) -> None:
    with pytest.raises(DataError, match="pixels of the picture"):
        Intrinsics(**said).of_picture(SIZE)  # type: ignore[arg-type]


def test_kittis_files_are_read(sample_data: Path) -> None:
    raw = read_calibration(sample_data / "KITTI-raw" / "2011_09_26" / "calib_cam_to_cam.txt")
    assert (raw.camera, raw.size) == ("02", (375, 1242))
    assert raw.matrix[0, 0] == pytest.approx(721.5377)
    other = read_calibration(sample_data / "KITTI-360" / "calibration" / "perspective.txt", "image_01")
    assert (other.camera, other.size) == ("01", (376, 1408))
    assert other.matrix[0, 2] == pytest.approx(682.049453)


def test_a_resized_picture_takes_its_calibration_with_it(sample_data: Path) -> None:
    file = sample_data / "KITTI-360" / "calibration" / "perspective.txt"
    assert Intrinsics(file=file).of_picture((188, 704)).camera == KNOWN["kitti-360"].resized((188, 704))
    with pytest.raises(DataError, match="other proportions"):
        Intrinsics(file=file).of_picture((376, 1000))


def test_opencvs_own_yaml_is_read_with_its_distortion(tmp_path: Path) -> None:
    file = tmp_path / "camera.yaml"
    matrix = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    storage = cv2.FileStorage(str(file), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 640)
    storage.write("image_height", 480)
    storage.write("camera_matrix", matrix)
    storage.write("distortion_coefficients", np.array([[-0.2, 0.05, 0.001, 0.0, 0.01]]))
    storage.release()
    found = read_calibration(file)
    np.testing.assert_allclose(found.matrix, matrix)
    assert found.size == SIZE
    assert found.distortion == pytest.approx((-0.2, 0.05, 0.001, 0.0, 0.01))


@pytest.mark.parametrize(
    "values",
    [
        {"fx": 500, "fy": 510, "cx": 320, "cy": 240, "width": 640, "height": 480},
        {"K": [[500, 0, 320], [0, 510, 240], [0, 0, 1]], "width": 640, "height": 480},
        {"front": {"intrinsics": [500, 510, 320, 240], "image_width": 640, "image_height": 480}},
    ],
)
def test_json_is_read(tmp_path: Path, values: dict[str, object]) -> None:
    file = tmp_path / "camera.json"
    file.write_text(json.dumps(values))
    found = read_calibration(file)
    assert found.matrix.tolist() == [[500, 0, 320], [0, 510, 240], [0, 0, 1]]
    assert found.size == SIZE


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[1]", "no mapping"),
        ("a.json", '{"fx": 5}', "lacks one of"),
        ("a.json", '{"K": [1, 2, 3]}', "3 numbers"),
        ("a.json", '{"K": [[5, 1, 3], [0, 5, 3], [0, 0, 1]]}', "without skew"),
        ("a.json", '{"fx": "wide", "cx": 1, "cy": 1}', "a number should be"),
        ("a.json", '{"fx": 0, "cx": 1, "cy": 1}', "not positive"),
        ("a.json", '{"a": {"fx": 1}, "b": {"fx": 1}}', "several cameras"),
        ("a.yaml", "a: [", "not valid YAML"),
        ("a.txt", "R_00: 1 2 3\n", "no rectified camera"),
        ("a.txt", "P_rect_02: 1 2 3\n", "P_rect_02"),
    ],
)
def test_a_wrong_file_is_told_by_its_name(tmp_path: Path, name: str, text: str, told: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(DataError, match=told) as caught:
        read_calibration(file)
    assert str(file) in str(caught.value)
