"""Pictures of the synthetic world with their exact depth and instances, prepared as frames are, in memory.

Only the stereo cameras are rendered, and nothing is written: a world on disk would hold fisheyes and LiDAR too, and
many more frames of far fewer drives.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.apps.embedded.worlds import Shoot
from vipocc.data_manifests.images import resize
from vipocc.data_manifests.synthetic import layout, render
from vipocc.data_manifests.synthetic.mesh import World
from vipocc.data_manifests.synthetic.randomness import generator
from vipocc.data_manifests.synthetic.rig import rig
from vipocc.data_manifests.synthetic.scene import FIRST_OBJECT, GROUND_ID, LABELS, SKY_ID
from vipocc.errors import DataError
from vipocc.progress import progress

SIZE = (192, 640)
"""Height and width of prepared images."""
MOST = 96
"""Most things of one picture that are kept: sky, ground and the largest objects."""
KINDS = ("sky", *LABELS)
"""What a thing can be, by number: the sky, the ground and the kinds of objects."""


class Pictures(NamedTuple):
    """N prepared pictures and what is in them."""

    image: NDArray[np.uint8]
    """[N, 192, 640, 3] RGB."""
    depth: NDArray[np.float16]
    """[N, 192, 640] metres along the optical axis, infinite in the sky."""
    thing: NDArray[np.uint8]
    """[N, 192, 640] number of the thing that a pixel shows; MOST where it is one of those that were not kept."""
    kind: NDArray[np.int16]
    """[N, MOST] index into KINDS of each thing, -1 for none."""
    box: NDArray[np.float32]
    """[N, MOST, 4] x0, y0, x1, y1 in pixels around what is seen of each thing, x1 and y1 exclusive."""
    area: NDArray[np.int32]
    """[N, MOST] pixels that show it."""

    def save(self, path: Path) -> None:
        """Write them to one file, without compressing."""
        with path.open("wb") as file:
            np.savez(file, **self._asdict())

    @classmethod
    def load(cls, path: Path) -> Pictures:
        """Read what `save` wrote; raises `DataError` for anything else."""
        try:
            with np.load(path) as file:
                return cls(**{name: file[name] for name in cls._fields})
        except (OSError, ValueError, KeyError) as error:
            raise DataError("there are no pictures to train on", where=path, fix="take them again") from error


def take_pictures(shoots: Sequence[Shoot], jobs: int, size: tuple[int, int] = SIZE) -> Pictures:
    """Return the pictures of all shoots, in their order whatever `jobs` is, prepared at `size`."""
    tasks = [_Task(shoot, size) for shoot in shoots]
    parts = []
    with progress("pictures", sum(len(s.rows) * len(s.cameras) for s in shoots), "pictures") as bar:
        if jobs == 1:
            for task in tasks:
                parts.append(_take(task))
                bar.advance(len(parts[-1].image))
        else:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=context) as pool:
                for part in pool.map(_take, tasks):
                    parts.append(part)
                    bar.advance(len(part.image))
    return Pictures(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True)
class _Task:
    shoot: Shoot
    size: tuple[int, int]


def _take(task: _Task) -> Pictures:
    cv2.setNumThreads(1)
    shoot, config = task.shoot, task.shoot.config
    scene, car = layout.build(config, shoot.index), rig(config.scale)
    world, views = World(scene), render.views(car, False)
    kinds = np.concatenate([[KINDS.index("sky"), KINDS.index("ground")], scene.label + 1]).astype(np.int16)
    assert (SKY_ID, GROUND_ID, FIRST_OBJECT) == (0, 1, 2), "kinds are looked up by instance id"
    rows = []
    for row in shoot.rows:
        world = world.at(row)
        for camera in shoot.cameras:
            pose = scene.world_from_imu[row] @ car.imu_from_camera[camera]
            pose[:3, 3] -= scene.origin
            rng = generator(config.seed, f"embedded {camera}", shoot.index, row)
            taken = render.take(world, views[camera], pose, rng, config.image_noise, config.shadows, config.antialias)
            rows.append(_prepare(taken, kinds, task.size))
    return Pictures(*(np.stack(column) for column in zip(*rows, strict=True)))


def _prepare(taken: render.Picture, kinds: NDArray[np.int16], size: tuple[int, int]) -> Pictures:
    """Return one picture (without the leading axis) at the prepared size: truth by the nearest pixel."""
    image = resize(taken.image, size, "area")
    with np.errstate(over="ignore"):
        depth = _nearest(taken.depth, size).astype(np.float16)
    ids = _nearest(taken.instance, size)
    count = np.bincount(ids.ravel(), minlength=2)
    kept = np.flatnonzero(count)
    if len(kept) > MOST:
        kept = np.sort(kept[np.argsort(-count[kept], kind="stable")[:MOST]])
    number = np.full(len(count), MOST, np.uint8)
    number[kept] = np.arange(len(kept))
    kind, area = np.full(MOST, -1, np.int16), np.zeros(MOST, np.int32)
    kind[: len(kept)], area[: len(kept)] = kinds[kept], count[kept]
    box = np.zeros((MOST, 4), np.float32)
    for k, one in enumerate(kept):
        mask = ids == one
        across, down = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        box[k] = across[0], down[0], across[-1] + 1, down[-1] + 1
    return Pictures(image, depth, number[ids], kind, box, area)


def _nearest(values: NDArray[np.generic], size: tuple[int, int]) -> NDArray[np.generic]:
    """Return values [H, W] looked up at the pixel that holds each new pixel's centre."""
    rows = ((np.arange(size[0]) + 0.5) * values.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * values.shape[1] / size[1]).astype(int)
    return values[np.ix_(rows, columns)]
