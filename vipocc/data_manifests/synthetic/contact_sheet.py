"""One picture that shows a synthetic world: what the cameras and the LiDAR saw, and the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
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


def contact_sheet(root: Path, path: Path, frames_per_drive: int = 1) -> None:
    """Write a PNG with a block for some frames of each drive.

    Left: image_00 and the virtual views of image_02 and image_03. Right: exact depth, instances, image_01. Beside them
    the LiDAR sweep from above (40 m wide) and the exact occupancy slice: white free and visible, grey free and hidden,
    dark red occupied.
    """
    if path.suffix != ".png":
        raise UsageError("a contact sheet is a .png file", where=path, fix="give it that name")
    truth = ExactTruth(root)
    blocks = []
    for name, split, frames in drives(truth.config):
        for k in range(frames_per_drive):
            row = (2 * k + 1) * frames // (2 * frames_per_drive)
            blocks.append(_block(truth, name, f"{name} ({split}) frame {row + FIRST_FRAME}", row + FIRST_FRAME))
    done, content = cv2.imencode(".png", np.concatenate(blocks)[..., ::-1])
    assert done, "OpenCV could not encode an image in memory"
    write_atomically(path, content.tobytes())


def _block(truth: ExactTruth, name: str, title: str, frame_id: int) -> Image:
    left = [_read(truth, name, STEREO[0], frame_id)]
    left += [_virtual(truth, name, camera, frame_id) for camera in FISHEYES]
    right = [
        _depth(truth.depth(name, STEREO[0], frame_id)),
        _instances(truth.instances(name, STEREO[0], frame_id)[0]),
        _read(truth, name, STEREO[1], frame_id),
    ]
    columns = [np.concatenate([_wide(image) for image in column]) for column in (left, right)]
    height = len(columns[0])
    above = cv2.resize(_above(truth, name, frame_id), (height, height), interpolation=cv2.INTER_NEAREST)
    grid = cv2.resize(_slice(truth, name, frame_id), (height // 2, height), interpolation=cv2.INTER_NEAREST)
    block = np.concatenate([*columns, above, grid], axis=1)
    bar = np.zeros((22, block.shape[1], 3), np.uint8)
    cv2.putText(bar, title, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([bar, block])


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


def _above(truth: ExactTruth, name: str, frame_id: int) -> Image:
    path = truth.root / "data_3d_raw" / name / "velodyne_points" / "data" / f"{frame_id:010d}.bin"
    points = np.fromfile(path, "<f4").reshape(-1, 4)
    size, reach = 400, 20.0
    image = np.zeros((size, size, 3), np.uint8)
    column = np.rint((0.5 - points[:, 1] / (2 * reach)) * size).astype(int)
    row = np.rint((0.75 - points[:, 0] / (2 * reach)) * size).astype(int)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    order = np.flatnonzero(inside)[np.argsort(points[inside, 2])]
    shade = _coloured(np.clip((points[order, 2] + 2.0) * 60.0 + 40.0, 0, 255)[None])[0]
    image[row[order], column[order]] = shade
    return image


def _slice(truth: ExactTruth, name: str, frame_id: int) -> Image:
    occupied, visible = truth.occupancy(name, frame_id)
    image = np.full((len(SLICE_Z), len(SLICE_X), 3), 120, np.uint8)
    image[visible] = 235
    image[occupied] = (120, 20, 30)
    return image
