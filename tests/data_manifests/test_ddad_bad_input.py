"""Each of DDAD's files spoilt, alone: one sentence that names the file and the way out, and nothing written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ddad_tree import SCENE, SECOND, DdadTree, edit, make_ddad

from vipocc import cli
from vipocc.data_manifests.datasets.ddad import ADAPTER
from vipocc.data_manifests.datasets.ddad_scene import scene_files
from vipocc.errors import DataError

Change = Callable[[Any], object]


@pytest.fixture
def tree(tmp_path: Path) -> DdadTree:
    return make_ddad(tmp_path / "root", {SCENE: 3})


@pytest.fixture
def options(tree: DdadTree, tmp_path: Path) -> list[str]:
    here = ["-C", str(tmp_path / "w")]
    assert cli.run(["init", "--dataset", "ddad", "--root", str(tree.root), "-o", "data.image_size=[32,96]", *here]) == 0
    return here


def state_of(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(str(path).encode() + (path.read_bytes() if path.is_file() else b"/"))
    return found.hexdigest()


def index(tree: DdadTree) -> str:
    """Index, which must fail, and return the sentence."""
    with pytest.raises(DataError) as caught:
        ADAPTER.index(tree.root)
    said = str(caught.value)
    assert "\n" not in said
    assert "DDAD.tar" in said
    return said


JSON_FILES = ("scenes", "scene", "calibration")


def json_file(tree: DdadTree, name: str) -> Path:
    return {"scenes": tree.scenes, "scene": tree.scene(), "calibration": tree.calibration()}[name]


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("absent", "missing"),
        ("empty", "is empty"),
        ("truncated", "not JSON, or cut off"),
        ("other", "has no"),
        ("a list", "DGP's form"),
        ("nested", "not JSON, or cut off"),
        ("bytes", "cannot be read"),
    ],
)
def test_json_files_at_the_command_line(
    tree: DdadTree,
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    how: str,
    says: str,
) -> None:
    path = json_file(tree, name)
    text = path.read_text()
    spoilt = {
        "empty": b"", "truncated": text[: len(text) // 2].encode(), "other": b"{}", "a list": b"[1, 2]",
        "nested": b"[" * 200_000, "bytes": b"\xff\xfe\x00",
    }  # fmt: skip
    path.unlink() if how == "absent" else path.write_bytes(spoilt[how])
    before, root = state_of(tmp_path / "w"), state_of(tree.root)
    for command in (["check"], ["index"], ["prepare", "--split", "val"]):
        capsys.readouterr()
        assert cli.run(["data", *command, *options]) == 2
        said = capsys.readouterr().err.strip()
        assert "\n" not in said
        assert says in said
        assert str(path) in said
        assert "DDAD.tar" in said
    assert state_of(tmp_path / "w") == before
    assert state_of(tree.root) == root


SCENES: dict[str, tuple[Change, str]] = {
    "no splits": (lambda v: v.pop("scene_splits"), "no 'scene_splits'"),
    "no file names": (lambda v: v["scene_splits"]["1"].pop("filenames"), "no 'filenames'"),
    "no scene": (lambda v: v["scene_splits"].pop("1"), "lists no scene"),
    "a number": (lambda v: v["scene_splits"]["1"]["filenames"].append(7), "DGP's form"),
    "out of the root": (
        lambda v: v["scene_splits"]["1"]["filenames"].append("../elsewhere/scene_1.json"), "is not <scene>/<name>.json",
    ),
    "an absolute path": (
        lambda v: v["scene_splits"]["1"]["filenames"].append("/elsewhere/scene_1.json"), "is not <scene>/<name>.json",
    ),
    "twice": (
        lambda v: v["scene_splits"]["1"]["filenames"].append(f"{SCENE}/scene_0.json"),
        "is of a scene that is listed before",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", SCENES)
def test_list_of_scenes(tree: DdadTree, fault: str) -> None:
    change, says = SCENES[fault]
    edit(tree.scenes, change)
    said = index(tree)
    assert says in said
    assert str(tree.scenes) in said


def _datum(value: Any, sensor: str = "CAMERA_05", sample: int = 1) -> Any:
    return [one for one in value["data"] if one["id"]["name"] == sensor][sample]


def _image(value: Any) -> Any:
    return _datum(value)["datum"]["image"]


SCENE_FAULTS: dict[str, tuple[Change, str]] = {
    "no data": (lambda v: v.pop("data"), "no 'data'"),
    "no samples": (lambda v: v.pop("samples"), "no 'samples'"),
    "an empty scene": (lambda v: v.update(samples=[]), "has no samples"),
    "no calibration key": (lambda v: v["samples"][1].pop("calibration_key"), "no 'calibration_key'"),
    "another calibration": (lambda v: v["samples"][1].update(calibration_key="other"), "calibration changes"),
    "a calibration elsewhere": (
        lambda v: [one.update(calibration_key="../../x") for one in v["samples"]],
        "'../../x' is no key of a calibration",
    ),
    "no key": (lambda v: v["data"][0].pop("key"), "no 'key'"),
    "an unknown datum": (lambda v: v["samples"][2]["datum_keys"].append("lost"), "a sensor in sample 2 has no 'lost'"),
    "no camera": (lambda v: v["samples"][1]["datum_keys"].pop(), "sample 1 has no CAMERA_09"),
    "no LiDAR": (lambda v: v["samples"][0]["datum_keys"].pop(0), "sample 0 has no LIDAR"),
    "no pose": (lambda v: _image(v).pop("pose"), "CAMERA_05 in sample 1 has no 'pose'"),
    "no rotation": (lambda v: _image(v)["pose"].pop("rotation"), "CAMERA_05 in sample 1 has no 'rotation'"),
    "no qw": (lambda v: _image(v)["pose"]["rotation"].pop("qw"), "CAMERA_05 in sample 1 has no 'qw'"),
    "no file": (lambda v: _image(v).pop("filename"), "CAMERA_05 in sample 1 has no 'filename'"),
    "no width": (lambda v: _image(v).pop("width"), "CAMERA_05 in sample 1 has no 'width'"),
    "no name": (lambda v: _datum(v)["id"].pop("name"), "has no 'name'"),
    "no moment": (lambda v: _datum(v)["id"].pop("timestamp"), "CAMERA_05 in sample 1 has no 'timestamp'"),
    "no content": (lambda v: _datum(v).update(datum={}), "CAMERA_05 in sample 1 is not in DGP's form"),
    "a cloud for an image": (
        lambda v: _datum(v).update(datum={"point_cloud": _image(v)}), "samples of CAMERA_05 are not of one kind",
    ),
    "another size": (lambda v: _image(v).update(width=97), "CAMERA_05 are not of one kind and size"),
    "out of the root": (
        lambda v: _image(v).update(filename="../../../secret.png"),
        "'../../../secret.png', the file of CAMERA_05 in sample 1, is no path within the scene",
    ),
    "an absolute file": (lambda v: _image(v).update(filename="/secret.png"), "is no path within the scene"),
    "a Windows file": (lambda v: _image(v).update(filename="C:\\secret.png"), "is no path within the scene"),
    "a hidden climb": (lambda v: _image(v).update(filename="rgb/../../x.png"), "is no path within the scene"),
    "a line break": (lambda v: _image(v).update(filename="rgb/x.png\n"), "is no path within the scene"),
    "a number for a file": (lambda v: _image(v).update(filename=7), "'7', the file of CAMERA_05 in"),
    "NaN": (
        lambda v: _image(v)["pose"]["translation"].update(x=float("nan")), "pose of CAMERA_05 in sample 1 holds NaN",
    ),
    "no number": (lambda v: _image(v)["pose"]["translation"].update(x=None), "pose of CAMERA_05"),
    "a word": (lambda v: _image(v)["pose"]["translation"].update(x="far"), "a pose of CAMERA_05 does not consist"),
    "a long quaternion": (
        lambda v: _image(v)["pose"]["rotation"].update(qw=2.0),
        "pose of CAMERA_05 in sample 1 has a quaternion of length 2.",
    ),
    "a zero quaternion": (
        lambda v: _image(v)["pose"].update(rotation=dict.fromkeys(("qw", "qx", "qy", "qz"), 0.0)),
        "has a quaternion of length 0, not 1",
    ),
    "an infinite quaternion": (
        lambda v: _image(v)["pose"]["rotation"].update(qx=float("inf")), "CAMERA_05 in sample 1 holds NaN or infinity",
    ),
    "no date": (
        lambda v: _datum(v, "CAMERA_01")["id"].update(timestamp="yesterday"), "not a date and time",
    ),
    "an empty date": (lambda v: _datum(v, "CAMERA_01")["id"].update(timestamp=""), "sample 1 has no moment"),
    "disorder": (lambda v: v["samples"].reverse(), "sample 1 has no moment or is not later"),
}  # fmt: skip


@pytest.mark.parametrize("fault", SCENE_FAULTS)
def test_scene(tree: DdadTree, fault: str) -> None:
    change, says = SCENE_FAULTS[fault]
    edit(tree.scene(), change)
    said = index(tree)
    assert says in said
    assert str(tree.scene()) in said


def _second(value: Any) -> Any:
    return value["intrinsics"][2]


CALIBRATION_FAULTS: dict[str, tuple[Change, str]] = {
    "no names": (lambda v: v.pop("names"), "no 'names'"),
    "no intrinsics": (lambda v: v.pop("intrinsics"), "no 'intrinsics'"),
    "too few": (lambda v: v["intrinsics"].pop(), "DGP's form"),
    "no camera": (lambda v: v["names"].__setitem__(2, "CAMERA_99"), "no CAMERA_05"),
    "no fx": (lambda v: _second(v).pop("fx"), "the calibration of CAMERA_05 has no 'fx'"),
    "a word": (lambda v: _second(v).update(fx="wide"), "CAMERA_05 of the calibration is not 5 numbers"),
    "NaN": (lambda v: _second(v).update(fy=float("nan")), "CAMERA_05 of the calibration is not 5 numbers"),
    "zero": (lambda v: _second(v).update(fx=0), "the calibration is impossible"),
    "skew": (lambda v: _second(v).update(skew=0.1), "CAMERA_05 is skewed"),
    "no object": (lambda v: v["intrinsics"].__setitem__(2, 7), "CAMERA_05 is not in DGP's form"),
}


@pytest.mark.parametrize("fault", CALIBRATION_FAULTS)
def test_calibration(tree: DdadTree, fault: str) -> None:
    change, says = CALIBRATION_FAULTS[fault]
    edit(tree.calibration(), change)
    said = index(tree)
    assert says in said
    assert str(tree.calibration()) in said


def _spoil_image(path: Path, how: str) -> None:
    if how == "another size":
        assert cv2.imwrite(str(path), np.zeros((64, 90, 3), np.uint8))
    else:
        content = path.read_bytes()
        path.write_bytes({"empty": b"", "truncated": content[:-40], "text": b"<html>404</html>"}[how])


@pytest.mark.parametrize("how", ["empty", "truncated", "text", "another size"])
@pytest.mark.parametrize("camera", ["CAMERA_01", "CAMERA_08"])
def test_images(
    tree: DdadTree, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], camera: str, how: str
) -> None:
    path = tree.image(camera, 1)
    _spoil_image(path, how)
    before = state_of(tmp_path / "w")
    capsys.readouterr()
    assert cli.run(["data", "prepare", "--kinds", "frames", "--cameras", "every", *options]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert str(path) in said
    assert "DDAD.tar" in said
    assert state_of(tmp_path / "w") == before
    assert cli.run(["data", "check", *options]) == 2
    assert str(path) in capsys.readouterr().err


def _cloud(path: Path, **arrays: Any) -> None:
    np.savez_compressed(path, **arrays)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)


GOOD = np.ones((500, 4), np.float32)
SCANS: dict[str, tuple[Callable[[Path], object], str, bool]] = {
    # How it is spoilt, what is said, and whether that is seen before anything is written.
    "empty": (lambda p: p.write_bytes(b""), "a LiDAR scan is empty", True),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-30]), "truncated, or no .npz file", True),
    "text": (lambda p: p.write_text("<html>404</html>"), "truncated, or no .npz file", True),
    "altered": (_flip, "a LiDAR scan cannot be read", False),
    "another array": (lambda p: _cloud(p, points=GOOD), "has no array 'data'", False),
    "a vector": (lambda p: _cloud(p, data=GOOD[:, 0]), "not [n, 3 or more] numbers but [500] of float32", False),
    "two columns": (lambda p: _cloud(p, data=GOOD[:, :2]), "not [n, 3 or more] numbers but [500, 2]", False),
    "integers": (lambda p: _cloud(p, data=GOOD.astype(int)), "of int64", False),
    "objects": (lambda p: _cloud(p, data=np.array([{}], object)), "a LiDAR scan cannot be read", False),
    "NaN": (lambda p: _cloud(p, data=GOOD * np.nan), "not finite numbers", False),
    "too large": (lambda p: _cloud(p, data=GOOD.astype(float) * 1e300), "not finite numbers", False),
    "few points": (lambda p: _cloud(p, data=GOOD[:7]), "has only 7 points", False),
}


@pytest.mark.parametrize("fault", SCANS)
def test_scans(
    tree: DdadTree, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    spoil, says, early = SCANS[fault]
    spoil(tree.scan(1))
    before = state_of(tmp_path / "w")
    capsys.readouterr()
    assert cli.run(["data", "prepare", "--kinds", "lidar", *options]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in said
    assert str(tree.scan(1)) in said
    assert "DDAD.tar" in said
    if early:
        assert state_of(tmp_path / "w") == before
    units = {path.name for path in (tmp_path / "w").rglob("lidar.zarr.ledger/*.json")} - {"fingerprint.json"}
    assert not units


def test_missing_scan(tree: DdadTree) -> None:
    with pytest.raises(DataError, match=r"a LiDAR scan is missing.*DDAD\.tar"):
        ADAPTER.read_scan(tree.scan(9))


def test_wrong_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        ADAPTER.index(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"no DDAD here: neither ddad_train_val nor ddad\.json"):
        ADAPTER.index(tmp_path)


def test_scene_without_folder_is_left_out(tmp_path: Path) -> None:
    tree = make_ddad(tmp_path / "root", {SCENE: 1, SECOND: 1})
    (tree.base / SECOND).rename(tmp_path / "away")
    assert list(ADAPTER.index(tree.root)) == [SCENE]
    assert set(scene_files(tree.scenes)) == {SCENE, SECOND}
    (tree.base / SCENE).rename(tmp_path / "too")
    assert "none of the scenes that ddad.json lists is here" in index(tree)
