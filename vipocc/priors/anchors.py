"""Ray-patch anchors, drawn from the instances by SNOG (paper 3.4, A.2) once for all of training.

Every image has several independent draws of 64 anchors. A draw depends on (seed, sequence, camera, row, draw) and the
image's instances alone, so the same anchors can be drawn online from `instances.zarr`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.priors.generators import generator
from vipocc.priors.snog import Instances, SnogConfig, draw_anchors, mixture
from vipocc.stores import StoreReader, Unit

VERSION = "snog-1"
"""Named in every record; changes whenever an anchor that comes out could."""


def anchors_fingerprint(config: SnogConfig, sampling: Sequence[str], seed: int, source: str) -> dict[str, Any]:
    """Return everything that decides an image's anchors but its instances."""
    return {
        "source": source,
        "sampler": VERSION,
        "snog": config.model_dump(mode="json"),
        "sampling": list(sampling),
        "seed": seed,
    }


def read_instances(reader: StoreReader, group: str, row: int) -> Instances:
    """Return the instances of an image in `instances.zarr`, as SNOG takes them.

    Raises:
        MissingInputError: the image has no record.
    """
    sampling = list(reader.attrs["sampling"])
    count = int(reader.read(group, row, "count"))
    labels = np.asarray(reader.read(group, row, "label"))[:count]
    return Instances(
        boxes=np.asarray(reader.read(group, row, "box"), np.float64)[:count],
        areas=np.asarray(reader.read(group, row, "area"), np.int64)[:count],
        gaussian=np.array([sampling[label] == "gaussian" for label in labels], bool),
        index=np.asarray(reader.read(group, row, "masks")),
    )


def draw(instances: Instances, config: SnogConfig, seed: int, group: str, row: int, draws: int) -> NDArray[np.uint16]:
    """Return `draws` independent sets of anchors, uint16 [draws, n, 2] as (x, y) of the patch centres."""
    height, width = instances.index.shape
    law = mixture(instances, (height, width), config)
    return np.stack(
        [
            draw_anchors(law, config.anchors, generator(seed, "anchors", *group.split("/"), row, number))
            for number in range(draws)
        ]
    ).astype(np.uint16)


@dataclass
class AnchorsComputer:
    """Draws anchors; picklable until opened."""

    instances: Path
    """instances.zarr."""
    config: SnogConfig
    seed: int
    rows_per_call: int = 8
    _reader: StoreReader | None = field(default=None, init=False, repr=False)

    def open(self, device: str) -> None:
        """Open the instances; anchors are drawn on the CPU whatever the device."""
        self._reader = StoreReader(self.instances)

    def compute(self, unit: Unit, rows: Sequence[int]) -> Mapping[str, NDArray[Any]]:
        """Return anchors [len(rows), draws, 64, 2]."""
        assert self._reader is not None
        sets = [
            draw(
                read_instances(self._reader, unit.group, row),
                self.config,
                self.seed,
                unit.group,
                row,
                self.config.draws,
            )
            for row in rows
        ]
        return {"anchors": np.stack(sets)}

    def close(self) -> None:
        """Let go of the reader."""
        self._reader = None

    def seconds_per_row(self, device: str, size: tuple[int, int]) -> float:
        """Return the time that the draws of one image take on a core of the 2020s."""
        return 1e-3 * self.config.draws
