"""One optimiser step's gradient in float64, at once or shared; run as a script it is one of two processes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vipocc import config as configuration
from vipocc.model.network import ViPOcc
from vipocc.training.batch import Batch
from vipocc.training.distributed import ALONE, GradientSum, Ranks, joined
from vipocc.training.gradients import Part, add_gradients
from vipocc.training.step import prepare

CPU = torch.device("cpu")

#: Name: (profile, more overrides).
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "paper": ("paper", ()),
    "official": ("official", ("data.convention=centre", "data.resize=area")),
    "no depth branch": ("paper", ("training.loss.depth=0", "training.loss.temporal=0")),
    "bts": ("paper", ("model.depth_branch.kind=none", "training.loss.smoothness=0.001")),
}

#: What two processes do: cases and the parts of each one's share.
SHARED = (("paper", 1), ("paper", 2), ("official", 2), ("no depth branch", 1))


def configured(case: str) -> Any:
    from tiny_world import OVERRIDES

    profile, more = CASES[case]
    return configuration.load("demo", profile=profile, overrides=(*OVERRIDES, "training.sample_jitter=false", *more))


def a_model(config: Any) -> ViPOcc:
    """The same model every time, in float64 and with batch normalisation in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = ViPOcc(config.model, "centre").double()
        for buffer in (b for name, b in model.named_buffers() if name.endswith("running_var")):
            buffer.uniform_(0.5, 2.0)
    return model.eval()


def in_float64(batch: Batch) -> Batch:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(
        batch, **{n: v.double() for n, v in values.items() if isinstance(v, Tensor) and v.is_floating_point()}
    )


def uneven(raw: dict[str, Tensor], case: str) -> dict[str, Tensor]:
    """Samples that count differently: of the second hardly anything, of the fourth half."""
    raw = {name: values.clone() for name, values in raw.items()}
    raw["key_from_view"][1, 1, 0, 3] += 6.0  # at t + 1 most of it is out of sight
    if case == "official":
        # One set of choices for the whole batch, as the stream reads it; a missing prior would make the loss NaN.
        for name in ("render_views", "centres", "patch_views", "depth_centres", "flip"):
            raw[name] = raw[name][:1].expand_as(raw[name])
    else:
        raw["prior_depth"][1, :, :, 5:] = torch.nan
        raw["prior_depth"][3, :, 32:] = torch.nan
    return raw


def cut(raw: dict[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    size = len(raw["index"]) // count
    return [{n: v[at * size : (at + 1) * size] for n, v in raw.items()} for at in range(count)]


def opened(raw: dict[str, Tensor], config: Any, device: torch.device = CPU) -> Part:
    return lambda: (in_float64(prepare(raw, config.training, device)), None)


def gradients(
    config: Any, raws: Sequence[dict[str, Tensor]], ranks: Ranks = ALONE, device: torch.device = CPU
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses, and gradients by name, of two passes, the second of which overlaps its sums with the backward pass."""
    model = a_model(config).to(device)
    parameters = list(model.parameters())
    reducer = GradientSum(parameters, ranks, bucket_bytes=20_000) if ranks.world > 1 else None
    for _ in range(2):
        model.zero_grad()
        losses = add_gradients(
            model, [opened(raw, config, device) for raw in raws], config.training, ranks=ranks, reducer=reducer
        )
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    return losses, found


def main(folder: Path, device: torch.device) -> None:
    torch.set_num_threads(1)
    raw = torch.load(folder / "raw.pt", weights_only=True)
    with joined(device, f"file://{folder / 'meeting'}") as ranks:
        for case, parts in SHARED:
            share = cut(uneven(raw, case), ranks.world)[ranks.rank]
            found = gradients(configured(case), cut(share, parts), ranks, device)
            torch.save(found, folder / f"{case}-{parts}-{ranks.rank}.pt")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(Path(sys.argv[1]), torch.device(sys.argv[2]))
