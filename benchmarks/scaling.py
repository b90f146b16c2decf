"""Training steps of several processes beside those of one, in one run; the first process prints one JSON object.

    torchrun --nproc-per-node 2 benchmarks/scaling.py

Every process first does steps of its own, summing nothing (`alone_ms`, the slowest of them), then the same steps
together (`shared_ms`): batch, work and memory of each device are the same and what is added is the sum of counts and
gradients. `efficiency` is their ratio; `overlap_off_ms` sums the gradients only after the backward pass. Kernels are
started one by one in all of them, as they are in runs of several processes (no CUDA graph).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed
from train_step import raw_batch

from vipocc import config as configuration
from vipocc.model.network import ViPOcc
from vipocc.training.distributed import ALONE, GradientSum, Ranks, device_here, joined
from vipocc.training.failure import RawPart
from vipocc.training.gradients import add_gradients
from vipocc.training.optimiser import GuardedAdam


class SumAfterwards:
    """The plain twin of `GradientSum`: one sum for each gradient when all are there."""

    def __init__(self, model: ViPOcc) -> None:
        self.model = model

    def sum(self) -> None:
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                distributed.all_reduce(parameter.grad)


def milliseconds(step: Callable[[int], None], steps: int, device: torch.device, ranks: Ranks) -> float:
    """Return the time of a step in the slowest process."""
    for number in range(3):
        step(number)
    ranks.meet()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    for number in range(steps):
        step(number)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    took = 1000.0 * (time.perf_counter() - began) / steps
    return max(ranks.tell(ranks.collect(took)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="paper", choices=["official", "paper"])
    parser.add_argument("--batch", default=8, type=int, help="samples of each process")
    parser.add_argument("--steps", default=30, type=int)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("-o", "--override", action="append", default=[])
    options = parser.parse_args()
    chosen = "cuda" if options.device == "auto" and torch.cuda.is_available() else options.device.replace("auto", "cpu")
    device = torch.device(device_here(chosen))
    nothing = ("model.encoder.pretrained=none", "model.depth_branch.encoder.pretrained=none")
    config = configuration.load("vipocc", profile=options.profile, overrides=(*nothing, *options.override))
    with joined(device) as ranks:
        torch.manual_seed(0)
        model = ViPOcc(config.model, config.data.convention).to(device).train()
        if device.type == "cuda":
            model = model.to(memory_format=torch.channels_last)
        optimiser = GuardedAdam(model, device)
        part = RawPart(raw_batch(options.batch, ranks.rank, config, device), options.batch * ranks.rank)
        later = SumAfterwards(model)

        def steps_of(together: Ranks, reducer: Any, after: bool = False) -> Callable[[int], None]:
            def step(number: int) -> None:
                optimiser.clear()
                opened = [part.opened(config, device)]
                losses = add_gradients(model, opened, config.training, ranks=together, reducer=reducer)
                if after:
                    later.sum()
                optimiser.apply(number, losses["total"], 1e-6)

            return step

        found: dict[str, Any] = {"alone_ms": milliseconds(steps_of(ALONE, None), options.steps, device, ranks)}
        if ranks.world > 1:
            found["overlap_off_ms"] = milliseconds(steps_of(ranks, None, after=True), options.steps, device, ranks)
            reducer = GradientSum(optimiser.parameters, ranks)
            found["shared_ms"] = milliseconds(steps_of(ranks, reducer), options.steps, device, ranks)
        shared = found.get("shared_ms", found["alone_ms"])
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        found = {key: round(value, 2) for key, value in found.items()}
        found |= {
            "efficiency": round(found["alone_ms"] / shared, 4),
            "samples_per_second": round(1000.0 * options.batch * ranks.world / shared, 1),
            "processes": ranks.world,
            "batch_of_each": options.batch,
            "profile": options.profile,
            "device": name,
            "torch": torch.__version__,
        }
        if ranks.first:
            print(json.dumps(found))


if __name__ == "__main__":
    main()
