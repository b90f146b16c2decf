"""Preparation: raw images to `frames.zarr`, sweeps to `lidar.zarr` and `occupancy.zarr`, all through `stores.run`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from vipocc.data_manifests.computers import (
    FramesComputer,
    LidarComputer,
    OccupancyComputer,
    occupancy_group,
    sweep_rows,
)
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.occupancy import (
    OFFICIAL_TOLERANCE,
    SLICE_GRID,
)
from vipocc.data_manifests.image_files import header_fault
from vipocc.data_manifests.manifest import SPLITS, Manifest
from vipocc.data_manifests.views import rig
from vipocc.errors import DataError, UsageError
from vipocc.stores import (
    ArraySpec,
    LocalExecutor,
    Plan,
    Request,
    Store,
    StoreSpec,
    Summary,
    file_ref,
    plan,
    requests_for,
    run,
)

__all__ = [
    "KINDS",
    "Job",
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

_ELSEWHERE = "use another workspace (`vipocc init -C FOLDER`), or delete the store to have it prepared anew"

Json: TypeAlias = dict[str, Any]

KINDS = ("frames", "lidar", "occupancy")
#: Rows per (sequence, camera).
Rows = Mapping[tuple[str, str], np.ndarray]

# Below this many rows the start of worker processes costs more than they save.
_WORTH_PROCESSES = 128


@dataclass(frozen=True)
class Job:
    """One kind of preparation, planned."""

    kind: str
    path: Path
    spec: StoreSpec
    root: Path
    frame_ids: Mapping[str, np.ndarray]
    requests: Sequence[Request]
    computer: FramesComputer | LidarComputer | OccupancyComputer
    seconds_per_row: float
    bytes_per_row: float
    notes: tuple[str, ...] = ()
    """What the user should know of rows that were left out or are poorer than usual."""

    @property
    def store(self) -> Store:
        """The store, whether or not it is there yet."""
        if (self.path / "zarr.json").is_file():
            return Store.create_or_open(self.path, self.spec, self.root)
        return Store(self.path.absolute(), self.spec, self.root.absolute())

    def plan(self) -> Plan:
        """What is left to do; writes nothing."""
        return plan(self.store, self.requests)

    def run(self, jobs: int = 1) -> Summary:
        """Make what is missing, in `jobs` processes."""
        missing = self.plan().missing
        if not missing:
            return Summary(0, 0, sum(len(request.rows) for request in self.requests), 0.0)
        store = Store.create_or_open(self.path, self.spec, self.root)
        for group, ids in self.frame_ids.items():
            store.ensure_group(group, ids)
        workers = jobs if missing >= _WORTH_PROCESSES else 1
        return run(store, self.requests, self.computer, LocalExecutor(workers=workers), f"preparing {self.kind}")


def frames_spec(dataset: str, config: DataConfig) -> StoreSpec:
    """Return the specification of `frames.zarr`."""
    rgb = ArraySpec(
        "rgb", (*config.image_size, 3), "uint8", 0, ("y", "x", "channel"), "1", "image", "prepared image, RGB"
    )
    attributes = {"dataset": dataset, "image_size": list(config.image_size)}
    return StoreSpec("frames", (rgb,), attributes=attributes, way_out=_ELSEWHERE)


def lidar_spec(dataset: str, config: DataConfig) -> StoreSpec:
    """Return the specification of `lidar.zarr`."""
    depth = ArraySpec(
        "depth", config.image_size, "float32", float("nan"), ("y", "x"), "m", "depth", "LiDAR depth along the axis"
    )
    attributes = {"dataset": dataset, "image_size": list(config.image_size)}
    return StoreSpec("lidar", (depth,), attributes=attributes, way_out=_ELSEWHERE)


def occupancy_spec(dataset: str) -> StoreSpec:
    """Return the specification of `occupancy.zarr`."""
    dims = ("z_far_to_near", "x_left_to_right")
    arrays = (
        ArraySpec("occupied", SLICE_GRID.shape, "uint8", 0, dims, "1", "labels", "1 where no sweep sees the cell"),
        ArraySpec(
            "visible", SLICE_GRID.shape, "uint8", 0, dims, "1", "labels", "1 where the frame's own sweep sees it"
        ),
        ArraySpec("sweeps", (), "uint16", 0, (), "1", "plain", "number of sweeps accumulated"),
    )
    return StoreSpec(
        "occupancy", arrays, attributes={"dataset": dataset}, fingerprint_scope="group", way_out=_ELSEWHERE
    )


def plan_frames(manifest: Manifest, manifest_path: Path, store: Path, config: DataConfig, rows: Rows) -> Job:
    """Plan the preparation of images; rows whose image is absent must not be asked for."""
    fingerprint = {
        "preparation": "frames-1",
        "image_size": list(config.image_size),
        "resize": config.resize,
        "convention": config.convention,
        "fisheye_pitch": config.fisheye_pitch,
    }
    requests: list[Request] = []
    pixels = 0.0
    for (sequence, camera), wanted in sorted(rows.items()):
        model = manifest.camera_model(sequence, camera)
        # A fisheye is resampled through the calibration, so its rows are made again when that changes.
        own = adapter(manifest.dataset).calibration_files(manifest.root, sequence, camera)
        extra = [file_ref(manifest.root / name, manifest.root) for name in own]
        inputs = {
            int(row): [file_ref(manifest.image_path(sequence, camera, row), manifest.root), *extra] for row in wanted
        }
        requests += requests_for(f"{sequence}/{camera}", wanted, fingerprint, inputs)
        pixels += len(wanted) * model.width * model.height
    count = max(1, sum(len(wanted) for wanted in rows.values()))
    height, width = config.image_size
    return Job(
        "frames",
        store,
        frames_spec(manifest.dataset, config),
        manifest.root,
        {f"{sequence}/{camera}": manifest.frame_ids(sequence) for sequence, camera in rows},
        requests,
        FramesComputer(manifest_path, manifest.dataset, manifest.root, config),
        # Measured on one core of a 2.x GHz server: PNG decoding 32 ns a pixel, writing 40 ns a pixel.
        seconds_per_row=32e-9 * pixels / count + 40e-9 * height * width,
        bytes_per_row=2.4 * height * width,
    )


def plan_lidar(manifest: Manifest, manifest_path: Path, store: Path, config: DataConfig, rows: Rows) -> Job:
    """Plan sparse LiDAR depth of the rows that have a sweep."""
    fingerprint = {
        "preparation": "lidar-1",
        "raster": "official" if config.convention == "official" else "nearest point in front of the camera",
        "image_size": list(config.image_size),
    }
    requests: list[Request] = []
    skipped = 0
    for (sequence, camera), listed in sorted(rows.items()):
        own = adapter(manifest.dataset).lidar_files(manifest.root, sequence)
        extra = [file_ref(manifest.root / name, manifest.root) for name in own]
        wanted = listed[manifest.has_lidar(sequence)[listed]]
        skipped += len(listed) - len(wanted)
        inputs = {int(row): [*_scan_refs(manifest, sequence, [row]), *extra] for row in wanted}
        requests += requests_for(f"{sequence}/{camera}", wanted, fingerprint, inputs)
    return Job(
        "lidar",
        store,
        lidar_spec(manifest.dataset, config),
        manifest.root,
        {f"{sequence}/{camera}": manifest.frame_ids(sequence) for sequence, camera in rows},
        requests,
        LidarComputer(manifest_path, manifest.dataset, manifest.root, config),
        seconds_per_row=0.03,
        bytes_per_row=1.1 * float(np.prod(config.image_size)),
        notes=(f"{skipped:,} frames have no LiDAR sweep",) if skipped else (),
    )


def plan_occupancy(manifest: Manifest, manifest_path: Path, store: Path, config: DataConfig, rows: Rows) -> Job:
    """Plan occupancy ground truth of the rows that have a sweep of their own and enough after it."""
    fingerprint = {
        "preparation": "occupancy-1",
        "rule": "official",
        "sweeps": config.sweeps,
        "x": SLICE_GRID.x_range,
        "y": SLICE_GRID.y_range,
        "z": SLICE_GRID.z_range,
        "tolerance": OFFICIAL_TOLERANCE,
    }
    requests: list[Request] = []
    frame_ids = {}
    used = skipped = short = 0
    for (sequence, _), wanted in sorted(rows.items()):
        has = manifest.has_lidar(sequence)
        inputs = {}
        for row in wanted[has[wanted]]:
            window = sweep_rows(manifest, sequence, int(row), config.sweeps)
            if len(window) > OFFICIAL_TOLERANCE:
                inputs[int(row)] = [_window_ref(manifest, sequence, int(row), window)]
                used += len(window)
                short += len(window) < min(config.sweeps, manifest.rows(sequence) - int(row))
        skipped += len(wanted) - len(inputs)
        group = occupancy_group(config, sequence)
        frame_ids[group] = manifest.frame_ids(sequence)
        requests += requests_for(group, inputs, fingerprint, inputs)
    return Job(
        "occupancy",
        store,
        occupancy_spec(manifest.dataset),
        manifest.root,
        frame_ids,
        requests,
        OccupancyComputer(manifest_path, manifest.dataset, manifest.root, config),
        seconds_per_row=0.03 * used / max(1, sum(len(request.rows) for request in requests)),
        bytes_per_row=2500.0,
        notes=(
            *((f"{skipped:,} frames have too few LiDAR sweeps for occupancy ground truth",) if skipped else ()),
            *((f"{short:,} frames accumulate fewer sweeps than published, for some are missing",) if short else ()),
        ),
    )


def lidar_rows(manifest: Manifest, split: str) -> dict[tuple[str, str], np.ndarray]:
    """Return which rows get sparse depth: the left camera's keys of a split."""
    left = rig(manifest.dataset).left
    return {group: rows for group, rows in manifest.key_rows(split).items() if group[1] == left}


