"""Time the density field against its plain twin, and the narrow 2D networks; prints one JSON object.

Times are CPU seconds of the process (wall-clock on CUDA), the best of some repeats, so that other work on the machine
disturbs them little. Usage: python benchmarks/field.py [--device cuda] [--points 300000] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable

import torch

from vipocc.model.config import (
    DecoderConfig,
    DepthBranchConfig,
    EncoderConfig,
    FieldConfig,
    ModelConfig,
)
from vipocc.model.field import PointQuery, density_at
from vipocc.model.network import ViPOcc
from vipocc.model.renderer import sample_distances

BATCH, SAMPLES, SIZE = 2, 64, (96, 320)


def milliseconds(function: Callable[[], None], device: str, repeats: int) -> float:
    clock = time.perf_counter if device == "cuda" else time.process_time
    best = float("inf")
    for _ in range(repeats + 1):  # the first call warms up and cannot be the best
        if device == "cuda":
            torch.cuda.synchronize()
        start = clock()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, clock() - start)
    return round(best * 1e3, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--points", default=300_000, type=int)
    parser.add_argument("--threads", default=1, type=int)
    parser.add_argument("--repeats", default=3, type=int)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = options.device

    narrow = EncoderConfig(name="resnet18", width=0.25, pretrained="none")
    config = ModelConfig(
        encoder=narrow,
        decoder=DecoderConfig(widths=(16, 16, 32, 32, 64), channels=32),
        field=FieldConfig(hidden=32),
        depth_branch=DepthBranchConfig(encoder=narrow, widths=(8, 16, 32, 32, 64), channels=16),
    )
    model = ViPOcc(config).to(device)
    images = torch.rand(BATCH, 3, *SIZE, device=device)
    intrinsics = torch.tensor([[0.7849, 0.0, -0.0312], [0.0, 2.9391, 0.2701], [0.0, 0.0, 1.0]], device=device)
    intrinsics = intrinsics.expand(BATCH, 3, 3)
    features = model.encode(images).detach().requires_grad_()

    rays = options.points // (BATCH * SAMPLES)
    unit = torch.randn(BATCH, rays, 3, device=device) * 0.4
    unit[..., 2] = 1.0
    unit = unit / unit.norm(dim=-1, keepdim=True)
    distances = sample_distances(3.0, 80.0, SAMPLES, (BATCH, rays), device=device)
    central = PointQuery.of_central_rays(unit, distances, intrinsics)
    general = central.flat()
    chunk = 65_536 if device == "cpu" else None

    def fast(query: PointQuery) -> Callable[[], None]:
        return lambda: density_at(model.head, model.head.prepare(features), query, chunk).sum().backward()

    result = {
        "benchmark": "field",
        "machine": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "threads": options.threads,
        "clock": "wall" if device == "cuda" else "cpu",
        "points": BATCH * rays * SAMPLES,
        "hidden": config.field.hidden,
        "image_size": list(SIZE),
        "batch": BATCH,
        "encode_ms": milliseconds(lambda: model.encode(images).sum().backward(), device, options.repeats),
        "field_ms": milliseconds(fast(general), device, options.repeats),
        "central_rays_ms": milliseconds(fast(central), device, options.repeats),
        "reference_ms": milliseconds(
            lambda: model.head.reference(features, general).sum().backward(), device, options.repeats
        ),
    }
    result["ratio"] = round(result["reference_ms"] / result["field_ms"], 2)
    result["central_ratio"] = round(result["reference_ms"] / result["central_rays_ms"], 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
