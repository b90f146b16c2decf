"""Occupancy ground truth of one frame from 300 synthetic sweeps: fast against the plain loop, in one run.

Prints one JSON object. On the CPU, `cold` prepares every sweep for this frame alone; `warm` shares prepared sweeps, as
consecutive frames of a drive do. With `--device cuda` also the torch version on that device: `warm` from sweeps that
are there, `cold` with their transfer and preparation, `next_frame` with those of one new sweep, as along a drive. Its
figures are the median of several runs, for which the device is waited for.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from vipocc.data_manifests.ground_truth.occupancy import (
    OccupancyTruth,
    occupancy_ground_truth,
    occupancy_ground_truth_reference,
)
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


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that one call takes, and what it returns."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def differing_cells(got: OccupancyTruth, expected: OccupancyTruth) -> int:
    """How many values of the two maps differ."""
    return sum(int((a != b).sum()) for a, b in zip(got, expected, strict=True))


def on_device(
    device: str, sweeps: list[np.ndarray], transforms: np.ndarray, expected: OccupancyTruth, plain_seconds: float
) -> dict[str, Any]:
    """Figures of the torch version on a device, and whether its cells are those expected."""
    import torch

    from vipocc.data_manifests.ground_truth.occupancy_torch import DeviceSweep, occupancy_ground_truth_torch

    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def load(some: list[np.ndarray]) -> list[DeviceSweep]:
        loaded = DeviceSweep.load_all(some, device)
        wait()
        return loaded

    def run(prepared: list[DeviceSweep]) -> OccupancyTruth:
        return occupancy_ground_truth_torch(
            prepared, transforms
        )  # its maps are on the host: nothing is left to wait for

    prepared = load(sweeps)
    first = run(prepared)  # also compiles and allocates
    repeats = 5 if device.startswith("cuda") else 1
    warm = float(np.median([timed(lambda: run(prepared))[0] for _ in range(repeats)]))
    cold = float(np.median([timed(lambda: run(load(sweeps)))[0] for _ in range(repeats)]))
    following = float(np.median([timed(lambda: run([*prepared[:-1], *load(sweeps[-1:])]))[0] for _ in range(repeats)]))
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "device_warm_seconds": round(warm, 4),
        "device_next_frame_seconds": round(following, 4),
        "device_cold_seconds": round(cold, 4),
        "ratio_device_warm": round(plain_seconds / warm, 1),
        "ratio_device_next_frame": round(plain_seconds / following, 1),
        "ratio_device_cold": round(plain_seconds / cold, 1),
        "device_differing_cells": differing_cells(first, expected),
        "device_same_cells": differing_cells(first, expected) == 0,
        "device_sweep_megabytes": round(sum(one.nbytes for one in prepared) / 1e6),
        "device_peak_megabytes": (
            round(torch.cuda.max_memory_allocated(device) / 1e6) if device.startswith("cuda") else None
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=300)
    parser.add_argument("--points", type=int, default=60_000)
    parser.add_argument("--spacing", type=float, default=0.9, help="metres driven between sweeps")
    parser.add_argument("--device", help="also the torch version, on cuda or cpu")
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    positions = options.spacing * np.arange(options.sweeps)
    sweeps = [street(rng, options.points, position) for position in positions]
    transforms = np.repeat(LEVEL_FROM_VELO[None], options.sweeps, axis=0)
    transforms[:, 2, 3] = positions

    cold_seconds, cold = timed(lambda: occupancy_ground_truth(sweeps, transforms))
    prepared = [Sweep(sweep) for sweep in sweeps]
    warm_seconds, warm = timed(lambda: occupancy_ground_truth(prepared, transforms))
    reference_seconds, reference = timed(lambda: occupancy_ground_truth_reference(sweeps, transforms))
    more = on_device(options.device, sweeps, transforms, reference, reference_seconds) if options.device else {}
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
                "same_cells": differing_cells(cold, reference) == 0 and differing_cells(warm, reference) == 0,
                "occupied_cells": int(reference.occupied.sum()),
                "visible_cells": int(reference.visible.sum()),
                **more,
            }
        )
    )


if __name__ == "__main__":
    main()
