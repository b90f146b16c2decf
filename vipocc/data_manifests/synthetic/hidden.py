"""What lies out of sight in the slice, and how much of it follows from what is seen.

A single picture shows surfaces; what is behind them can only be inferred from what such things are like: a house goes
on, a car is as deep as cars are, a fence is thin. Here that is put in numbers, with the exact truth as judge: the best
that can be said of a hidden cell by one who knows only the true surface in front of it, what kind of thing it belongs
to and how far behind it the cell lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.synthetic.exact import ExactTruth
from vipocc.data_manifests.synthetic.mesh import World
from vipocc.data_manifests.synthetic.rig import STEREO
from vipocc.data_manifests.synthetic.scene import FIRST_OBJECT, GROUND_ID, LABELS, SKY_ID

#: Width in metres of the classes of distance behind a surface, and their number; the last takes the rest.
_STEP, _CLASSES = 0.25, 40
#: Thickness in metres that a rule without knowledge of kinds gives everything.
_THICK = 2.0


@dataclass(frozen=True)
class Behind:
    """Cells of the slice, of one frame or of many, one entry each."""

    occupied: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    """Whether a surface lies between the camera and the cell's point; so it is of every occupied cell."""
    front: NDArray[np.int16]
    """Kind (an index into LABELS) of the first surface in front of a hidden cell; -1 of visible ones."""
    distance: NDArray[np.float32]
    """Metres from that surface on to the cell; 0 of visible ones."""
    other: NDArray[np.bool_]
    """Whether an occupied cell belongs to another object than the first surface in front of it."""

    @classmethod
    def joined(cls, parts: Sequence[Behind]) -> Behind:
        """Return the cells of all."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))

    def report(self, learnt: Behind) -> dict[str, Any]:
        """Return shares of cells, and the balanced accuracy over hidden ones of three ways to guess.

        Args:
            learnt: cells of other drives, from which the share of occupied ones is taken by kind and distance.
        """
        hidden, occupied = self.hidden, self.occupied[self.hidden]
        table = learnt._table()
        guesses = {
            "all_occupied": np.ones(len(occupied), bool),
            "two_metres_thick": self.distance[hidden] < _THICK,
            "as_deep_as_its_kind": table[self.front[hidden], self._step(hidden)],
        }
        kinds = {}
        for kind in np.unique(self.front[hidden]):
            mine = hidden & (self.front == kind)
            near, far = mine & (self.distance < 0.5), mine & (self.distance > 3.0)
            kinds[LABELS[kind]] = {
                "share_of_hidden": _share(mine, hidden),
                "occupied_within_0.5m": _share(self.occupied & near, near),
                "occupied_beyond_3m": _share(self.occupied & far, far),
            }
        return {
            "cells": len(self.occupied),
            "visible_free": _share(~hidden, np.ones_like(hidden)),
            "hidden_free": _share(hidden & ~self.occupied, np.ones_like(hidden)),
            "hidden_occupied": _share(self.occupied, np.ones_like(hidden)),
            "occupied_behind_another_object": _share(self.other, self.occupied),
            "balanced_accuracy_of_hidden": {name: _balanced(guess, occupied) for name, guess in guesses.items()},
            "by_kind_in_front": kinds,
        }

    def _step(self, which: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.asarray(np.minimum(self.distance[which] / _STEP, _CLASSES - 1), np.int64)

    def _table(self) -> NDArray[np.bool_]:
        """Return by kind and distance whether a hidden cell is likelier occupied, both outcomes given equal weight."""
        counts = np.zeros((2, len(LABELS), _CLASSES))
        hidden = self.hidden
        np.add.at(counts, (self.occupied[hidden].astype(int), self.front[hidden], self._step(hidden)), 1.0)
        free, occupied = counts / counts.sum(axis=(1, 2), keepdims=True)
        return np.asarray(occupied > free)


def what_is_behind(truth: ExactTruth, sequence: str, frame_id: int) -> Behind:
    """Return the cells of the slice of a frame; needs the drive's scene, no pictures."""
    scene = truth.scene(sequence)
    points = truth.slice_points(sequence, frame_id).reshape(-1, 3)
    found = truth.slice_objects(sequence, frame_id).reshape(-1)
    origin = truth.world_from_camera(sequence, frame_id, STEREO[0])[:3, 3]
    towards = np.ascontiguousarray(points - origin, np.float32)
    world: World = truth.world(sequence, frame_id)
    hits = world.cast((origin - scene.origin).astype(np.float32), towards)
    hidden = hits.distance < 1.0
    first = np.where(hidden, world.faces.instance[hits.face], SKY_ID).astype(np.int64)
    labels = np.concatenate([[-1, LABELS.index("ground")], scene.label])  # of the sky, the ground, then the objects
    assert (SKY_ID, GROUND_ID, FIRST_OBJECT) == (0, 1, 2)
    length = np.linalg.norm(towards, axis=1)
    return Behind(
        occupied=found != SKY_ID,
        hidden=hidden,
        front=labels[first].astype(np.int16),
        distance=np.where(hidden, (1.0 - np.minimum(hits.distance, 1.0)) * length, 0.0).astype(np.float32),
        other=(found != SKY_ID) & hidden & (first != found),
    )


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float | None:
    """Return the share of `whole` that is in `part`, None of nothing."""
    count = int(whole.sum())
    return round(float(part.sum()) / count, 3) if count else None


def _balanced(guess: NDArray[np.bool_], occupied: NDArray[np.bool_]) -> float:
    """Return the mean of the shares of occupied and of free cells that are guessed right."""
    return round(float(guess[occupied].mean() + (~guess[~occupied]).mean()) / 2, 3)
