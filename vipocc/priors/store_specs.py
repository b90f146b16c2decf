"""What the stores of this stage hold: depth, instances and anchors (design: section 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vipocc.priors.config import MAX_INSTANCES, InstanceClass
from vipocc.priors.snog.config import SnogConfig
from vipocc.priors.snog.sampler import check_image
from vipocc.stores.spec import ArraySpec, StoreSpec


def depth_spec(dataset: str, size: tuple[int, int], stored: str) -> StoreSpec:
    """Return the specification of depth.zarr for prepared images of `size` (height, width)."""
    array = ArraySpec(
        "depth", size, stored, math.nan, ("y", "x"), "m", "depth", "metric pseudo-depth along the optical axis"
    )
    return StoreSpec("depth", (array,), attributes={"dataset": dataset})


def instances_spec(dataset: str, size: tuple[int, int], classes: Sequence[InstanceClass]) -> StoreSpec:
    """Return the specification of instances.zarr; its attributes say what the labels are and how each is sampled."""
    k = MAX_INSTANCES
    arrays = (
        ArraySpec("count", (), "uint16", 0, (), "1", "plain", "number of instances"),
        ArraySpec("label", (k,), "int16", -1, ("instance",), "1", "plain", "index into the attribute labels, -1 none"),
        ArraySpec("score", (k,), "float32", 0, ("instance",), "1", "plain", "probability, falling"),
        ArraySpec("box", (k, 4), "float32", 0, ("instance", "corner"), "px", "plain", "x0, y0, x1, y1"),
        ArraySpec("area", (k,), "uint32", 0, ("instance",), "px", "plain", "pixels of the mask before overlaps"),
        ArraySpec("masks", size, "uint8", 0, ("y", "x"), "1", "labels", "instance number + 1, largest painted first"),
    )
    attributes = {
        "dataset": dataset,
        "labels": [entry.label for entry in classes],
        "sampling": [entry.sampling for entry in classes],
    }
    return StoreSpec("instances", arrays, attributes=attributes)


def anchors_spec(dataset: str, size: tuple[int, int], snog: SnogConfig) -> StoreSpec:
    """Return the specification of anchors.zarr.

    Raises:
        UsageError: the anchors that are asked for do not surely fit into an image of `size`.
    """
    check_image(size, snog.patch, snog.anchors)
    array = ArraySpec(
        "anchors", (snog.draws, snog.anchors, 2), "uint16", 0, ("draw", "anchor", "xy"), "px", "plain",
        "centres of ray patches; a patch covers centre - patch/2 to centre + patch/2 - 1",
    )  # fmt: skip
    attributes = {"dataset": dataset, "height": size[0], "width": size[1], "patch": snog.patch}
    return StoreSpec("anchors", (array,), attributes=attributes)
