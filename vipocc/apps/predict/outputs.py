"""The files of one picture's prediction; `prediction.json` comes last and tells that the others are whole."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.apps.predict.cameras import Known
from vipocc.apps.predict.grid import Grid
from vipocc.apps.predict.predictor import Prediction
from vipocc.apps.predict.solids import mesh_ply, points_ply
from vipocc.errors import StoreError
from vipocc.geometry.cameras import Pinhole
from vipocc.pictures import FREE, HIDDEN_FREE, Image, contact_sheet, depth_picture, height_colours

FORMAT = 1
RECORD = "prediction.json"
_KITTI_SCALE = 256.0
"""KITTI's depth maps hold metres times 256 in 16 bits, 0 where there is none."""


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return a digest of everything that decides a prediction but the picture."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def is_done(folder: Path, source: Mapping[str, Any], digest: str) -> bool:
    """Whether `folder` holds this picture's prediction by these settings, with all its files."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        same = record["source"] == dict(source) and record["settings_digest"] == digest
        return bool(same and all((folder / name).is_file() for name in record["files"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def write_prediction(
    folder: Path,
    prediction: Prediction,
    *,
    source: Mapping[str, Any],
    known: Known,
    grid: Grid | None,
    threshold: float,
    full_size: bool,
    settings: Mapping[str, Any],
    about_depth: Mapping[str, Any],
) -> None:
    """Write all files of a picture; each appears whole or not at all.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    view, framing = prediction.view, prediction.view.framing
    contents: dict[str, tuple[str, bytes]] = {"view": ("view.png", _png(view.image[:, :, ::-1]))}
    record: dict[str, Any] = {
        "format": FORMAT,
        "source": dict(source),
        "settings_digest": settings_digest(settings),
        "settings": dict(settings),
        "camera": {
            **_camera(known.camera),
            "origin": known.origin,
            "distortion_taken_out": list(known.distortion),
        },
        "view": {**_camera(framing.training), "made_by": framing.describe()},
        "warnings": [known.warning] if known.warning else [],
        "pixels": "(0, 0) is the centre of the top-left pixel; camera frame x right, y down, z forward, metres",
    }
    if prediction.depth is not None:
        contents |= _depth_files("depth", prediction.depth)
        if full_size:
            contents |= _depth_files("depth_of_picture", framing.to_picture(prediction.depth))
        record["depth"] = {**about_depth, **_depth_figures(prediction.depth)}
    if prediction.density is not None and grid is not None:
        occupied = prediction.density > threshold
        in_view = grid.in_view(framing.training, framing.seen)
        contents["occupancy"] = ("occupancy.npz", _npz(prediction.density, occupied, in_view, grid, threshold))
        contents["points"] = ("occupancy.ply", points_ply(occupied, grid))
        contents["mesh"] = ("occupancy_mesh.ply", mesh_ply(occupied, grid))
        contents["above"] = ("above.png", _png(above(occupied, in_view, grid)[:, :, ::-1]))
        record["occupancy"] = {
            **grid.describe(),
            "threshold_per_metre": threshold,
            "cells": grid.cells,
            "occupied_cells": int(occupied.sum()),
            "cells_in_view": int(in_view.sum()),
            "ply_frame": "x right, y forward, z up, metres, origin at the camera; the grid's x, z, -y",
        }
    record["files"] = {kind: name for kind, (name, _) in contents.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)
        for name, content in contents.values():
            write_whole(folder / name, content)
        write_whole(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    except OSError as error:
        raise StoreError(
            f"the prediction cannot be written ({error.strerror or error})", where=folder, fix="check space and rights"
        ) from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    aside = path.with_name(f".{path.name}.partial")
    aside.write_bytes(content)
    os.replace(aside, path)


def kitti_depth(depth: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """Return metres as KITTI's 16-bit depth: metres times 256, 0 where there is none or it is out of range."""
    good = np.isfinite(depth) & (depth > 0)
    scaled = np.rint(np.where(good, depth, 0.0) * _KITTI_SCALE)
    # What 16 bits cannot hold is no depth; the smallest positive number stays apart from "none".
    return np.where(good & (scaled <= 65535), np.maximum(scaled, 1 * good), 0).astype(np.uint16)


def above(occupied: NDArray[np.bool_], in_view: NDArray[np.bool_], grid: Grid, height: int = 480) -> Image:
    """Return the grid from above, far at the top: each column of cells in the colour of its highest occupied one.

    Columns that the picture does not show at any height are paler.
    """
    highest = np.where(occupied.any(1), occupied.argmax(1), -1)  # y points down, so the first is the highest
    picture = np.where(np.any(in_view, axis=1)[..., None], np.array(FREE, np.uint8), np.array(HIDDEN_FREE, np.uint8))
    up = -grid.centres()[1]
    at = highest >= 0
    picture[at] = height_colours(up[highest[at]], -grid.y[1], -grid.y[0])
    outside = ~np.any(in_view, axis=1)
    picture[outside] = picture[outside] // 2 + np.array(HIDDEN_FREE, np.uint8) // 2
    flat = np.ascontiguousarray(picture.transpose(1, 0, 2)[::-1])
    scale = max(1, round(height / flat.shape[0])) if flat.shape[0] <= height else 1
    shown = np.repeat(np.repeat(flat, scale, 0), scale, 1)
    title = f"x {grid.x[0]:g} to {grid.x[1]:g} m, z {grid.z[0]:g} to {grid.z[1]:g} m"
    legend = height_colours(np.linspace(-grid.y[1], -grid.y[0], 160), -grid.y[1], -grid.y[0])[None].repeat(12, 0)
    low, high = f"{0.0 - grid.y[1]:g}", f"{0.0 - grid.y[0]:g}"
    return contact_sheet([[(title, shown)], [(f"height {low} to {high} m above camera", np.ascontiguousarray(legend))]])


def _depth_files(name: str, depth: NDArray[np.float32]) -> dict[str, tuple[str, bytes]]:
    buffer = io.BytesIO()
    np.save(buffer, depth.astype(np.float32))
    return {
        name: (f"{name}.png", _png(kitti_depth(depth))),
        f"{name}_picture": (f"{name}_colour.png", _png(depth_picture(depth)[:, :, ::-1])),
        f"{name}_metres": (f"{name}.npy", buffer.getvalue()),
    }


def _depth_figures(depth: NDArray[np.float32]) -> dict[str, Any]:
    known = depth[np.isfinite(depth)]
    figures: dict[str, Any] = {
        "png": "16 bits, metres times 256, 0 where there is none (KITTI's convention)",
        "npy": "float32 metres along the optical axis, NaN where there is none",
        "share_known": float(known.size / depth.size),
    }
    if known.size:
        figures |= {"median_metres": float(np.median(known)), "range_metres": [float(known.min()), float(known.max())]}
    return figures


def _npz(
    density: NDArray[np.float32], occupied: NDArray[np.bool_], in_view: NDArray[np.bool_], grid: Grid, threshold: float
) -> bytes:
    x, y, z = grid.centres()
    about = {**grid.describe(), "density": "1/m", "occupied": f"density > {threshold:g}", "in_view": "seen in picture"}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, density=density, occupied=occupied, in_view=in_view, x=x, y=y, z=z,
        camera_from_grid=grid.camera_from_grid, cell=grid.cell, threshold=threshold, about=json.dumps(about),
    )  # fmt: skip
    return buffer.getvalue()


def _camera(camera: Pinhole) -> dict[str, Any]:
    return {
        "fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy, "width": camera.width,
        "height": camera.height,
    }  # fmt: skip


def _png(image: NDArray[Any]) -> bytes:
    """Return [H, W] uint16 or [H, W, 3] uint8 (BGR) as PNG."""
    good, data = cv2.imencode(".png", np.ascontiguousarray(image))
    assert good
    return bytes(data.tobytes())
