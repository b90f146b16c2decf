"""Images per second at batch 1 of the trained model's three uses, full size, on one CUDA device; one JSON object.

`occupancy`: density at the 12,800 points of the evaluation grid from one image. `depth_branch`: refined depth of one
image, its prior given. `rendered_depth`: depth of all 122,880 pixels through the density field. Fast: bfloat16,
kernels, one CUDA graph. Reference: float32, uncompiled, no kernels of our own. Preparing the image is no part of it.

    python benchmarks/inference.py
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

from vipocc import config as configuration
from vipocc.model.network import ViPOcc
from vipocc.model.replay import Replayed

SIZE = (192, 640)
PERSPECTIVE = [[0.7849, 0.0, -0.0312], [0.0, 2.9391, 0.2701], [0.0, 0.0, 1.0]]


def grid(device: torch.device) -> Tensor:
    """Return the points [1, 12800, 3] of the evaluation grid: x -4..4, one height, z 20..4 (published_system 7.1)."""
    x, z = torch.linspace(-4, 4, 80, device=device), torch.linspace(20, 4, 160, device=device)
    zz, xx = torch.meshgrid(z, x, indexing="ij")
    return torch.stack([xx, torch.full_like(xx, 0.375), zz], dim=-1).reshape(1, -1, 3)


def rate(function: Callable[[], object], seconds: float) -> float:
    """Return calls per second, each waited for."""
    for _ in range(10):
        function()
    torch.cuda.synchronize()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        function()
        torch.cuda.synchronize()
        calls += 1
    return round(calls / (time.perf_counter() - began), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", default=3.0, type=float, help="for each figure")
    options = parser.parse_args()
    device = torch.device("cuda")
    torch.backends.cudnn.benchmark = True
    nothing = ("model.encoder.pretrained=none", "model.depth_branch.encoder.pretrained=none")
    config = configuration.load("vipocc", profile="official", overrides=nothing)
    torch.manual_seed(0)
    model = ViPOcc(config.model, config.data.convention).to(device, memory_format=torch.channels_last).eval()
    image, prior = torch.rand(1, 3, *SIZE, device=device), torch.full((1, 1, *SIZE), 12.0, device=device)
    k, points = torch.tensor([PERSPECTIVE], device=device), grid(device)
    uses: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
        "occupancy": (lambda x: model.density(model.encode_keys(x, k), points, k), image),
        "depth_branch": (lambda x: model.refine_depth(x, prior), image),
        "rendered_depth": (lambda x: model.render_depth(model.encode_keys(x, k), k, SIZE), image),
    }
    result: dict[str, object] = {"benchmark": "inference", "batch": 1, "size": SIZE}
    for name, (function, given) in uses.items():
        figures = {}
        for way in ("fast", "reference"):
            model.use_precision("bfloat16" if way == "fast" else "float32")
            model.fused = way == "fast"
            call = Replayed(function) if way == "fast" else torch.no_grad()(function)
            figures[way] = rate(lambda call=call, given=given: call(given), options.seconds)  # type: ignore[misc]
        result[name] = {**figures, "ratio": round(figures["fast"] / figures["reference"], 2)}
    print(json.dumps({**result, "gpu": torch.cuda.get_device_name(), "torch": torch.__version__}, indent=1))


if __name__ == "__main__":
    main()
