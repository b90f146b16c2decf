"""The demo's pictures: what went in, what the priors and the model made of it, and the truth beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.evaluation.figures.canvas import below, beside, grid, titled
from vipocc.evaluation.figures.depths import depth_maps
from vipocc.evaluation.figures.occupancy import above
from vipocc.evaluation.occupancy import THRESHOLD
from vipocc.evaluation.report import Frame
from vipocc.pictures import anchors_picture, contact_sheet, write_png
from vipocc.priors.anchors import read_instances
from vipocc.stores import StoreReader
from vipocc.workspace import Workspace

WIDTH = 480
_TITLES = {"prior": "pseudo-depth", "branch": "refined depth", "rendered": "rendered depth"}


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
    paths, strips = [], []
    for shown in frames:
        picture = _picture(shown, anchors, instances, config)
        path = folder / f"{shown.frame.sequence}-{shown.frame.frame_id:010d}.png"
        write_png(path, picture)
        paths.append(path)
        strips.append([(f"{shown.frame.sequence}, frame {shown.frame.frame_id}", picture)])
    overview = folder / "overview.png"
    write_png(overview, contact_sheet(strips))
    return [overview, *paths]


def _picture(shown: Shown, anchors: StoreReader, instances: StoreReader, config: Any) -> NDArray[np.uint8]:
    """Draw one frame: what went in and came out on the left, occupancy beside its truth on the right."""
    depths = {_TITLES[name]: shown.depths[name] for name in _TITLES}
    left = below(
        [
            depth_maps(shown.image, depths, shown.true_depth, WIDTH),
            grid(
                [[_anchors(shown, anchors, instances, config)]], ["anchors on boxes of critical instances"], width=WIDTH
            ),
        ]
    )
    right = above({"predicted": shown.density > THRESHOLD}, shown.occupied, shown.visible, scale=3)
    return beside([left, titled(right, "occupancy from above, 4 to 20 m ahead of the camera")], 16)


def _anchors(shown: Shown, anchors: StoreReader, instances: StoreReader, config: Any) -> NDArray[np.uint8]:
    """Draw one draw of the frame's anchors and the boxes that it is denser in."""
    group, row = f"{shown.frame.sequence}/{shown.frame.camera}", shown.frame.row
    held = read_instances(instances, group, row)
    drawn = anchors.read(group, row, "anchors")[0]
    return anchors_picture(shown.image, drawn, config.priors.snog.patch, boxes=held.boxes[held.gaussian], scale=2)
