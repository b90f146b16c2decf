"""Which synthetic drives the embedded models learn from, and which they are measured on.

The training worlds have a seed of their own and hold training drives alone. Every world that a user makes with another
seed (the default is 0) is therefore unseen as a whole; its val and test drives also have walls, greenery and heights
of the sun that no training drive has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vipocc.data_manifests.synthetic.config import WorldConfig

TRAINING_SEED = 7001
HELD_OUT_SEED = 0
_FRAMES = 80
"""Frames of a drive; of these, pictures are taken every few metres."""


@dataclass(frozen=True)
class Shoot:
    """Pictures to be taken on one drive."""

    config: WorldConfig
    index: int
    """Of the drive in its world."""
    rows: tuple[int, ...]
    cameras: tuple[str, ...]


def training_shoots(drives: int, rows: int, frames: int = _FRAMES) -> list[Shoot]:
    """Return shoots on `drives` training drives, `rows` stereo pairs each, at three sizes of image.

    Half of the drives are taken at half the native size as in the default world, the others smaller: the demo's world
    has .3 of it, and the networks see its pictures enlarged.
    """
    shoots = []
    for index in range(drives):
        scale = (0.5, 0.3, 0.5, 0.4)[index % 4]
        config = _world(seed=TRAINING_SEED, train_drives=drives, train_frames=frames, scale=scale)
        shoots.append(Shoot(config, index, _spread(frames, rows), ("image_00", "image_01")))
    return shoots


def held_out_shoots(split: str, drives: int, rows: int, frames: int = _FRAMES) -> list[Shoot]:
    """Return shoots on val or test drives of a world with the users' default seed, left camera alone."""
    config = _world(**{"seed": HELD_OUT_SEED, f"{split}_drives": drives, f"{split}_frames": frames})
    return [Shoot(config, index, _spread(frames, rows), ("image_00",)) for index in range(drives)]


def _world(**values: Any) -> WorldConfig:
    """Return a world of drives of one split."""
    return WorldConfig(**{"train_drives": 0, "val_drives": 0, "test_drives": 0, **values})


def _spread(frames: int, rows: int) -> tuple[int, ...]:
    return tuple(round((k + 0.5) * frames / rows - 0.5) for k in range(rows))
