"""Speed and memory of the stream of training samples, without a trainer: prints one JSON object.

Stores of KITTI-360's shape (eight views of 192x640, two pseudo-depth maps, anchors) are made through the real writer,
of pictures with as much noise as makes them as hard to compress as real ones, and read in shuffled order by the real
stream. Rates are of whole samples: read, checked, decompressed, laid into one memory, handed to the main process and
copied there once, as pinning does. `per_core` divides by the processor time of all processes, so that it holds where
cores are shared too. `plain` is the same with one sample, row and tensor at a time (the twin). `cold` is read after the
kernel was asked to forget the files' pages; a virtual machine's host may still hold them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.preparation import frames_spec
from vipocc.priors.config import SnogConfig
from vipocc.priors.store_specs import anchors_spec, depth_spec
from vipocc.stores.executors import LocalExecutor
from vipocc.stores.runner import run
from vipocc.stores.spec import StoreSpec, Unit, requests_for
from vipocc.stores.writer import Store
from vipocc.training.config import TrainingConfig
from vipocc.training.packing import Packed
from vipocc.training.samples import SamplePaths, TrainingSamples
from vipocc.training.stream import RunBatches, load_packed
from vipocc.training.table import SampleTable

CAMERAS = ("image_00", "image_01", "image_02", "image_03")
STEREO, FISHEYE_OFFSET, DISTINCT = 2, 10, 16
#: Standard deviation of the noise that makes rows as long as those of real frames (`bytes_per_pixel`).
NOISE = 2.0


@dataclass
class Pictures:
    """Rows of the three stores: smooth pictures with noise, depth of a street, random anchors."""

    kind: str
    size: tuple[int, int]

    def open(self, device: str) -> None:
        cv2.setNumThreads(1)
        rng, (height, width) = np.random.default_rng(0), self.size
        self.pictures = []
        for _ in range(DISTINCT):
            octaves = [rng.uniform(-0.5, 0.5, (2 + height // s, 2 + width // s, 3)) * s for s in (8, 32, 128)]
            smooth = sum(cv2.resize(octave, (width, height), interpolation=cv2.INTER_CUBIC) for octave in octaves)
            noise = rng.normal(0, NOISE, (height, width, 3))
            self.pictures.append(np.clip(110 + smooth + noise, 0, 255).astype(np.uint8))

    def compute(self, unit: Unit, rows: Sequence[int]) -> dict[str, np.ndarray]:
        height, width = self.size
        made = []
        for row in rows:
            rng = np.random.default_rng((row, len(unit.group)))
            shift = tuple(int(value) for value in rng.integers((height, width)))
            if self.kind == "frames":
                made.append(np.roll(self.pictures[row % DISTINCT], shift, (0, 1)))
            elif self.kind == "depth":
                # As smooth as what a depth network gives, down to the last bits that float16 holds.
                field = cv2.resize(rng.uniform(3, 60, (7, 21)), (width, height), interpolation=cv2.INTER_CUBIC)
                made.append((field * rng.normal(1, 0.0007, field.shape)).astype(np.float16))
            else:
                made.append(rng.integers(4, (width - 4, height - 4), (25, 64, 2)).astype(np.uint16))
        return {{"frames": "rgb", "depth": "depth", "anchors": "anchors"}[self.kind]: np.stack(made)}

    def close(self) -> None: ...


def make_stores(folder: Path, frames: int, size: tuple[int, int]) -> dict[str, float]:
    """Write the three stores; return bytes on disk per pixel of frames and of depth."""
    data = DataConfig(image_size=size)
    specs: dict[str, StoreSpec] = {
        "frames": frames_spec("kitti-360", data),
        "depth": depth_spec("kitti-360", size, "float16"),
        "anchors": anchors_spec("kitti-360", size, SnogConfig()),
    }
    for kind, spec in specs.items():
        store, requests = Store.create_or_open(folder / f"{kind}.zarr", spec), []
        for camera in CAMERAS if kind == "frames" else CAMERAS[:STEREO]:
            store.ensure_group(f"drive/{camera}", np.arange(frames))
            requests += requests_for(f"drive/{camera}", range(frames), {"made": "by a benchmark"})
        run(store, requests, Pictures(kind, size), LocalExecutor(workers=len(os.sched_getaffinity(0))), kind)
    lengths = {kind: sum(file.stat().st_size for file in shards(folder, kind)) for kind in ("frames", "depth")}
    pixels = frames * size[0] * size[1]
    return {
        "frames": round(lengths["frames"] / pixels / len(CAMERAS), 3),
        "depth": round(lengths["depth"] / pixels / STEREO, 3),
    }


def shards(folder: Path, kind: str = "*") -> Iterator[Path]:
    return (file for file in folder.glob(f"{kind}.zarr/**/c/**/*") if file.is_file())


def make_samples(folder: Path, frames: int, size: tuple[int, int]) -> TrainingSamples:
    """Both stereo cameras as keys, each with the views that KITTI-360's samples have."""
    keys = np.arange(frames - FISHEYE_OFFSET - 1)
    groups, rows = [], []
    for key in range(STEREO):
        cameras = [key, 1 - key, 2, 3]
        groups.append(np.repeat([cameras], len(keys), 0).repeat(2, axis=1))
        steps = np.array([0, 1, 0, 1, *[FISHEYE_OFFSET, FISHEYE_OFFSET + 1] * 2])
        rows.append(keys[:, None] + steps)
    group = torch.from_numpy(np.concatenate(groups).astype(np.int32))
    table = SampleTable(
        groups=tuple(f"drive/{camera}" for camera in CAMERAS),
        pinhole=(True, True, False, False),
        group=group,
        row=torch.from_numpy(np.concatenate(rows).astype(np.int32)),
        key_from_view=torch.eye(4).repeat(*group.shape, 1, 1),
        intrinsics=torch.eye(3).repeat(len(CAMERAS), 1, 1),
    )
    paths = SamplePaths(folder / "frames.zarr", folder / "depth.zarr", folder / "anchors.zarr")
    return TrainingSamples(table, paths, TrainingConfig(), size, 0)


