"""Time Depth Anything V2 as published against ours, end to end and the network alone; prints one JSON object.

Published: one image after another in float32 - read the PNG, cubic resize, network, resize back, write .npy and 8-bit
PNG. Ours: `vipocc.stores.run` with the depth computer of `vipocc priors depth`, from frames.zarr to depth.zarr,
verified and committed. The network alone: the same configuration and batch on inputs that lie on the device. Weights
are random, full-size ones made on the spot; so is the comparison of bfloat16 with float32, which wants repeating with
real ones (--model).

Usage, under three minutes on an H100 (add --compile; --model ID|FOLDER|PTH for real weights):
       python benchmarks/depth_anything.py --device cuda --size l --images 512 --published 24
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from vipocc.priors.config import DepthConfig
from vipocc.priors.depth.computer import DepthComputer
from vipocc.priors.depth.depth_anything import DepthAnything
from vipocc.priors.depth.preprocessing import network_size, preprocess_reference
from vipocc.priors.depth.random_weights import make_random_depth
from vipocc.priors.store_specs import depth_spec
from vipocc.priors.tiny import make_tiny_depth
from vipocc.stores import ArraySpec, LocalExecutor, Store, StoreReader, StoreSpec, requests_for, row_refs, run

IMAGE = (192, 640)
GROUP = "drive/image_00"


def make_model(folder: Path, size: str) -> Path:
    return make_tiny_depth(folder) if size == "tiny" else make_random_depth(folder, size)  # type: ignore[arg-type]


def make_images(count: int) -> np.ndarray:
    """Pictures uint8 [count, 192, 640, 3] of blobs, edges and grain."""
    rng = np.random.default_rng(0)
    images = np.empty((count, *IMAGE, 3), np.uint8)
    for image in images:
        blobs = rng.integers(0, 256, (6, 20, 3), np.uint8)
        image[:] = cv2.resize(blobs, IMAGE[::-1], interpolation=cv2.INTER_CUBIC) // 2
        for _ in range(20):
            x, y, w, h = (int(rng.integers(0, n)) for n in (600, 170, 120, 60))
            cv2.rectangle(image, (x, y), (x + w, y + h), [int(c) for c in rng.integers(0, 200, 3)], -1)
        image += rng.integers(0, 40, image.shape, np.uint8)
    return images


def published(model: DepthAnything, files: list[Path], folder: Path) -> float:
    """Return images a second, one after another, torch's own defaults for float32."""
    size = network_size(*IMAGE, model.config.short_side, 14)

    def one(file: Path) -> None:
        image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        pixels = preprocess_reference(image[None], size).to(model.device)
        depth = model.network(pixel_values=pixels).predicted_depth
        depth = nn.functional.interpolate(depth[:, None], IMAGE, mode="bilinear", align_corners=True)[0, 0]
        values = depth.cpu().numpy()
        np.save(folder / file.with_suffix(".npy").name, values)
        cv2.imwrite(str(folder / file.name), (values / 80 * 255).astype(np.uint8))

    with torch.inference_mode():
        one(files[0])
        start = time.perf_counter()
        for file in files:
            one(file)
    return len(files) / (time.perf_counter() - start)


class Opened:
    """The depth computer, opened beforehand: loading, trying batches out and compiling are no part of the rate."""

    def __init__(self, computer: DepthComputer) -> None:
        self.compute, self.notes, self.rows_per_call = computer.compute, computer.notes, computer.rows_per_call
        self.units_at_once = computer.units_at_once

    def open(self, device: str) -> None: ...

    def close(self) -> None: ...


def ours(computer: DepthComputer, folder: Path, count: int, device: str) -> tuple[float, int]:
    """Return images a second from frames.zarr to depth.zarr, and the batch size."""
    reader = StoreReader(folder / "frames.zarr")
    spec = depth_spec("benchmark", IMAGE, computer.config.stored)
    refs = {row: [ref] for row, ref in row_refs(reader, GROUP, range(count)).items()}
    computer.open(device)
    opened = Opened(computer)
    opened.compute(requests_for(GROUP, [0], {})[0].unit, range(min(count, opened.rows_per_call)))
    store = Store.create_or_open(folder / "depth.zarr", spec, folder)
    store.ensure_group(GROUP, np.arange(count))
    done = run(store, requests_for(GROUP, range(count), {"model": "random"}, refs), opened, LocalExecutor((device,)))
    assert done.rows == count
    return count / done.seconds, opened.notes()["batch_size"]


