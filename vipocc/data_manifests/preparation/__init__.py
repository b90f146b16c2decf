"""Preparation: raw images to `frames.zarr`, sweeps to `lidar.zarr` and `occupancy.zarr`, all through `stores.run`."""

from vipocc.data_manifests.preparation.frames import FramesComputer, frames_spec, plan_frames
from vipocc.data_manifests.preparation.inputs import refuse_bad_inputs, sweep_rows
from vipocc.data_manifests.preparation.job import KINDS, Job, Rows
from vipocc.data_manifests.preparation.lidar import LidarComputer, lidar_rows, lidar_spec, plan_lidar
from vipocc.data_manifests.preparation.occupancy import (
    OccupancyComputer,
    occupancy_group,
    occupancy_rows,
    occupancy_spec,
    plan_occupancy,
)

__all__ = [
    "KINDS",
    "FramesComputer",
    "Job",
    "LidarComputer",
    "OccupancyComputer",
    "Rows",
    "frames_spec",
    "lidar_rows",
    "lidar_spec",
    "occupancy_group",
    "occupancy_rows",
    "occupancy_spec",
    "plan_frames",
    "plan_lidar",
    "plan_occupancy",
    "refuse_bad_inputs",
    "sweep_rows",
]
