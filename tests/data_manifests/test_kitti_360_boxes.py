"""The reader of KITTI-360's 3D boxes, on small files written in the layout that the dataset's own package parses.

Unverified on real files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vipocc.data_manifests.datasets import adapter
from vipocc.errors import DataError
from vipocc.geometry.poses import from_rotation, rotation_x

DRIVE = "2013_05_28_drive_0000_sync"
CUBE = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
FACES = np.arange(36).reshape(12, 3) % 8


def matrix(name: str, values: np.ndarray) -> str:
    lines = "\n      ".join(" ".join(f"{value:.9g}" for value in row) for row in values)
    rows, columns = values.shape
    return (
        f'  <{name} type_id="opencv-matrix">\n    <rows>{rows}</rows>\n    <cols>{columns}</cols>\n'
        f"    <dt>f</dt>\n    <data>\n      {lines}</data></{name}>\n"
    )


def element(number: int, transform: np.ndarray, vertices: np.ndarray = CUBE, **fields: Any) -> str:
    values = {
        "index": number, "label": "car", "category": "CarPassenger", "semanticId": 13, "instanceId": number,
        "timestamp": -1, "dynamic": 0, "start_frame": 3, "end_frame": 90, **fields,
    }  # fmt: skip
    told = "".join(f"  <{name}>{value}</{name}>\n" for name, value in values.items() if value is not None)
    return (
        f"<object{number}>\n{matrix('transform', transform)}{matrix('vertices', vertices)}{matrix('faces', FACES)}"
        f"{told}</object{number}>\n"
    )


def write(root: Path, *elements: str, folder: str = "train_full") -> Path:
    path = root / "data_3d_bboxes" / folder / f"{DRIVE}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'<?xml version="1.0"?>\n<opencv_storage>\n{"".join(elements)}</opencv_storage>\n')
    return path


def placed(position: tuple[float, float, float], scale: tuple[float, float, float] = (4.0, 1.8, 1.5)) -> np.ndarray:
    transform = from_rotation(rotation_x(0.3)) @ np.diag([*scale, 1.0])
    transform[:3, 3] = position
    return np.asarray(transform)


def test_boxes_of_still_and_moving_objects(tmp_path: Path) -> None:
    moving = [element(5 + n, placed((n, 0, 0)), instanceId=7, timestamp=20 + n, dynamic=1) for n in range(3)]
    write(tmp_path, element(1, placed((10.0, 20.0, 1.0))), *moving, element(9, placed((0, 0, 0)), semanticId=11))
    boxes = adapter("kitti-360").boxes(tmp_path, DRIVE)
    assert boxes is not None
    assert [(one.instance, one.moving) for one in boxes(500)] == [(13_001, False)]
    at = boxes(21)
    assert [(one.instance, one.label, one.moving) for one in at] == [(13_001, "car", False), (13_007, "car", True)]
    assert at[1].world_from_box[0, 3] == 1.0
    np.testing.assert_allclose(at[0].size, (4.0, 1.8, 1.5), atol=1e-6)
    np.testing.assert_allclose(at[0].world_from_box[:3, :3], rotation_x(0.3), atol=1e-6)
    np.testing.assert_allclose(at[0].world_from_box[:3, 3], (10.0, 20.0, 1.0))


def test_every_vertex_lies_on_its_box(tmp_path: Path) -> None:
    """Vertices that are not about the origin, and a transform with shear, as hand-made files may have."""
    vertices = CUBE * [2.0, 1.0, 3.0] + [0.5, -4.0, 2.0]
    transform = placed((100.0, 50.0, 3.0))
    transform[0, 1] = 0.7
    write(tmp_path, element(1, transform, vertices))
    boxes = adapter("kitti-360").boxes(tmp_path, DRIVE)
    assert boxes is not None
    (one,) = boxes(0)
    world = vertices @ transform[:3, :3].T + transform[:3, 3]
    centre = world.mean(0)
    assert one.contains(centre + (world - centre) * 0.999).all()
    assert not one.contains(centre + (world - centre) * 1.001).any()


def test_which_file_counts(tmp_path: Path) -> None:
    reader = adapter("kitti-360")
    assert reader.boxes(tmp_path, DRIVE) is None
    assert reader.box_files(tmp_path, DRIVE) == ()
    write(tmp_path, element(1, placed((0, 0, 0))), folder="train")
    assert reader.box_files(tmp_path, DRIVE) == (f"data_3d_bboxes/train/{DRIVE}.xml",)
    write(tmp_path, folder="train_full")
    assert reader.box_files(tmp_path, DRIVE) == (f"data_3d_bboxes/train_full/{DRIVE}.xml",)
    boxes = reader.boxes(tmp_path, DRIVE)
    assert boxes is not None, "a file without objects is not the same as none"
    assert boxes(1) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (element(1, placed((0, 0, 0)), instanceId=None), "no whole number 'instanceId'"),
        (element(1, placed((0, 0, 0)), timestamp="now"), "no whole number 'timestamp' but 'now'"),
        (element(1, placed((0, 0, 0)), semanticId=None), "no whole number 'semanticId'"),
        (element(1, placed((0, 0, 0)), np.zeros((8, 3))), "no volume"),
        (element(1, placed((0, 0, 0), (4.0, 1.8, 0.0))), "no volume"),
        (element(1, placed((0, 0, 0))[:2]), r"a transform \(2, 4\)"),
        (element(1, placed((0, 0, 0)), CUBE[:, :2]), r"vertices \(8, 2\)"),
        (element(1, placed((np.nan, 0, 0))), "all finite"),
        (element(1, placed((0, 0, 0))).replace("<rows>8", "<rows>9"), "24 numbers, 9 x 3 are announced"),
        (element(1, placed((0, 0, 0))).replace("<rows>8", "<rows>"), "no whole number 'rows'"),
        (element(1, placed((0, 0, 0))).replace("-0.5", "half"), "no number"),
        (element(1, placed((0, 0, 0))).replace("vertices", "corners"), "no 'vertices'"),
        (element(1, placed((0, 0, 0))).replace("</object1>", ""), "not a whole XML file"),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, element(2, placed((0, 0, 0))), text)
    with pytest.raises(DataError, match=said) as caught:
        adapter("kitti-360").boxes(tmp_path, DRIVE)
    assert str(path) in str(caught.value)
    assert "3D Bounding Boxes" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_and_empty_files(tmp_path: Path) -> None:
    path = write(tmp_path, *(element(n, placed((n, 0, 0))) for n in range(4)))
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 8):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="not a whole XML file"):
            adapter("kitti-360").boxes(tmp_path, DRIVE)
