"""The scene of a prediction that `vipocc predict` wrote: its cells, its depth, the picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np

from vipocc.apps.predict.outputs import RECORD
from vipocc.apps.view import layers
from vipocc.apps.view.scene import Layer, Scene
from vipocc.errors import DataError, MissingInputError
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.poses import invert


def find_predictions(folders: Sequence[Path]) -> list[Path]:
    """Return the folders of single predictions at or below `folders`, in order.

    Raises:
        MissingInputError: a folder holds none.
    """
    found = []
    for folder in folders:
        inside = sorted(path.parent for path in folder.rglob(RECORD))
        if not inside:
            raise MissingInputError(
                "there is no prediction", where=folder, fix="name a folder that `vipocc predict` wrote"
            )
        found += inside
    return found


def prediction_scene(folder: Path) -> Scene:
    """Return the scene of one prediction's folder.

    Raises:
        DataError: a file of it is absent or damaged.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return _scene(folder, record)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"the prediction cannot be read ({what})", where=folder, fix="predict it again with --overwrite"
        ) from None


def _scene(folder: Path, record: dict[str, Any]) -> Scene:
    files, view = record["files"], record["view"]
    camera = Pinhole(**{name: view[name] for name in ("fx", "fy", "cx", "cy", "width", "height")})
    decoded = cv2.imread(str(folder / files["view"]), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError(f"{files['view']} is no picture")
    image = np.ascontiguousarray(decoded[..., ::-1])
    found: list[Layer] = []
    level_from_camera = np.eye(4)
    if "occupancy" in files:
        with np.load(folder / files["occupancy"], allow_pickle=False) as held:
            level_from_camera = invert(held["camera_from_grid"])
            centres = np.stack(np.meshgrid(held["x"], held["y"], held["z"], indexing="ij"), axis=-1)
            occupied, seen, cell = held["occupied"], held["in_view"], float(held["cell"])
        note = f"density > {record['occupancy']['threshold_per_metre']:g} /m, where the picture looks"
        found.append(layers.cells("occupied", occupied & seen, centres, cell, note=note))
        if (occupied & ~seen).any():
            found.append(
                layers.cells(
                    "not in view", occupied & ~seen, centres, cell, shown=False, note="guessed from the border"
                )
            )
    if "depth_metres" in files:
        depth = np.load(folder / files["depth_metres"], allow_pickle=False)
        found.append(layers.depth_points("depth", depth, image, np.asarray(camera.matrix), level_from_camera))
    corners = layers.camera_corners(np.asarray(camera.matrix), camera.size, level_from_camera)
    found += [layers.cameras([(level_from_camera[:3, 3], corners)]), layers.picture(image, corners)]
    facts = {"camera": str(record["camera"]["origin"])}
    if record.get("warnings"):
        facts["warning"] = "; ".join(record["warnings"])
    return Scene(folder.name, found, facts)
