"""Table 9: weights, and images per second of occupancy and of depth, with all that decides such a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vipocc.evaluation.metrics import Aggregate
from vipocc.evaluation.protocols import Protocol
from vipocc.evaluation.published import published_table, rows_beside
from vipocc.evaluation.report import Report, Row
from vipocc.evaluation.speed.foundation import Foundation
from vipocc.evaluation.speed.parameters import Parameters, count_parameters
from vipocc.evaluation.speed.timing import LEAST, WARM_UP, Timing, time_calls
from vipocc.evaluation.speed.uses import example, uses_of
from vipocc.model.network import ViPOcc
from vipocc.progress import progress

METRICS = ("parameters", "parameters_total", "parameters_trained", "occupancy_fps", "depth_fps")


@dataclass(frozen=True)
class SpeedProtocol(Protocol):
    """What a figure of speed is."""

    images: int = 446
    """That are predicted, as many as the published figures are of; of the same noise at every run."""
    points: int = 12_800
    """At which occupancy is queried: the slice of the occupancy protocols."""
    depth_pixels: str = "all"
    warm_up: int = WARM_UP
    """Calls before the clock starts."""
    least_repetitions: int = LEAST
    synchronised: str = "before the clock starts and after every call"
    included: str = "an image in the device's memory to a result there; no reading, decoding or copying"


def evaluate_speed(
    model: ViPOcc,
    size: tuple[int, int],
    *,
    name: str,
    dataset: str,
    device: torch.device,
    batches: Sequence[int] = (1, 16),
    images: int = 446,
    graphed: bool = True,
    foundation: Foundation | None = None,
    maps: Callable[[int], Mapping[str, Tensor]] | None = None,
) -> Report:
    """Time a model and count its weights.

    Args:
        model: in evaluation mode, in the precision to be timed, on `device`.
        size: of the images, (height, width).
        name: what the rows call the model.
        dataset: of the workspace, for the report.
        device: where the model is.
        batches: images at once, a set of rows for each.
        images: images of each figure.
        graphed: whether networks are replayed as CUDA graphs, as evaluations on CUDA do.
        foundation: the model that gives the branch its prior, where it is to be had.
        maps: gives per-pixel maps for so many images, for a density head that asks for them.
    """
    protocol = SpeedProtocol("table-9", 1, images=images)
    parameters = count_parameters(model, maps(1) if maps else None)
    rows: list[Row] = []
    repetitions: dict[str, int] = {}
    figures = len(batches) * (2 + (model.depth_branch is not None) + 2 * (foundation is not None))
    with progress("speed", figures, "figures") as bar, _fastest(device):
        for batch in batches:
            given = example(batch, size, device)
            timings: dict[str, Timing] = {}

            def add(what: str, call: Callable[[], object], batch: int = batch, into: Any = timings) -> None:
                into[what] = time_calls(call, batch, device, images=images)
                repetitions[f"{what}, batch {batch}"] = len(into[what].rates)
                bar.advance()

            uses = uses_of(model, given, maps(batch) if maps else None)
            for what, use in uses.items():
                add(what, use.call(graphed=graphed))
            if foundation is not None:
                pictures, prior = given.bytes, given.prior
                add("foundation", foundation.call(pictures))
                if "depth_branch" in uses:
                    branch = uses["depth_branch"].call(graphed=graphed)

                    def both(
                        pictures: Tensor = pictures, prior: Tensor = prior, branch: Callable[[], object] = branch
                    ) -> object:
                        # Where the branch, recorded or not, looks for its prior.
                        prior.copy_(foundation.depth(pictures))
                        return branch()

                    add("both", both)
            rows += _rows(name, batch, timings, parameters, foundation)
    described = {**protocol.describe(), "digest": protocol.digest}
    published = rows_beside("speed", dataset, "test", described, images)
    table = published_table("table-9")
    return Report(
        kind="speed",
        dataset=dataset,
        split="test",
        protocol=described,
        metrics=METRICS,
        rows=[*rows, *published],
        used=(),
        notes=[
            f"Images per second of {size[0]}x{size[1]}: the median over repetitions and, in brackets, their 5th and "
            f"95th percentile; n counts repetitions. Each call was waited for; {WARM_UP} calls (fewer where they are "
            "slow) came before the clock.",
            "Weights are counted by what reaches a prediction: used, held in all, and used ones that training changes; "
            "a depth row counts what depth needs.",
            _told_foundation(model, foundation),
            f"Published rows were measured on {table.protocol}. {table.remark}",
        ],
        settings={
            "device": str(device),
            "batches": list(batches),
            "repetitions": repetitions,
            "parameters": {"total": parameters.total, "trained": parameters.trained, "used": parameters.used}
            | {f"used for {use}": number for use, number in parameters.by_use.items()},
        },
    )


def _rows(
    name: str, batch: int, timings: Mapping[str, Timing], parameters: Parameters, foundation: Foundation | None
) -> list[Row]:
    """The rows of a batch size: as Table 9 has them, then each other way to depth."""
    own = "depth_branch" if "depth_branch" in timings else "rendered_depth"
    counted = {
        "parameters": _exactly(parameters.used),
        "parameters_total": _exactly(parameters.total),
        "parameters_trained": _exactly(parameters.trained),
    }
    speeds = {"occupancy_fps": _rate(timings["occupancy"]), "depth_fps": _rate(timings[own])}
    depth = "depth of the branch, its prior given" if own == "depth_branch" else "rendered depth"
    rows = [Row(f"{name}, batch {batch}", "measured", {**counted, **speeds}, depth)]

    def of_depth(what: str, timing: str, weights: int, note: str) -> Row:
        values = {"parameters": _exactly(weights), "depth_fps": _rate(timings[timing])}
        return Row(f"{what}, batch {batch}", "prior" if timing == "foundation" else "measured", values, note)

    if own == "depth_branch":
        weights = parameters.by_use["rendered_depth"]
        rows.append(of_depth(f"{name}, rendered depth", "rendered_depth", weights, "all pixels through the field"))
    if foundation is not None:
        if "both" in timings:
            weights = parameters.by_use["depth_branch"] + foundation.parameters
            note = f"with the foundation model's share, in {foundation.precision}"
            rows.append(of_depth(f"{name}, branch after {foundation.name}", "both", weights, note))
        note = f"the foundation model alone, in {foundation.precision}"
        rows.append(of_depth(foundation.name, "foundation", foundation.parameters, note))
    return rows


def _told_foundation(model: ViPOcc, foundation: Foundation | None) -> str:
    if foundation is not None:
        return f"The branch's prior is {foundation.name}: its row with that share is what a new image costs."
    if model.depth_branch is None or not model.depth_branch.needs_prior:
        return "Depth needs no foundation model."
    return (
        "The branch needs a foundation model's depth for every image, whose share was not measured: its weights are "
        "not on this machine (give --depth-model)."
    )


def _rate(timing: Timing) -> Aggregate:
    return Aggregate(timing.median, *timing.spread, len(timing.rates))


def _exactly(weights: int) -> Aggregate:
    return Aggregate(weights / 1e6, math.nan, math.nan, 0)


@contextmanager
def _fastest(device: torch.device) -> Iterator[None]:
    """Let cuDNN try its algorithms out, in the warm-up."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
