"""The demo's pictures: what went in, what the priors and the model made of it, and the truth beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.evaluation.occupancy import THRESHOLD
from vipocc.evaluation.pictures import anchors_picture, contact_sheet, depth_picture, occupancy_picture, write_png
from vipocc.evaluation.report import Frame
from vipocc.stores import StoreReader
from vipocc.workspace import Workspace

WIDTH = 480


@dataclass(frozen=True)
class Shown:
    """One frame with everything there is to show of it."""

    frame: Frame
    image: NDArray[np.uint8]
    """[H, W, 3]."""
    depths: dict[str, NDArray[np.float32]]
    """[H, W] metres by name: `prior`, `branch`, `rendered`."""
    true_depth: NDArray[np.float32]
    """[h, w] metres, of the raw image's size."""
    density: NDArray[np.float32]
    """[rows, columns] of the slice, row 0 farthest."""
    occupied: NDArray[np.bool_]
    visible: NDArray[np.bool_]


def write_pictures(folder: Path, frames: list[Shown], config: Any, workspace: Workspace) -> list[Path]:
    """Write an overview and one picture a frame; return their paths, the overview first."""
    anchors = StoreReader(workspace.store("anchors"), fix="run `vipocc priors sam`")
    instances = StoreReader(workspace.store("instances"), fix="run `vipocc priors sam`")
    rows, paths = [], []
    for shown in frames:
        tiles, above = _tiles(shown, anchors, instances, config)
        path = folder / f"{shown.frame.sequence}-{shown.frame.frame_id:010d}.png"
        write_png(path, contact_sheet([tiles[:3], tiles[3:], above], WIDTH))
        paths.append(path)
        rows.append([tiles[0], tiles[2], *above])
    overview = folder / "overview.png"
    write_png(overview, contact_sheet(rows, WIDTH))
    return [overview, *paths]


def _tiles(
    shown: Shown, anchors: StoreReader, instances: StoreReader, config: Any
) -> tuple[list[tuple[str, NDArray[np.uint8]]], list[tuple[str, NDArray[np.uint8]]]]:
    group, row = f"{shown.frame.sequence}/{shown.frame.camera}", shown.frame.row
    count = int(instances.read(group, row, "count"))
    on_image = anchors_picture(
        shown.image,
        anchors.read(group, row, "anchors")[0],
        config.priors.snog.patch,
        boxes=instances.read(group, row, "box")[:count],
        scale=2,
    )
    tiles = [
        ("input", shown.image),
        ("pseudo-depth (simulated prior)", depth_picture(shown.depths["prior"])),
        ("refined depth", depth_picture(shown.depths["branch"])),
        ("anchors and instances", on_image),
        ("rendered depth", depth_picture(shown.depths["rendered"])),
        ("true depth", depth_picture(shown.true_depth)),
    ]
    above = occupancy_picture(shown.density > THRESHOLD, shown.occupied, shown.visible)
    return tiles, [("occupancy from above, 4 to 20 m ahead", above)]