def forget(folder: Path) -> None:
    """Ask the kernel to drop the stores' pages."""
    os.sync()
    for file in shards(folder):
        handle = os.open(file, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def processor_seconds(processes: Sequence[int]) -> float:
    """User and system time of processes, threads included."""
    total = 0
    for process in processes:
        total += sum(
            int(value) for value in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
        )
    return total / os.sysconf("SC_CLK_TCK")


def proportional_mib(processes: Sequence[int]) -> float:
    """Memory of processes, what several share counted once."""
    total = 0
    for process in processes:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def family() -> list[int]:
    """This process and all that it started."""
    found = [os.getpid()]
    for process in found:
        for thread in Path(f"/proc/{process}/task").iterdir():
            found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def one_by_one(samples: TrainingSamples, batches: RunBatches, workers: int) -> Generator[Packed, None, None]:
    """The plain twin of the stream: samples one at a time, collated by torch."""
    positions = [list(share.positions) for share in batches]
    loader = DataLoader(
        samples,
        batch_sampler=positions,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=2 if workers else None,
    )
    for batch in loader:
        yield Packed(batch["images"].flatten().view(torch.uint8), ())


def measure(
    samples: TrainingSamples, batch_size: int, steps: int, workers: int, *, plain: bool = False, epochs: int = 1
) -> dict[str, Any]:
    """Read `steps` batches for each epoch, the workers' start left out of the rates.

    As many batches are read ahead when the clock is stopped as when it was started.
    """
    skipped = 1 + 2 * workers
    batches = RunBatches(0, (2 * skipped + steps * epochs) * batch_size, batch_size)
    asked = time.perf_counter()
    stream = (
        one_by_one(samples, batches, workers) if plain else load_packed(samples, batches, workers=workers, prefetch=2)
    )
    memory, room = [], torch.empty(0, dtype=torch.uint8)
    for at, packed in enumerate(stream, 1):
        if len(room) != len(packed.memory):
            room = torch.empty_like(packed.memory)
        room.copy_(packed.memory)
        if at == skipped:
            began, spent, ready = time.perf_counter(), processor_seconds(family()), time.perf_counter() - asked
        elif at > skipped and (at - skipped) % steps == 0:
            memory.append(round(proportional_mib(family()), 1))
            now, used = time.perf_counter(), processor_seconds(family())
            if len(memory) == epochs:
                break
    stream.close()
    read = steps * epochs * batch_size
    return {
        "workers": workers,
        "samples_per_s": round(read / (now - began), 1),
        "per_core": round(read / (used - spent), 1),
        "seconds_to_start": round(ready, 1),
        "memory_mib_after_epochs": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=2000, help="Rows of each of four cameras.")
    parser.add_argument("--steps", type=int, default=100, help="Batches in what is called an epoch here.")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=3, help="Of the fast way and its plain twin, with one worker.")
    parser.add_argument("--folder", type=Path, help="Where to write [default: the system's temporary folder].")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = (192, 640)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch)
        lengths = make_stores(folder, options.frames, size)
        samples = make_samples(folder, options.frames, size)
        for file in shards(folder):
            file.read_bytes()
        result: dict[str, Any] = {
            "benchmark": "loader",
            "machine": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "load_before": round(os.getloadavg()[0], 2),
            "image_size": list(size),
            "views": 8,
            "batch": options.batch,
            "samples": len(samples.table),
            "bytes_per_pixel": lengths,
        }
        turns = []
        for turn in range(options.turns):
            pair = {
                plain: measure(samples, options.batch, options.steps // (4 if plain else 1), 1, plain=plain)
                for plain in ((False, True) if turn % 2 else (True, False))
            }
            turns.append((pair[False]["per_core"], pair[True]["per_core"]))
        result["one_worker"] = {
            "per_core": statistics.median(ours for ours, _ in turns),
            "plain_per_core": statistics.median(plain for _, plain in turns),
            "ratio": round(statistics.median(ours / plain for ours, plain in turns), 2),
        }
        result["warm"] = [measure(samples, options.batch, options.steps, n, epochs=3) for n in options.workers]
        result["cold"] = []
        for workers in options.workers:
            forget(folder)
            result["cold"].append(measure(samples, options.batch, options.steps, workers))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
