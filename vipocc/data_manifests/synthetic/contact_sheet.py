"""One picture that shows a synthetic world: what the cameras and the LiDAR saw, and the truth."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from vipocc.data_manifests.synthetic.drive import write_atomically
from vipocc.data_manifests.synthetic.exact import SLICE_X, SLICE_Z, ExactTruth
from vipocc.data_manifests.synthetic.generate import FIRST_FRAME
from vipocc.data_manifests.synthetic.layout import drives
from vipocc.data_manifests.synthetic.rig import FISHEYES, STEREO, VIRTUAL_PITCH
from vipocc.errors import DataError, UsageError
from vipocc.geometry.cameras import fisheye_table
from vipocc.geometry.poses import virtual_rotation

Image = NDArray[np.uint8]
_WIDTH = 640
#: Half the width in metres of the view from above.
_REACH = 16.0


def contact_sheet(root: Path, path: Path, frames_per_drive: int = 1, width: int = 1600) -> None:
    """Write a PNG of 256 colours with a block for some frames of the first drive of each split.

    Left: image_00 and the virtual views of image_02 and image_03. Right: exact depth, instances, image_01. Beside them
    the LiDAR sweep from above (32 m wide, coloured by height) and the exact occupancy slice of 8 x 16 m.

    Args:
        root: of the synthetic world.
        path: of the picture.
        frames_per_drive: evenly spaced over the drive.
        width: of the picture in pixels.

    Raises:
        UsageError: `path` is no .png file.
        DataError: a file of the world cannot be read.
    """
    if path.suffix != ".png":
        raise UsageError("a contact sheet is a .png file", where=path, fix="give it that name")
    truth = ExactTruth(root)
    blocks, shown = [], set()
    for name, split, frames in drives(truth.config):
        if split in shown:
            continue
        shown.add(split)
        for k in range(frames_per_drive):
            frame_id = (2 * k + 1) * frames // (2 * frames_per_drive) + FIRST_FRAME
            blocks.append(_block(truth, name, f"{name} ({split}), frame {frame_id}", frame_id))
    sheet = np.concatenate(blocks)
    height = round(len(sheet) * width / sheet.shape[1])
    sheet = np.asarray(cv2.resize(sheet, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    content = io.BytesIO()
    # A third of the bytes: the grain of the pictures is what full colour spends them on.
    PIL.Image.fromarray(sheet).quantize(256, dither=PIL.Image.Dither.NONE).save(content, "PNG", optimize=True)
    write_atomically(path, content.getvalue())


def _block(truth: ExactTruth, name: str, title: str, frame_id: int) -> Image:
    left = [("image_00, left", _read(truth, name, STEREO[0], frame_id))]
    left += [(f"{camera}, virtual view", _virtual(truth, name, camera, frame_id)) for camera in FISHEYES]
    right = [
        ("exact depth", _depth(truth.depth(name, STEREO[0], frame_id))),
        ("instances", _instances(truth.instances(name, STEREO[0], frame_id)[0])),
        ("image_01, right", _read(truth, name, STEREO[1], frame_id)),
    ]
    columns = [np.concatenate([_named(_wide(image), text) for text, image in column]) for column in (left, right)]
    height = len(columns[0])
    above = _named(_above(truth, name, frame_id, height), "LiDAR from above")
    grid = cv2.resize(_slice(truth, name, frame_id), (height // 2, height), interpolation=cv2.INTER_NEAREST)
    grid = _named(np.asarray(grid, np.uint8), "occupied red, hidden grey")
    rule = np.zeros((height, 4, 3), np.uint8)
    block = np.concatenate([columns[0], rule, columns[1], rule, above, rule, grid], axis=1)
    bar = np.zeros((34, block.shape[1], 3), np.uint8)
    _write(bar, title, (8, 24), 0.75)
    return np.concatenate([bar, block])


def _named(image: Image, text: str) -> Image:
    image = image.copy()
    image[:26, : 12 + 11 * len(text)] //= 4
    _write(image, text, (6, 18), 0.55)
    return image


def _write(image: Image, text: str, at: tuple[int, int], scale: float) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)


def _wide(image: Image) -> Image:
    height = round(image.shape[0] * _WIDTH / image.shape[1])
    return np.asarray(cv2.resize(image, (_WIDTH, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _read(truth: ExactTruth, name: str, camera: str, frame_id: int) -> Image:
    kind = "data_rect" if camera in STEREO else "data_rgb"
    path = truth.root / "data_2d_raw" / name / camera / kind / f"{frame_id:010d}.png"
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError("the image cannot be read", where=path, fix="remove the world and generate it again")
    return np.asarray(image[..., ::-1], np.uint8)


def _virtual(truth: ExactTruth, name: str, camera: str, frame_id: int) -> Image:
    stereo = truth.rig.stereo
    table = fisheye_table(
        stereo.matrix, stereo.size, truth.rig.fisheyes[camera], virtual_rotation(VIRTUAL_PITCH), "centre"
    )
    return np.asarray(cv2.remap(_read(truth, name, camera, frame_id), table, None, cv2.INTER_LINEAR), np.uint8)


def _depth(depth: NDArray[np.float32]) -> Image:
    nearness = np.clip(3.0 / np.maximum(depth, 3.0), 0.0, 1.0)
    return _coloured(np.rint(255.0 * np.sqrt(nearness)))


def _coloured(values: NDArray[Any]) -> Image:
    return np.asarray(cv2.applyColorMap(values.astype(np.uint8), cv2.COLORMAP_MAGMA)[..., ::-1], np.uint8)


def _instances(ids: NDArray[np.uint16]) -> Image:
    table = np.random.default_rng(5).integers(40, 256, (int(ids.max()) + 2, 3)).astype(np.uint8)
    table[:2] = [[0, 0, 0], [60, 60, 60]]
    return np.asarray(table[ids], np.uint8)


def _above(truth: ExactTruth, name: str, frame_id: int, size: int) -> Image:
    """Return the sweep on a square, ahead up, the car in its lower quarter."""
    path = truth.root / "data_3d_raw" / name / "velodyne_points" / "data" / f"{frame_id:010d}.bin"
    try:
        points = np.fromfile(path, "<f4").reshape(-1, 4)
    except (OSError, ValueError) as error:
        raise DataError("the sweep cannot be read", where=path, fix="remove the world and generate it again") from error
    image = np.zeros((size, size, 3), np.uint8)
    cells = size / (2 * _REACH)
    column = np.rint(size / 2 - points[:, 1] * cells).astype(int)
    row = np.rint(0.75 * size - points[:, 0] * cells).astype(int)
    inside = (column >= 1) & (column < size - 1) & (row >= 1) & (row < size - 1)
    order = np.flatnonzero(inside)[np.argsort(points[inside, 2])]
    shade = _coloured(np.clip((points[order, 2] + 2.0) * 60.0 + 70.0, 0, 255)[None])[0]
    for dx, dy in ((1, 0), (0, 1), (0, 0)):
        image[row[order] + dy, column[order] + dx] = shade
    half, ahead, behind = (round(metres * cells) for metres in (0.9, 2.3, 1.9))
    middle, at = size // 2, round(0.75 * size)
    cv2.rectangle(image, (middle - half, at - ahead), (middle + half, at + behind), (255, 255, 255), 2)
    return image


def _slice(truth: ExactTruth, name: str, frame_id: int) -> Image:
    occupied, visible = truth.occupancy(name, frame_id)
    image = np.full((len(SLICE_Z), len(SLICE_X), 3), 120, np.uint8)
    image[visible] = 235
    image[occupied] = (120, 20, 30)
    return image