def network_alone(model: DepthAnything, images: np.ndarray, count: int) -> float:
    """Return images a second of the network on inputs that lie on the device."""
    size = model.batch.size
    batch = np.resize(images, (size, *images.shape[1:]))
    with torch.inference_mode():
        pixels = model.processing.forward(torch.from_numpy(batch).to(model.device))
        rounds = max(1, count // size)
        for timed in (False, True):
            _wait(model.device)
            start = time.perf_counter()
            for _ in range(rounds if timed else 1):
                model.infer(pixels)
            _wait(model.device)
    return rounds * size / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def write_frames(folder: Path, images: np.ndarray, count: int) -> None:
    class Frames:
        rows_per_call = 64

        def open(self, device: str) -> None: ...

        def close(self) -> None: ...

        def compute(self, unit: Any, rows: Any) -> dict[str, np.ndarray]:
            return {"rgb": images[np.asarray(rows) % len(images)]}

    array = ArraySpec("rgb", (*IMAGE, 3), "uint8", 0, ("y", "x", "channel"), "1", "image")
    store = Store.create_or_open(folder / "frames.zarr", StoreSpec("frames", (array,)), folder)
    store.ensure_group(GROUP, np.arange(count))
    run(store, requests_for(GROUP, range(count), {"made": "up"}), Frames())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="tiny", choices=["tiny", "s", "b", "l"])
    parser.add_argument("--model", help="a real one, in the place of random weights")
    parser.add_argument("--max-depth", type=float)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch-size", default="auto")
    parser.add_argument("--input-size", default="published", choices=["published", "native"])
    parser.add_argument("--images", type=int, help="of our way [default: 512 on CUDA, 8 else]")
    parser.add_argument("--published", type=int, help="images of the published way [default: 24 on CUDA, 2 else]")
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    options.images = options.images or (512 if cuda else 8)
    options.published = options.published or (24 if cuda else 2)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(options, Path(name), cuda), indent=1))


def measure(options: argparse.Namespace, folder: Path, cuda: bool) -> dict[str, Any]:
    begun = time.perf_counter()
    weights = options.model or str(make_model(folder / "weights", options.size))
    batch_size = options.batch_size if options.batch_size == "auto" else int(options.batch_size)
    config = DepthConfig(
        model=weights, max_depth=options.max_depth, dtype=options.dtype or ("bfloat16" if cuda else "float32"),
        batch_size=batch_size, compiled=options.compile, input_size=options.input_size,
    )  # fmt: skip
    images = make_images(64)
    files = [folder / f"{k:04}.png" for k in range(options.published)]
    for file, image in zip(files, np.resize(images, (len(files), *images.shape[1:])), strict=True):
        cv2.imwrite(str(file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    (folder / "published").mkdir()
    write_frames(folder, images, options.images)
    prepared = time.perf_counter()
    exact = config.model_copy(
        update={"dtype": "float32", "compiled": False, "batch_size": 1, "stored": "float32", "input_size": "published"}
    )
    plain = DepthAnything(exact, options.device)
    rates = {"published_img_s": published(plain, files, folder / "published")}
    full = plain(images[: min(20, options.images)])
    del plain
    published_done = time.perf_counter()
    computer = DepthComputer(folder / "frames.zarr", config)
    rates["ours_img_s"], found = ours(computer, folder, options.images, options.device)
    model = computer._model
    assert model is not None
    rates["network_alone_img_s"] = network_alone(model, images, options.images)
    sent = model.processing.forward(torch.from_numpy(images[:1]).to(model.device)).shape[2:]
    stored = StoreReader(folder / "depth.zarr").read_many(GROUP, range(min(20, options.images))).astype(np.float64)
    difference = np.abs(stored / full[: len(stored)] - 1)
    return {
        "benchmark": "depth_anything",
        "machine": torch.cuda.get_device_name() if cuda else f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "weights": options.model or f"random, size {options.size}",
        "image": "x".join(map(str, IMAGE)),
        "network_input": "x".join(map(str, sent)),
        "dtype": config.dtype,
        "compiled": config.compiled,
        "batch_size": found,
        "images": options.images,
        "published_images": options.published,
        **{name: round(value, 2) for name, value in rates.items()},
        "ours_over_published": round(rates["ours_img_s"] / rates["published_img_s"], 2),
        "ours_over_network_alone": round(rates["ours_img_s"] / rates["network_alone_img_s"], 3),
        "stored_against_float32": {
            "images": len(stored),
            "median_relative_difference": float(np.median(difference)),
            "99th_percentile": float(np.percentile(difference, 99)),
            "largest": float(difference.max()),
        },
        "peak_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None,
        "seconds": {
            "weights_and_frames": round(prepared - begun, 1),
            "published": round(published_done - prepared, 1),
            "ours": round(time.perf_counter() - published_done, 1),
        },
    }  # fmt: skip


if __name__ == "__main__":
    main()