def occupancy_rows(manifest: Manifest, split: str, config: DataConfig) -> dict[tuple[str, str], np.ndarray]:
    """Return which rows get occupancy ground truth: all test keys, and `val_occupancy` evenly spaced val keys."""
    found: dict[tuple[str, str], np.ndarray] = {}
    for one in SPLITS if split == "all" else (split,):
        if one == "train":
            continue
        keys = [(group, int(row)) for group, rows in sorted(lidar_rows(manifest, one).items()) for row in rows]
        keys = [(group, row) for group, row in keys if manifest.has_lidar(group[0])[row]]
        if one == "val" and len(keys) > config.val_occupancy:
            keys = [keys[int(at)] for at in np.linspace(0, len(keys) - 1, config.val_occupancy)]
        for group, row in keys:
            found[group] = np.union1d(found.get(group, np.zeros(0, np.int64)), [row])
    return found


def refuse_bad_inputs(manifest: Manifest, job: Job) -> None:
    """Look at the files that a job would read before anything is written.

    Raises:
        DataError: naming the first image that is absent, empty, truncated or of another size than its calibration
            says, or the first sweep that is empty or cut within a point.
    """
    for sequence, rows, camera in _todo(job):
        if job.kind == "frames":
            model = manifest.camera_model(sequence, camera)
            for row in rows:
                path = manifest.image_path(sequence, camera, row)
                fault = header_fault(path, (model.height, model.width))
                if fault is not None:
                    fix = adapter(manifest.dataset).way_out(path.relative_to(manifest.root).as_posix())
                    raise DataError(f"an image {fault}", where=path, fix=fix)
            continue
        sweeps = job.computer.config.sweeps if job.kind == "occupancy" else 1
        windows = [sweep_rows(manifest, sequence, row, sweeps) for row in rows]
        for row in np.unique(np.concatenate(windows)) if windows else ():
            _refuse_bad_scan(manifest, sequence, int(row))


