"""Spoilt files of KITTI Raw: one sentence that names the file and the way out, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from kitti_raw_tree import DRIVE, RawTree, make_raw_tree

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import kitti_raw
from vipocc.errors import DataError

OXTS = kitti_raw.ADAPTER.configured(DataConfig(poses="oxts"))
FILES = {
    "calib_cam_to_cam": "2011_09_26/calib_cam_to_cam.txt",
    "calib_velo_to_cam": "2011_09_26/calib_velo_to_cam.txt",
    "calib_imu_to_velo": "2011_09_26/calib_imu_to_velo.txt",
    "orb_slam": f"orb-slam_poses/2011_09_26/{DRIVE}.txt",
    "oxts": f"2011_09_26/{DRIVE}/oxts/data/0000000003.txt",
}


@pytest.fixture
def raw(tmp_path: Path) -> RawTree:
    return make_raw_tree(tmp_path / "root", (DRIVE,), 6)


def refused(raw: RawTree, name: str) -> str:
    """Return what is said of a spoilt file, by the kind of poses that needs it."""
    reader = OXTS if name in ("calib_imu_to_velo", "oxts") else kitti_raw.ADAPTER
    with pytest.raises(DataError) as caught:
        reader.index(raw.root)
    said = str(caught.value)
    assert "\n" not in said
    assert str(raw.root / FILES[name]) in said
    return said


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("how", "says"),
    [("empty", "is empty"), ("binary", "cannot be read"), ("page", ""), ("half", ""), ("cut", "")],
)
def test_a_spoilt_text_file_is_one_sentence(raw: RawTree, name: str, how: str, says: str) -> None:
    path = raw.root / FILES[name]
    content = path.read_bytes()
    spoilt = {
        "empty": b"",
        "binary": b"\xff\xfe\x00\x80",
        "page": b"<html>404 not found</html>\n",
        "half": content[: len(content) // 2 + 5],
        "cut": content[: content.index(b" ", len(content) // 3) + 3],
    }
    path.write_bytes(spoilt[how])
    said = refused(raw, name)
    assert says in said
    assert "; download" in said or "; get the ORB-SLAM" in said


@pytest.mark.parametrize("name", ["calib_cam_to_cam", "calib_velo_to_cam", "calib_imu_to_velo"])
def test_an_absent_calibration_names_its_download(raw: RawTree, name: str) -> None:
    (raw.root / FILES[name]).unlink()
    said = refused(raw, name)
    assert "is missing" in said
    assert '"[calibration]" of a drive of 2011_09_26' in said


@pytest.mark.parametrize("name", ["calib_cam_to_cam", "calib_velo_to_cam", "calib_imu_to_velo", "orb_slam"])
def test_a_number_that_lost_its_exponent_is_not_read(raw: RawTree, name: str) -> None:
    """2.7e-03 cut to 2.7e-0 reads as 2.7; only the line break that is gone tells."""
    path = raw.root / FILES[name]
    path.write_bytes(path.read_bytes()[:-2])
    assert "truncated" in refused(raw, name)


def test_inertial_calibration_is_needed_for_oxts_alone(raw: RawTree) -> None:
    (raw.root / FILES["calib_imu_to_velo"]).unlink()
    assert list(kitti_raw.ADAPTER.index(raw.root)) == [DRIVE]


FAULTS = [
    ("calib_cam_to_cam", "P_rect_02:", "P_rect_09:", "no P_rect_02"),
    ("calib_cam_to_cam", "P_rect_03:", "P_rect_09:", "no P_rect_03"),
    ("calib_cam_to_cam", "R_rect_00:", "R_rect_09:", "no R_rect_00"),
    ("calib_cam_to_cam", "S_rect_03:", "S_rect_09:", "no S_rect_03"),
    ("calib_cam_to_cam", "1.600000e+02", "1.605000e+02", "whole number"),
    ("calib_cam_to_cam", "9.200000000000e+01", "-9.200000000000e+01", "fx"),
    ("calib_cam_to_cam", "9.200000000000e+01", "nan", "P_rect_02 of the calibration is not 12 numbers"),
    ("calib_cam_to_cam", "R_rect_00: 1.000000000000e+00", "R_rect_00: 1.100000000000e+00", "not a rotation"),
    ("calib_cam_to_cam", "P_rect_03: ", "P_rect_03: 1 ", "not 12 numbers"),
    ("calib_velo_to_cam", "R:", "Q:", "no R"),
    ("calib_velo_to_cam", "T:", "Q:", "no T"),
    ("calib_velo_to_cam", "R: 0.000000000000e+00", "R: 1.000000000000e+00", "not a rotation"),
    ("calib_imu_to_velo", "T:", "Q:", "no T"),
    ("calib_imu_to_velo", "R: 1.000000000000e+00", "R: left", "not 9 numbers"),
]


@pytest.mark.parametrize(("name", "old", "new", "says"), FAULTS)
def test_wrong_calibration_is_one_sentence(raw: RawTree, name: str, old: str, new: str, says: str) -> None:
    path = raw.root / FILES[name]
    changed = path.read_text().replace(old, new)
    assert changed != path.read_text()
    path.write_text(changed)
    assert says in refused(raw, name)


POSES = {
    "a NaN": (2, "nan 0 0 1 0 1 0 0 0 0 1 0", "frame 2 "),
    "an infinity": (4, "1 0 0 inf 0 1 0 0 0 0 1 0", "frame 4 "),
    "a scaled rotation": (3, "1.1 0 0 1 0 1 0 0 0 0 1 0", "frame 3 "),
    "a mirrored rotation": (5, "1 0 0 1 0 -1 0 0 0 0 1 0", "frame 5 "),
    "a short line": (1, "1 0 0 1 0 1 0 0 0 0 1", "not a table of poses"),
    "a frame number in front": (None, "", "a pose has 12 numbers, not 13"),
    "a word": (1, "one 0 0 1 0 1 0 0 0 0 1 0", "not a table of poses"),
    "a blank line": (2, "", "a line is blank"),
    "a comment": (2, "# lost", "a line is blank or a comment"),
}


@pytest.mark.parametrize("fault", POSES)
def test_wrong_orb_slam_poses_name_the_frame(raw: RawTree, fault: str) -> None:
    at, line, says = POSES[fault]
    lines = raw.orb_slam().read_text().splitlines()
    if at is None:
        lines = [f"{number} {text}" for number, text in enumerate(lines)]
    else:
        lines[at] = line
    raw.orb_slam().write_text("\n".join(lines) + "\n")
    assert says in refused(raw, "orb_slam")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (("nan", 0), "no possible place"),
        (("91.5", 0), "no possible place"),
        (("inf", 5), "no possible"),
        (("x", 3), "not 30 numbers"),
    ],
)
def test_wrong_oxts_names_the_file(raw: RawTree, value: tuple[str, int], says: str) -> None:
    words = raw.oxts(3).read_text().split()
    words[value[1]] = value[0]
    raw.oxts(3).write_text(" ".join(words))
    assert says in refused(raw, "oxts")


def test_no_oxts_files_at_all(raw: RawTree) -> None:
    for frame in range(6):
        raw.oxts(frame).unlink()
    with pytest.raises(DataError, match=r"there are no OXTS files: .*oxts/data; download \"\[synced"):
        OXTS.index(raw.root)
