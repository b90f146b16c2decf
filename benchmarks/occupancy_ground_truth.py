"""Occupancy ground truth of one frame from 300 synthetic sweeps: fast against the plain loop, in one run.

Prints one JSON object. `cold` prepares every sweep for this frame alone; `warm` shares prepared sweeps, as consecutive
frames of a drive do.
"""

from __future__ import annotations

import argparse
import json
import platform
import time

import numpy as np

from vipocc.data_manifests.ground_truth.occupancy import occupancy_ground_truth, occupancy_ground_truth_reference
from vipocc.data_manifests.ground_truth.sweeps import Sweep

LEVEL_FROM_VELO = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.1], [1, 0, 0, 0], [0, 0, 0, 1]])

CAR_RADIUS = 1.1
PARKED = np.array([(5.0 + 6.5 * k, 3.4 if k % 3 else -3.1) for k in range(60)])


def street(rng: np.random.Generator, points: int, position: float) -> np.ndarray:
    """A sweep between two rows of houses, past parked cars (upright cylinders), over flat ground; sensor frame."""
    angle = rng.uniform(-np.pi, np.pi, points)
    elevation = np.deg2rad(rng.uniform(-24.9, 2.0, points))
    forward, left = np.cos(angle), np.sin(angle)
    planar = np.minimum(7.0 / np.maximum(np.abs(left), 0.08), 80.0)
    for x, y in PARKED - [position, 0.0]:
        if abs(x) < 40.0:
            along = forward * x + left * y
            inside = CAR_RADIUS**2 - (x * x + y * y - along * along)
            hit = along - np.sqrt(np.maximum(inside, 0.0))
            planar = np.where(
                (inside > 0) & (along > 0) & (hit * np.tan(elevation) < -0.2), np.minimum(planar, hit), planar
            )
    ground = np.where(elevation < -0.02, 1.73 / np.tan(np.maximum(-elevation, 0.02)), np.inf)
    reach = np.minimum(planar, ground) * rng.normal(1.0, 0.002, points)
    return np.stack([reach * forward, reach * left, reach * np.tan(elevation)], -1).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=300)
    parser.add_argument("--points", type=int, default=60_000)
    parser.add_argument("--spacing", type=float, default=0.9, help="metres driven between sweeps")
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    positions = options.spacing * np.arange(options.sweeps)
    sweeps = [street(rng, options.points, position) for position in positions]
    transforms = np.repeat(LEVEL_FROM_VELO[None], options.sweeps, axis=0)
    transforms[:, 2, 3] = positions

    start = time.perf_counter()
    cold = occupancy_ground_truth(sweeps, transforms)
    cold_seconds = time.perf_counter() - start
    prepared = [Sweep(sweep) for sweep in sweeps]
    start = time.perf_counter()
    warm = occupancy_ground_truth(prepared, transforms)
    warm_seconds = time.perf_counter() - start
    start = time.perf_counter()
    reference = occupancy_ground_truth_reference(sweeps, transforms)
    reference_seconds = time.perf_counter() - start

    same = all(np.array_equal(a, b) and np.array_equal(a, c) for a, b, c in zip(reference, cold, warm, strict=True))
    print(
        json.dumps(
            {
                "benchmark": "occupancy_ground_truth",
                "machine": platform.processor() or platform.machine(),
                "sweeps": options.sweeps,
                "points_per_sweep": options.points,
                "reference_seconds": round(reference_seconds, 3),
                "cold_seconds": round(cold_seconds, 3),
                "warm_seconds": round(warm_seconds, 3),
                "warm_ms_per_sweep": round(1e3 * warm_seconds / options.sweeps, 3),
                "ratio_cold": round(reference_seconds / cold_seconds, 2),
                "ratio_warm": round(reference_seconds / warm_seconds, 2),
                "same_cells": same,
                "occupied_cells": int(reference.occupied.sum()),
                "visible_cells": int(reference.visible.sum()),
            }
        )
    )


if __name__ == "__main__":
    main()
