"""Worlds by name, for `vipocc init --world`: how much of the synthetic world, at which size.

The figures were measured by benchmarks/synthetic_world.py on a 2020s server core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vipocc.data_manifests.synthetic.config import WorldConfig
from vipocc.errors import UsageError


@dataclass(frozen=True)
class NamedWorld:
    """A configuration of the world and what it is for."""

    about: str
    values: Mapping[str, Any]
    """What differs from the default world."""

    @property
    def config(self) -> WorldConfig:
        """The world's configuration."""
        return WorldConfig(**self.values)

    def overrides(self) -> tuple[str, ...]:
        """Return it as overrides of the `data` section: sizes whole, so that no preset's own values remain."""
        sizes = ("train_drives", "val_drives", "test_drives", "train_frames", "val_frames", "test_frames")
        values = self.config
        return tuple(f"data.world.{key}={getattr(values, key)}" for key in (*sizes, "scale", "lidar_points"))


def named(name: str) -> NamedWorld:
    """Return a world by name; raises UsageError naming those that there are."""
    if name not in WORLDS:
        raise UsageError(f"there is no world '{name}'", fix=f"use one of {', '.join(WORLDS)}")
    return WORLDS[name]


def _sizes(train: tuple[int, int], val: tuple[int, int], test: tuple[int, int]) -> dict[str, int]:
    """Return drives and frames of each drive for the three splits."""
    pairs = {"train": train, "val": val, "test": test}
    return {f"{split}_{what}": pair[i] for split, pair in pairs.items() for i, what in enumerate(("drives", "frames"))}


WORLDS: dict[str, NamedWorld] = {
    "tiny": NamedWorld(
        "to try the commands",
        {**_sizes((2, 24), (1, 24), (1, 24)), "scale": 0.15, "lidar_points": 10_000},
    ),
    "small": NamedWorld(
        "the demo's, for minutes on two cores",
        {**_sizes((4, 32), (1, 24), (1, 44)), "scale": 0.3, "lidar_points": 20_000},
    ),
    "default": NamedWorld("for training at 192x640, and 300 sweeps from each of 40 test frames on", {}),
    "large": NamedWorld(
        "native image sizes, for a many-core host",
        {**_sizes((16, 290), (2, 340), (2, 340)), "scale": 1.0, "lidar_points": 100_000},
    ),
}
