"""What the synthetic world costs and what it hides: seconds, rays and bytes of a frame, and the cells behind things.

Prints one JSON object. Seconds are of process CPU time (user and system), not of the clock, so that other work on the
machine's cores disturbs little; a frame is everything: moving the scene, four pictures, a sweep, the truth, its files.

    python benchmarks/synthetic_world.py [--world default] [--frames 12]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from vipocc.data_manifests.ground_truth.occupancy import level_from_world, occupancy_ground_truth
from vipocc.data_manifests.synthetic import generate, mesh
from vipocc.data_manifests.synthetic.config import WorldConfig
from vipocc.data_manifests.synthetic.drive import DriveWriter, write_calibration
from vipocc.data_manifests.synthetic.exact import ExactTruth
from vipocc.data_manifests.synthetic.generate import FIRST_FRAME
from vipocc.data_manifests.synthetic.hidden import Behind, what_is_behind
from vipocc.data_manifests.synthetic.layout import drives
from vipocc.data_manifests.synthetic.worlds import WORLDS

_TRAIN_DRIVES = 3
_SWEEPS = 300


class Counter:
    """Counts the rays that are cast and the CPU time that this takes."""

    def __init__(self) -> None:
        self.rays, self.seconds = 0, 0.0
        for name in ("cast", "blocked"):
            setattr(mesh.World, name, self._counted(getattr(mesh.World, name)))

    def _counted(self, method: Any) -> Any:
        def counted(world: mesh.World, origins: Any, directions: Any, *rest: Any) -> Any:
            start = time.process_time()
            result = method(world, origins, directions, *rest)
            self.seconds += time.process_time() - start
            self.rays += len(directions)
            return result

        return counted


def cost(root: Path, config: WorldConfig, index: int, frames: int) -> dict[str, float]:
    """Time some frames of a drive, spread over it."""
    start = time.process_time()
    writer = DriveWriter(root, config, index)
    writer.write_tables()
    opened = time.process_time() - start
    rows = np.linspace(0, writer.frames - 1, frames + 1).astype(int)
    writer.write_frame(int(rows[0]))  # the first frame also fills the tables of rays and of noise
    before = sum(p.stat().st_size for p in root.rglob("*") if p.is_file())
    counter, start = Counter(), time.process_time()
    for row in rows[1:]:
        writer.write_frame(int(row))
    seconds = (time.process_time() - start) / frames
    size = (sum(p.stat().st_size for p in root.rglob("*") if p.is_file()) - before) / frames
    # Every process opens the drives that it works on: with two, each opens all.
    total = config.frames * seconds + 2 * config.drives * opened
    return {
        "cpu_seconds_per_frame": round(seconds, 3),
        "cpu_seconds_to_open_a_drive": round(opened, 2),
        "faces": len(writer.world.faces.corners),
        "rays_per_frame": counter.rays // frames,
        "rays_per_cpu_second": round(counter.rays / frames / seconds),
        "rays_per_second_of_casting": round(counter.rays / counter.seconds),
        "share_of_time_casting": round(counter.seconds / frames / seconds, 2),
        "megabytes_per_frame": round(size / 1e6, 2),
        "frames_of_the_world": config.frames,
        "minutes_of_the_world_on_two_cores": round(total / 2 / 60, 1),
        "gigabytes_of_the_world": round(config.frames * size / 1e9, 2),
        "estimate_minutes": round(generate.estimate(config, 2)[0] / 60, 1),
        "estimate_gigabytes": round(generate.estimate(config)[1] / 1e9, 2),
        "peak_rss_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def hidden(root: Path, config: WorldConfig, frames: int) -> dict[str, Any]:
    """Say what lies out of sight in the slice of the test drive, and how much of it follows from what is seen."""
    named = drives(config)
    test = next(i for i, (_, split, _) in enumerate(named) if split == "test")
    train = [i for i, (_, split, _) in enumerate(named) if split == "train"][:_TRAIN_DRIVES]
    cells: dict[int, list[Behind]] = {}
    for index in (*train, test):
        name, _, count = named[index]
        DriveWriter(root, config, index).write_tables()
        truth = ExactTruth(root)
        rows = np.linspace(0, count - 12, frames).astype(int)
        cells[index] = [what_is_behind(truth, name, int(row) + FIRST_FRAME) for row in rows]
    learnt = Behind.joined([one for index in train for one in cells[index]])
    return Behind.joined(cells[test]).report(learnt)


def agreement(root: Path, config: WorldConfig, keys: int) -> dict[str, Any]:
    """Compare occupancy made of the test drive's sweeps with the exact one, cell by cell."""
    index = next(i for i, (_, split, _) in enumerate(drives(config)) if split == "test")
    writer = DriveWriter(root, config, index)
    writer.write_tables()
    truth = ExactTruth(root)
    count = min(_SWEEPS, writer.frames - keys)
    rows = np.linspace(0, writer.frames - count, keys).astype(int)
    sweeps = [writer.sweep(row)[:, :3] for row in range(writer.frames)]
    poses = writer.scene.world_from_imu @ writer.rig.imu_from_lidar
    found: dict[str, list[float]] = {}
    for row in rows.tolist():
        level = level_from_world(truth.world_from_camera(writer.name, row + FIRST_FRAME, "image_00"))
        exact = truth.occupancy(writer.name, row + FIRST_FRAME)
        for rule in ("official", "paper"):
            window = slice(row, row + count)
            built = occupancy_ground_truth(sweeps[window], level @ poses[window], rule=rule)
            same = built.occupied == exact.occupied
            shares = {
                "visible_to_the_camera": same[exact.visible],
                "visible_to_the_first_sweep": same[built.visible],
                "visible_to_neither": same[~exact.visible & ~built.visible],
                "hidden_from_the_camera": same[~exact.visible],
                "occupied_exactly": built.occupied[exact.occupied],
                "all": same,
            }
            for name, cells in shares.items():
                found.setdefault(f"{rule}: {name}", []).append(float(cells.mean()))
    return {"sweeps": count, "keys": keys} | {name: round(float(np.mean(v)), 3) for name, v in found.items()}


def main() -> None:
    """Print the figures of a world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", choices=sorted(WORLDS), default="default")
    parser.add_argument("--frames", type=int, default=12, help="frames timed, and looked behind in each drive")
    options = parser.parse_args()
    config = WORLDS[options.world].config
    index = next(i for i, (_, split, _) in enumerate(drives(config)) if split == "test")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate.write_record(root, config, complete=False)
        write_calibration(root, config)
        result = {"benchmark": "synthetic_world", "world": options.world, "version": generate.WORLD_VERSION}
        result["machine"] = platform.processor() or platform.machine()
        # The cost first: the memory that it reports is the process's peak so far.
        result |= cost(root / "timed", config, index, options.frames)
        result["hidden"] = hidden(root, config, options.frames)
        result["agreement_of_lidar_and_exact"] = agreement(root, config, keys=5)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