def _todo(job: Job) -> Iterator[tuple[str, tuple[int, ...], str]]:
    for todo in job.plan().todo:
        first, second = todo.request.unit.group.split("/")
        yield (second, todo.missing, "") if job.kind == "occupancy" else (first, todo.missing, second)


def _refuse_bad_scan(manifest: Manifest, sequence: str, row: int) -> None:
    path = manifest.lidar_path(sequence, row)
    if path is None:
        raise UsageError(f"row {row} of {sequence} has no LiDAR scan")
    fix = adapter(manifest.dataset).way_out(path.relative_to(manifest.root).as_posix())
    fault = adapter(manifest.dataset).scan_fault(path, file_ref(path, manifest.root)["size"])
    if fault is not None:
        raise DataError(fault, where=path, fix=fix)


def _scan_refs(manifest: Manifest, sequence: str, rows: Sequence[int] | np.ndarray) -> list[Json]:
    refs = []
    for row in rows:
        path = manifest.lidar_path(sequence, int(row))
        if path is not None:
            refs.append(file_ref(path, manifest.root))
    return refs


def _window_ref(manifest: Manifest, sequence: str, row: int, window: np.ndarray) -> Json:
    # One digest for up to 300 sweeps: naming each in every row's record would take more room than the ground truth.
    state = hashlib.blake2b(digest_size=16)
    left = rig(manifest.dataset).left
    for ref in _scan_refs(manifest, sequence, window):
        state.update(f"{ref['path']} {ref['size']} {ref['mtime_ns']};".encode())
    state.update(manifest.world_from_camera(sequence, left)[row].tobytes())
    state.update(manifest.world_from_lidar(sequence)[window].tobytes())
    return {"store": "manifest", "group": sequence, "row": row, "digest": state.hexdigest()}
