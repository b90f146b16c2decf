"""KITTI-360's 3D boxes, `data_3d_bboxes/{train_full,train}/<drive>.xml`.

Read as the dataset's own package reads them (kitti360scripts 1.0.0, helpers/annotation.py and labels.py; facts
only). **Unverified on real files**: none was at hand, so tests hold this against small files written in that layout.

The file is OpenCV's XML of matrices: below the root one element for each box, with `index`, `semanticId` (the numbers
of its annotators, not those of label images), `instanceId`, `timestamp` (-1 for what does not move, else the frame id
that the box is of), `start_frame` and `end_frame` (the window of frames it was annotated in), and matrices `transform`
(4x4, world from object, any scale included), `vertices` (n x 3) and `faces`, each with `rows`, `cols`, `dt`, `data`.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from vipocc.data_manifests.ground_truth.boxes import OBJECT_LABELS, BoxesAt, ObjectBox
from vipocc.errors import DataError
from vipocc.geometry.shapes import Float64

FOLDERS = ("data_3d_bboxes/train_full", "data_3d_bboxes/train")
"""Where a drive's file may lie; the first that has one counts."""

#: `semanticId` -> label. Of 37, those that `OBJECT_LABELS` has; only these are read.
LABELS = {
    13: "car",
    14: "truck",
    15: "trailer",
    16: "caravan",
    17: "motorcycle",
    18: "bicycle",
    19: "person",
    20: "rider",
    33: "train",
    34: "bus",
    36: "unknown vehicle",
}

_STATIC = -1
_PER_LABEL = 1000  # the dataset numbers instances within a label, at most so many


def box_file(root: Path, drive: str) -> str | None:
    """Return a drive's file of boxes relative to the root, None if there is none."""
    names = (f"{folder}/{drive}.xml" for folder in FOLDERS)
    return next((name for name in names if (root / name).is_file()), None)


def read_boxes(path: Path, again: str) -> BoxesAt:
    """Return the boxes of vehicles and people in a file, as a function of the frame id.

    A moving object has one box for each frame that it is annotated at; one that stands still has a single box, which
    counts at every frame, also outside of the window it was annotated in: it is there nevertheless.

    Args:
        path: the XML file.
        again: what the user does about a damaged one.

    Raises:
        DataError: the file is damaged, or an element lacks something.
    """
    still: list[ObjectBox] = []
    moving: dict[int, list[ObjectBox]] = {}
    try:
        # Element by element: the whole tree of a drive would take many times the file's size.
        depth = 0
        root: ElementTree.Element | None = None
        for event, element in ElementTree.iterparse(path, events=("start", "end")):
            if event == "start":
                root = element if root is None else root
                depth += 1
                continue
            depth -= 1
            if depth == 1:
                box, time = _box(element, path, again)
                if box is not None:
                    (still if time == _STATIC else moving.setdefault(time, [])).append(box)
                assert root is not None
                root.clear()
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise DataError(f"not a whole XML file ({error})", where=path, fix=again) from None
    except OSError as error:
        raise DataError(f"the file of 3D boxes cannot be read ({error.strerror})", where=path, fix=again) from None
    return lambda frame_id: [*still, *moving.get(frame_id, ())]


def _box(element: ElementTree.Element, path: Path, again: str) -> tuple[ObjectBox | None, int]:
    if element.find("transform") is None:
        return None, _STATIC  # not an object: the dataset's own reader passes over it too
    where = f"{path}, {element.tag}"
    label = LABELS.get(_integer(element, "semanticId", where, again))
    if label is None:
        return None, _STATIC
    assert label in OBJECT_LABELS
    time = _integer(element, "timestamp", where, again)
    number = _integer(element, "semanticId", where, again) * _PER_LABEL
    number += _integer(element, "instanceId", where, again)
    transform = _matrix(element, "transform", where, again)
    vertices = _matrix(element, "vertices", where, again)
    if transform.shape not in ((3, 4), (4, 4)) or vertices.ndim != 2 or vertices.shape[1] != 3 or len(vertices) < 4:
        raise DataError(
            f"a box has a transform {transform.shape} and vertices {vertices.shape}", where=where, fix=again
        )
    low, high = vertices.min(0), vertices.max(0)
    axes = transform[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not (high > low).all() or abs(np.linalg.det(axes)) < 1e-9 or not 1e-3 < lengths.min() <= lengths.max() < 1e4:
        raise DataError("a box has no volume", where=where, fix=again)
    world_from_box = np.eye(4)
    world_from_box[:3, :3] = axes / lengths
    world_from_box[:3, 3] = axes @ (0.5 * (low + high)) + transform[:3, 3]
    return ObjectBox(number, label, time != _STATIC, world_from_box, (high - low) * lengths), time


def _integer(element: ElementTree.Element, name: str, where: str, again: str) -> int:
    text = (element.findtext(name) or "").strip()
    try:
        return int(text)
    except ValueError:
        raise DataError(f"a box has no whole number '{name}' but '{text[:40]}'", where=where, fix=again) from None


def _matrix(element: ElementTree.Element, name: str, where: str, again: str) -> Float64:
    found = element.find(name)
    if found is None:
        raise DataError(f"a box has no '{name}'", where=where, fix=again)
    rows, columns = (_integer(found, side, where, again) for side in ("rows", "cols"))
    try:
        values = np.array([float(word) for word in (found.findtext("data") or "").split()])
    except ValueError:
        raise DataError(f"'{name}' of a box holds what is no number", where=where, fix=again) from None
    if values.size != rows * columns or rows < 1 or not np.isfinite(values).all():
        raise DataError(
            f"'{name}' of a box has {values.size} numbers, {rows} x {columns} are announced, all finite",
            where=where,
            fix=again,
        )
    return values.reshape(rows, columns)
