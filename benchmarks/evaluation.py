"""Rate of evaluating the slice protocol against that of encoder and grid query alone; prints one JSON object.

Alone: images that lie on the device, one batch after another, replayed as a CUDA graph where there is CUDA, waited for
once at the end. Evaluated: `evaluate_occupancy` as `vipocc eval occupancy` calls it, from frames.zarr and precomputed
ground truth to the rows of the report (two constant guesses beside the network), with one resample; what the
bootstrap's others and writing the report take stands apart, since it does not grow with the time of a frame. Weights
are random, frames and ground truth are made on the spot.

Usage, on an H100 (a minute or two):
       python benchmarks/evaluation.py --device cuda --frames 2048 --json-file results.json
On a small machine:
       python benchmarks/evaluation.py --device cpu --preset demo --size 96 320 --frames 64
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from vipocc import config as configuration
from vipocc.data_manifests.manifest import CameraTable, FrameKey, Manifest, SequenceTable
from vipocc.data_manifests.preparation.frames import frames_spec
from vipocc.data_manifests.preparation.occupancy import occupancy_spec
from vipocc.evaluation.inputs import FrameSource, untrained_model
from vipocc.evaluation.metrics import aggregate_all
from vipocc.evaluation.occupancy import evaluate_occupancy, lidar_truth
from vipocc.evaluation.predictors.network import NetworkOccupancy
from vipocc.evaluation.protocols import slice_protocol
from vipocc.evaluation.rows import ShardRows
from vipocc.evaluation.speed.run import machine
from vipocc.evaluation.speed.timing import synchronise
from vipocc.evaluation.speed.uses import example, uses_of
from vipocc.geometry.cameras import Pinhole
from vipocc.stores import LocalExecutor, Store, StoreReader, StoreSpec, requests_for, run
from vipocc.stores.spec import Unit

SEQUENCE, CAMERA = "drive", "image_00"
SLICE = (160, 80)


class Pictures:
    """Writes images of blobs, edges and grain, which compress about as far as photographs."""

    rows_per_call = 16

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def open(self, device: str) -> None: ...

    def compute(self, unit: Unit, rows: Sequence[int]) -> Mapping[str, NDArray[Any]]:
        return {"rgb": np.stack([self._picture(row) for row in rows])}

    def close(self) -> None: ...

    def notes(self) -> dict[str, Any]:
        return {}

    def _picture(self, row: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng(row)
        coarse = rng.integers(0, 216, (6, 20, 3), np.uint8)
        image = cv2.resize(coarse, self.size[::-1], interpolation=cv2.INTER_CUBIC)
        return np.asarray(image // 2 + rng.integers(0, 24, image.shape, np.uint8), np.uint8)


class Slices(Pictures):
    """Writes ground truth: a wall with a gap, seen up to it, and a handful of objects."""

    def compute(self, unit: Unit, rows: Sequence[int]) -> Mapping[str, NDArray[Any]]:
        made: dict[str, list[NDArray[Any]]] = {"occupied": [], "visible": [], "object": []}
        for row in rows:
            rng = np.random.default_rng(row)
            wall = rng.integers(20, 90, SLICE[1] // 8).repeat(8)
            behind = np.arange(SLICE[0])[:, None] < wall
            objects = np.where(behind, 255, 0).astype(np.uint8)
            for number in range(1, 6):
                top, left = rng.integers(90, 140), rng.integers(0, 70)
                objects[top : top + 12, left : left + 8] = number
            made["occupied"].append((objects > 0).astype(np.uint8))
            made["visible"].append((~behind & (rng.random(SLICE) < 0.7)).astype(np.uint8))
            made["object"].append(objects)
        count = len(rows)
        known = {"objects_known": np.ones(count, np.uint8), "sweeps": np.full(count, 300, np.uint16)}
        return {**{name: np.stack(values) for name, values in made.items()}, **known}


def make_store(folder: Path, spec: StoreSpec, group: str, frames: int, computer: Pictures) -> StoreReader:
    path = folder / f"{spec.kind}.zarr"
    store = Store.create_or_open(path, spec, folder)
    store.ensure_group(group, np.arange(frames))
    run(store, requests_for(group, range(frames), {}), computer, LocalExecutor(("cpu",)))
    return StoreReader(path)


def make_manifest(frames: int, size: tuple[int, int]) -> Manifest:
    poses = np.tile(np.eye(4), (frames, 1, 1))
    height, width = size
    camera = CameraTable(
        Pinhole(0.39 * width, 1.47 * height, 0.484 * width, 0.635 * height, width, height),
        pa.array([f"{number}.png" for number in range(frames)]),
        np.full(frames, 1),
        poses,
        np.full(frames, 1 << 6, np.uint16),
    )
    ids, unknown = np.arange(frames), pa.array([None] * frames, pa.string())
    table = SequenceTable(ids, np.full(frames, np.nan), poses, unknown, {CAMERA: camera})
    return Manifest("synthetic", Path("world"), {SEQUENCE: table})


def alone(model: Any, size: tuple[int, int], batch: int, device: torch.device, frames: int) -> float:
    """Return images a second of encoder and query; the best of three rounds."""
    call = uses_of(model, example(batch, size, device))["occupancy"].call(graphed=True)
    rates = []
    for _ in range(4):
        synchronise(device)
        began = time.perf_counter()
        for _ in range(-(-frames // batch)):
            call()
        synchronise(device)
        rates.append(-(-frames // batch) * batch / (time.perf_counter() - began))
    return max(rates[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--preset", default="vipocc")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--size", type=int, nargs=2, default=[192, 640])
    parser.add_argument("--frames", type=int, default=2048)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--cudnn-benchmark", action="store_true", help="try algorithms out; `vipocc eval` does not")
    parser.add_argument("--json-file", type=Path, help="also write the result here")
    options = parser.parse_args()
    device, size = torch.device(options.device), (options.size[0], options.size[1])
    torch.backends.cudnn.benchmark = options.cudnn_benchmark
    overrides = [f"data.image_size=[{size[0]},{size[1]}]", "model.encoder.pretrained=none"]
    overrides += ["model.depth_branch.kind=none", f"training.dtype={options.dtype}"]
    protocol = slice_protocol()
    result: dict[str, Any] = {"benchmark": "evaluation", "preset": options.preset, "dtype": options.dtype}
    result |= {"size": size, "frames": options.frames, "protocol": protocol.name, "batches": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = configuration.load(options.preset, overrides=overrides)
        frames = make_store(
            folder, frames_spec("synthetic", config.data), f"{SEQUENCE}/{CAMERA}", options.frames, Pictures(size)
        )
        truths = make_store(
            folder, occupancy_spec("synthetic"), f"{protocol.name}/{SEQUENCE}", options.frames, Slices(size)
        )
        manifest = make_manifest(options.frames, size)
        keys = [FrameKey(SEQUENCE, CAMERA, row) for row in range(options.frames)]
        model = untrained_model(config, device)
        for batch in options.batch:
            network = NetworkOccupancy("network", "untrained", model)

            def evaluate(
                some: Sequence[FrameKey], resamples: int, batch: int = batch, network: Any = network
            ) -> tuple[Any, float]:
                chosen = configuration.load(
                    options.preset,
                    overrides=[*overrides, f"evaluation.batch_size={batch}", f"evaluation.resamples={resamples}"],
                )
                source = FrameSource(manifest, frames, chosen)
                began = time.perf_counter()
                report = evaluate_occupancy(
                    [network],
                    source,
                    some,
                    lidar_truth(ShardRows(truths), protocol),
                    protocol,
                    split="test",
                    device=device,
                )
                return report, time.perf_counter() - began

            bare = alone(model, size, batch, device, options.frames)
            # Graphs are recorded, algorithms tried out, files come into the system's cache.
            evaluate(keys[: max(4 * batch, 64)], 1)
            plain = [evaluate(keys, 1)[1] for _ in range(2)]
            report, _ = evaluate(keys, 1)
            began = time.perf_counter()
            for row in report.rows:
                aggregate_all([values for _, values in row.per_frame], 1000)
            bootstrap = time.perf_counter() - began
            began = time.perf_counter()
            report.save(folder / "reports")
            saving = time.perf_counter() - began
            rate = options.frames / min(plain)
            result["batches"][batch] = {
                "encoder_and_query": round(bare, 1),
                "evaluation": round(rate, 1),
                "ratio": round(rate / bare, 3),
                "with_bootstrap_and_report": round(options.frames / (min(plain) + bootstrap + saving), 1),
                "bootstrap_s": round(bootstrap, 2),
                "report_s": round(saving, 2),
            }
    result |= {**machine(device), "cudnn.benchmark": options.cudnn_benchmark, "python": platform.python_version()}
    print(json.dumps(result, indent=1))
    if options.json_file:
        options.json_file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
