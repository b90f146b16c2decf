"""One training step at full size, fast and plain, in one run on one CUDA device; prints one JSON object.

Both do the same work on the same batch: 8 views of 192x640, 64 colour and 32 depth patches of 8x8 pixels, 64 samples
a ray, all losses, all parameters updated. `reference` is float32, uncompiled, without kernels of our own or a graph.
The batch is made as the loader would hand it over, with KITTI-360's calibration and random smooth pictures; reading is
not part of it (`loader.py`). Gradients of both ways are compared on the first batch.

    python benchmarks/train_step.py --profile official --profile paper --trace trace.txt
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vipocc import config as configuration
from vipocc.model.network import ViPOcc
from vipocc.training.captured import CapturedGradients
from vipocc.training.failure import RawPart
from vipocc.training.gradients import add_gradients
from vipocc.training.optimiser import GuardedAdam

HEIGHT, WIDTH = 192, 640
PERSPECTIVE = [[0.7849, 0.0, -0.0312], [0.0, 2.9391, 0.2701], [0.0, 0.0, 1.0]]
LOSS_VIEWS, RENDER_VIEWS = (0, 3, 4, 7), (1, 2, 5, 6)


def pose(x: float, z: float, yaw: float = 0.0, pitch: float = 0.0) -> Tensor:
    """Return key-from-view of a camera at (x, 0, z) turned about y by yaw and then about x by pitch, in degrees."""
    a, b = math.radians(yaw), math.radians(pitch)
    about_y = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    about_x = torch.tensor([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    matrix = torch.eye(4)
    matrix[:3, :3] = about_y @ about_x
    matrix[:3, 3] = torch.tensor([x, 0.0, z])
    return matrix


def raw_batch(size: int, seed: int, config: Any, device: torch.device) -> dict[str, Tensor]:
    """Return a collated batch as the loader hands it over."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(size * 8, 3, HEIGHT // 8, WIDTH // 8, generator=g)
    images = functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bilinear") * 255.0
    images = images + torch.randn(images.shape, generator=g) * 4.0
    poses = torch.stack(
        [pose(0, 0), pose(0, 1), pose(0.6, 0), pose(0.6, 1)]
        + [pose(-0.6, 10 + step, -90, -15) for step in (0, 1)]
        + [pose(1.2, 10 + step, 90, -15) for step in (0, 1)]
    )
    training = config.training
    patch = training.patch_size // 2

    def centres(count: int) -> Tensor:
        x = torch.randint(patch, WIDTH - patch + 1, (size, count), generator=g)
        y = torch.randint(patch, HEIGHT - patch + 1, (size, count), generator=g)
        return torch.stack([x, y], dim=-1).int()

    views = torch.tensor(LOSS_VIEWS).repeat_interleave(training.patches // 4).expand(size, -1)
    prior = 40.0 * torch.rand(size * 2, 1, 6, 20, generator=g) + 5.0
    batch = {
        "images": images.clamp(0, 255).byte().unflatten(0, (size, 8)).permute(0, 1, 3, 4, 2).contiguous(),
        "intrinsics": torch.tensor(PERSPECTIVE).expand(size, 8, 3, 3).contiguous(),
        "key_from_view": poses.expand(size, 8, 4, 4).contiguous(),
        "render_views": torch.tensor(RENDER_VIEWS).expand(size, 4).contiguous(),
        "centres": centres(training.patches),
        "patch_views": views.contiguous(),
        "depth_centres": centres(training.depth_patches),
        "flip": torch.rand(size, generator=g) < 0.5,
        "position": torch.arange(size),
        "index": torch.arange(size),
        "prior_depth": functional.interpolate(prior, size=(HEIGHT, WIDTH)).reshape(size, 2, HEIGHT, WIDTH).half(),
    }
    return {name: values.to(device) for name, values in batch.items()}


class Way:
    """A way of doing steps."""

    def __init__(self, config: Any, device: torch.device, *, fast: bool, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.config, self.device = config, device
        model = ViPOcc(config.model, config.data.convention)
        model = model.to(device, memory_format=torch.channels_last) if fast else model.to(device)
        self.model = model.train().use_precision("bfloat16" if fast else "float32")
        self.model.fused = fast and not options.no_fused
        if fast and not options.no_compile:
            self.model.compile_networks()
        self.captured = CapturedGradients(self.model, config, device) if fast and not options.no_graph else None
        self.optimiser = GuardedAdam(self.model, device)

    def gradients(self, raw: dict[str, Tensor], position: int) -> dict[str, Tensor]:
        part = RawPart(raw, position)
        if self.captured is not None:
            return self.captured(part)
        self.optimiser.clear()
        return add_gradients(self.model, [part.opened(self.config, self.device)], self.config.training)

    def step(self, raw: dict[str, Tensor], position: int) -> None:
        losses = self.gradients(raw, position)
        self.optimiser.apply(position, losses["total"], 1e-4)


def measure(way: Way, batches: list[dict[str, Tensor]], steps: int) -> dict[str, float]:
    """Return the median time of a step, by the device's clock, the host's time to start it, and the memory's peak."""
    began = time.perf_counter()
    for number in range(5):
        way.step(batches[number % len(batches)], number)
    torch.cuda.synchronize()
    first = time.perf_counter() - began
    torch.cuda.reset_peak_memory_stats()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    began = time.perf_counter()
    events[0].record()
    for number in range(steps):
        way.step(batches[number % len(batches)], number)
        events[number + 1].record()
    host = (time.perf_counter() - began) / steps
    torch.cuda.synchronize()
    times = sorted(a.elapsed_time(b) for a, b in itertools.pairwise(events))
    return {
        "step_ms": round(times[len(times) // 2], 2),
        "slowest_ms": round(times[-1], 2),
        "host_ms": round(1e3 * host, 2),
        "first_steps_s": round(first, 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }


def cosines(fast: Way, plain: Way, raw: dict[str, Tensor]) -> dict[str, Any]:
    """Compare the gradients of one batch at the same weights."""
    losses = [{name: float(value) for name, value in way.gradients(raw, 0).items()} for way in (fast, plain)]
    found = {}
    for (name, a), b in zip(fast.model.named_parameters(), plain.model.parameters(), strict=True):
        if a.grad is not None and b.grad is not None:
            found[name] = float(
                functional.cosine_similarity(a.grad.flatten().double(), b.grad.flatten().double(), dim=0)
            )
    ordered = sorted(found, key=found.__getitem__)
    return {
        "losses_fast": losses[0],
        "losses_reference": losses[1],
        "gradient_cosine_median": round(found[ordered[len(ordered) // 2]], 5),
        "gradient_cosine_least": {name: round(found[name], 4) for name in ordered[:4]},
        "tensors": len(found),
    }


def trace(way: Way, batches: list[dict[str, Tensor]], path: Path) -> None:
    """Write which kernels a step's time goes to."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for number in range(3):
            way.step(batches[number % len(batches)], number)
        torch.cuda.synchronize()
    table = recorded.key_averages().table(sort_by="cuda_time_total", row_limit=60, max_name_column_width=90)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"3 steps, {way.config.profile}\n{table}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="append", choices=["official", "paper"])
    parser.add_argument("--batch", default=8, type=int)
    parser.add_argument("--steps", default=50, type=int)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-graph", action="store_true")
    parser.add_argument("--no-fused", action="store_true")
    parser.add_argument("--no-reference", action="store_true")
    options = parser.parse_args()
    device = torch.device("cuda")
    torch.backends.cudnn.benchmark = True
    results = []
    for name in options.profile or ["official"]:
        nothing = ("model.encoder.pretrained=none", "model.depth_branch.encoder.pretrained=none")
        config = configuration.load(
            "vipocc", profile=name, overrides=(*nothing, f"training.batch_size={options.batch}")
        )
        batches = [raw_batch(options.batch, seed, config, device) for seed in range(4)]
        fast = Way(config, device, fast=True, options=options)
        result: dict[str, Any] = {"profile": name, "batch": options.batch, "dtype": "bfloat16"}
        plain = None
        if not options.no_reference:
            plain = Way(config, device, fast=False, options=options)
            result |= cosines(fast, plain, batches[0])
        result |= measure(fast, batches, options.steps)
        if options.trace:
            trace(fast, batches, options.trace)
        del fast
        torch.cuda.empty_cache()
        if plain is not None:
            reference = measure(plain, batches, max(10, options.steps // 5))
            result["reference_ms"] = reference["step_ms"]
            result["reference_peak_gib"] = reference["peak_gib"]
            result["ratio"] = round(reference["step_ms"] / result["step_ms"], 2)
        result["samples_per_second"] = round(1e3 * options.batch / result["step_ms"], 1)
        results.append(result)
        del plain
        torch.cuda.empty_cache()
    first, *others = results
    ways = {name: not getattr(options, f"no_{name}") for name in ("compile", "graph", "fused")}
    print(
        json.dumps(
            {
                "benchmark": "train step",
                **first,
                "others": others,
                **ways,
                "gpu": torch.cuda.get_device_name(),
                "torch": torch.__version__,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
