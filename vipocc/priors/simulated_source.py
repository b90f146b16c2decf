"""Computes depth and instances of the synthetic world from its exact truth, in the place of the networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vipocc.priors.config import InstanceClass, SimulatedConfig
from vipocc.priors.grounded_sam.records import pack
from vipocc.priors.simulated import VERSION, simulate_depth, simulate_instances
from vipocc.stores import StoreReader, Unit

if TYPE_CHECKING:
    from vipocc.data_manifests.synthetic.exact import ExactTruth


def simulated_fingerprint(config: SimulatedConfig, seed: int, **more: Any) -> dict[str, Any]:
    """Return everything that decides a simulated prior but the world; no model stands behind it."""
    return {
        "model": "simulated from the exact truth",
        "revision": None,
        "digest": None,
        "licence": "none, no model ran",
        "preprocessing": VERSION,
        "seed": seed,
        "faults": config.model_dump(mode="json"),
        **more,
    }


@dataclass
class _Simulated:
    """What both simulated computers share; picklable until opened."""

    root: Path
    """Of the synthetic world."""
    frames: Path
    """frames.zarr, for the frame ids of the rows."""
    size: tuple[int, int]
    """Height and width of the prepared images."""
    config: SimulatedConfig
    seed: int
    rows_per_call: int = 8
    _cost: ClassVar[tuple[float, float]]
    """Seconds per row, and per row and pixel, on one core."""
    _truth: ExactTruth | None = field(default=None, init=False, repr=False)
    _reader: StoreReader | None = field(default=None, init=False, repr=False)

    def open(self, device: str) -> None:
        """Open the exact truth; nothing here runs on an accelerator."""
        from vipocc.data_manifests.synthetic.exact import ExactTruth

        self._truth, self._reader = ExactTruth(self.root), StoreReader(self.frames)

    def close(self) -> None:
        """Let go of the truth and the reader."""
        self._truth = self._reader = None

    def seconds_per_row(self, device: str, size: tuple[int, int]) -> float:
        """Return the time that one image of `size` takes on a core of the 2020s."""
        fixed, per_pixel = self._cost
        return fixed + per_pixel * size[0] * size[1]

    def _places(self, unit: Unit, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return where each row is, as the draws and the truth name it."""
        assert self._reader is not None
        sequence, camera = unit.group.split("/")
        ids = self._reader.frame_ids(unit.group)
        return [{"sequence": sequence, "camera": camera, "row": int(row), "frame_id": int(ids[row])} for row in rows]

    def _faults(self, place: Mapping[str, Any]) -> dict[str, Any]:
        where = {name: place[name] for name in ("sequence", "camera", "row")}
        return {**where, "seed": self.seed, "height": self.size[0], "width": self.size[1]}


@dataclass
class SimulatedDepthComputer(_Simulated):
    """Depth with a network's faults."""

    stored: str = "float16"
    _cost = (0.008, 3e-8)

    def compute(self, unit: Unit, rows: Sequence[int]) -> Mapping[str, NDArray[Any]]:
        """Return depth [len(rows), H, W] in metres."""
        assert self._truth is not None
        maps = [
            simulate_depth(
                self._truth.depth(place["sequence"], place["camera"], place["frame_id"]),
                self.config,
                **self._faults(place),
            )
            for place in self._places(unit, rows)
        ]
        return {"depth": np.stack(maps).astype(self.stored)}


@dataclass
class SimulatedInstancesComputer(_Simulated):
    """Instances with a detector's faults."""

    classes: tuple[InstanceClass, ...] = ()
    _cost = (0.019, 3.3e-7)

    def compute(self, unit: Unit, rows: Sequence[int]) -> Mapping[str, NDArray[Any]]:
        """Return the padded records and the map of masks of every row."""
        assert self._truth is not None
        found = []
        for place in self._places(unit, rows):
            ids, shown = self._truth.instances(place["sequence"], place["camera"], place["frame_id"])
            # The truth calls what is driven on the ground, and has no object for the sky.
            labels = {one.id: "road" if one.label == "ground" else one.label for one in shown} | {0: "sky"}
            found.append(simulate_instances(ids, labels, self.classes, self.config, **self._faults(place)))
        height, width = self.size
        return pack([detections for detections, _ in found], [masks for _, masks in found], height, width)
