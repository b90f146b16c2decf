"""How far occupancy built from LiDAR sweeps agrees with the exact one, on a small synthetic world made for it.

Prints one JSON object: by rule, the share of cells where both say the same, over the cells that are exactly visible,
the hidden ones and all; and what the visible cells that disagree have to do with:

- `slab`: something stands at another height of the LiDAR's slab (y 0 to 0.75 m) than the plane that is judged;
- `moving`: something that moves was there in one of the sweeps;
- `not_seen`: no sweep sees the cell, from wherever it is (too near, off the road, behind what only cameras look past);
- `rule`: one or two sweeps see it, which the official rule passes over, or they do by the paper's distances only;
- `edge`: exact matter within two cells: one-degree bins take their nearest point, and ranges are noisy;
- `unexplained`: none of these.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.agreement import agreement
from vipocc.data_manifests.ground_truth.boxes import ObjectBox
from vipocc.data_manifests.ground_truth.occupancy import (
    SLICE_GRID,
    OccupancyTruth,
    level_from_world,
    occupancy_ground_truth,
    slice_grid,
)
from vipocc.data_manifests.ground_truth.sweeps import Sweep, SweepCache
from vipocc.data_manifests.synthetic.config import WorldConfig
from vipocc.data_manifests.synthetic.exact import ExactTruth
from vipocc.data_manifests.synthetic.generate import generate
from vipocc.data_manifests.tables import SequenceTable
from vipocc.geometry.poses import invert

LEFT = "image_00"
HEIGHTS = (0.02, 0.2, 0.55, 0.73)
"""Heights in metres below the camera, in the slab and off the plane at 0.375 m."""


class Drive:
    """One drive of a world: its frames, sweeps, boxes and exact truth."""

    def __init__(self, root: Path, sequence: str, sweeps: int) -> None:
        self.sequence, self.sweeps = sequence, sweeps
        reader = adapter("synthetic")
        self.table: SequenceTable = reader.index(root)[sequence]
        self.exact = ExactTruth(root)
        folder = root / "data_3d_raw" / sequence / "velodyne_points/data"
        self.cache: SweepCache[Sweep] = SweepCache(
            lambda row: reader.read_scan(folder / f"{self.table.frame_ids[row]:010d}.bin"), sweeps + 20
        )
        boxes = reader.boxes(root, sequence)
        assert boxes is not None
        self.boxes = boxes
        self._movers: dict[int, list[ObjectBox]] = {}

    def built(self, row: int, rule: Any) -> OccupancyTruth:
        """Ground truth from the sweeps of a row and those after it."""
        window = self.window(row)
        level = level_from_world(self.table.cameras[LEFT].world_from_camera[row])
        return occupancy_ground_truth(
            (self.cache[int(at)] for at in window), level @ self.table.world_from_lidar[window], rule=rule
        )

    def window(self, row: int) -> np.ndarray:
        """The rows whose sweeps are accumulated."""
        return np.arange(row, min(row + self.sweeps, len(self.table.frame_ids)))

    def points(self, row: int, y: float = SLICE_GRID.y) -> np.ndarray:
        """The slice's cells in the world at a height."""
        cells = slice_grid()
        cells[:, 1] = y
        transform = invert(level_from_world(self.table.cameras[LEFT].world_from_camera[row]))
        return np.asarray(cells @ transform[:3, :3].T + transform[:3, 3])

    def slab(self, row: int) -> np.ndarray:
        """Cells with matter at another height of the slab."""
        frame = int(self.table.frame_ids[row])
        found = np.zeros(len(slice_grid()), np.bool_)
        for y in HEIGHTS:
            found |= self.exact.occupancy_at(self.points(row, y), self.sequence, frame)
        return found.reshape(SLICE_GRID.shape)

    def moving(self, row: int) -> np.ndarray:
        """Cells in the box of something that moves, at the time of any of the sweeps; half a metre around it, too."""
        points, found = self.points(row), np.zeros(len(slice_grid()), np.bool_)
        middle = points.mean(0)
        for at in self.window(row):
            for box in self.movers(int(at)):
                if np.linalg.norm(box.world_from_box[:2, 3] - middle[:2]) < 15:
                    found |= replace(box, size=box.size + 1.0).contains(points)
        return found.reshape(SLICE_GRID.shape)

    def movers(self, row: int) -> list[ObjectBox]:
        """Boxes of what moves, at a row's time."""
        if row not in self._movers:
            self._movers[row] = [box for box in self.boxes(int(self.table.frame_ids[row])) if box.moving]
        return self._movers[row]


def measure(drive: Drive, rows: list[int]) -> dict[str, dict[str, Any]]:
    """Agreement by rule over the rows, as shares."""
    totals: dict[str, dict[str, Any]] = {"official": {}, "paper": {}}
    for row in rows:
        built = {rule: drive.built(row, rule) for rule in totals}
        exact = OccupancyTruth(*drive.exact.occupancy(drive.sequence, int(drive.table.frame_ids[row])))
        # By the rule without tolerance, occupied is what no sweep sees.
        unseen, slab, moving = built["paper"].occupied, drive.slab(row), drive.moving(row)
        for rule, total in totals.items():
            causes = {"slab": slab, "moving": moving, "not_seen": unseen, "rule": built[rule].occupied & ~unseen}
            _add(total, agreement(built[rule], exact, causes))
    return {rule: _shares(total) for rule, total in totals.items()}


def _add(total: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict):
            _add(total.setdefault(name, {}), value)
        else:
            total[name] = total.get(name, 0) + value


def _shares(total: dict[str, Any]) -> dict[str, Any]:
    visible = total["visible_cells"]
    return {
        "agreement_visible": round(total["visible_agree"] / visible, 4),
        "agreement_hidden": round(total["hidden_agree"] / total["hidden_cells"], 4),
        "agreement_all": round(total["agree"] / total["cells"], 4),
        "visibility_agreement": round(total["visibility_agree"] / total["cells"], 4),
        "visible_share": round(visible / total["cells"], 4),
        "disagreeing_visible_by_cause": {name: round(count / visible, 5) for name, count in total["causes"].items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=12, help="frames that are judged, evenly spaced")
    parser.add_argument("--sweeps", type=int, default=300)
    parser.add_argument("--drive-frames", type=int, default=340, help="frames of the drive")
    parser.add_argument("--traffic", type=float, default=1.0, help="amount of what moves, 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", type=Path, help="make the world here and keep it, by default in a temporary folder")
    options = parser.parse_args()

    config = WorldConfig.model_validate(
        {
            "seed": options.seed, "train_drives": 0, "val_drives": 0, "test_drives": 1,
            "test_frames": options.drive_frames, "scale": 0.05, "shadows": False, "antialias": False,
            "traffic": options.traffic,
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        root = options.world or Path(temporary) / "world"
        generate(root, config)
        (sequence,) = adapter("synthetic").index(root)
        drive = Drive(root, sequence, options.sweeps)
        last = max(0, options.drive_frames - options.sweeps)
        rows = sorted({int(row) for row in np.linspace(0, last, options.frames)})
        start = time.perf_counter()
        result = {
            "benchmark": "truth_agreement",
            "machine": platform.processor() or platform.machine(),
            "world": {"seed": options.seed, "traffic": options.traffic, "drive_frames": options.drive_frames},
            "sweeps": options.sweeps,
            "frames": len(rows),
            **measure(drive, rows),
        }
        result["seconds"] = round(time.perf_counter() - start, 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
