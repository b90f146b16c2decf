"""Training samples: which views each key has, and how they are read from the stores in the order a seed fixes.

A sample is read as it is stored (uint8 colours, float16 depth); conversion and augmentation happen on the trainer's
device (`vipocc.training.batch`). Every draw is seeded by (seed, purpose, epoch, index), so the sample at a position of
the run is the same whichever process reads it and wherever a run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from vipocc import errors
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.views import prepared_intrinsics, prepared_poses, view_offsets
from vipocc.errors import VipoccError
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.ndc import intrinsics_to_ndc
from vipocc.geometry.poses import relative
from vipocc.stores.reader import StoreReader
from vipocc.training.config import TrainingConfig
from vipocc.training.rays import choose_anchors, choose_patches, choose_split, uniform_centres
from vipocc.training.seeds import numpy_generator

Sample = dict[str, Any]


@dataclass(frozen=True)
class SampleTable:
    """The V views and the calibration of all N keys of a split, as tensors that worker processes share."""

    groups: tuple[str, ...]
    """Store groups `<sequence>/<camera>`."""
    pinhole: tuple[bool, ...]
    """For each group, whether its camera is a perspective one, for which priors are computed."""
    group: Tensor
    """[N, V] int32, index into `groups`."""
    row: Tensor
    """[N, V] int32 posed-frame rows."""
    key_from_view: Tensor
    """[N, V, 4, 4] float32, formed in float64."""
    intrinsics: Tensor
    """[len(groups), 3, 3] float32, normalised."""

    def __len__(self) -> int:
        return len(self.group)

    def name(self, index: int) -> str:
        """Return `<sequence>/<camera> row N` of a key, for messages."""
        return f"{self.groups[int(self.group[index, 0])]} row {int(self.row[index, 0])}"

    def rows_by_group(self, views: slice, *, pinhole_only: bool = False) -> dict[str, NDArray[np.int64]]:
        """Return for each group the different rows that the chosen views of all keys touch, sorted."""
        group, row = self.group[:, views].numpy().ravel(), self.row[:, views].numpy().ravel()
        chosen = {name: np.unique(row[group == at]).astype(np.int64) for at, name in enumerate(self.groups)}
        kept = {name for name, pinhole in zip(self.groups, self.pinhole, strict=True) if pinhole or not pinhole_only}
        return {name: rows for name, rows in chosen.items() if len(rows) and name in kept}


def sample_table(manifest: Manifest, split: str, config: DataConfig) -> SampleTable:
    """Return the samples of a split, in the manifest's order.

    Raises:
        DataError: the manifest lists no key for the split.
    """
    names: dict[str, int] = {}
    pinhole: list[bool] = []
    intrinsics: list[NDArray[np.float32]] = []
    group, row, poses = [], [], []
    for (sequence, camera), rows in manifest.key_rows(split).items():
        offsets = view_offsets(manifest.dataset, camera, config)
        for view_camera in dict.fromkeys(name for name, _ in offsets):
            if f"{sequence}/{view_camera}" not in names:
                names[f"{sequence}/{view_camera}"] = len(names)
                pinhole.append(isinstance(manifest.camera_model(sequence, view_camera), Pinhole))
                pixels = prepared_intrinsics(manifest, sequence, view_camera, config)
                ndc = intrinsics_to_ndc(pixels, config.image_size, config.convention)
                intrinsics.append(np.asarray(ndc, dtype=np.float32))
        world_from_key = prepared_poses(manifest, sequence, camera, config)[rows]
        group.append(np.tile([names[f"{sequence}/{name}"] for name, _ in offsets], (len(rows), 1)))
        row.append(np.stack([rows + step for _, step in offsets], axis=1))
        seen = [prepared_poses(manifest, sequence, name, config)[rows + step] for name, step in offsets]
        poses.append(np.stack([relative(world_from_key, pose) for pose in seen], axis=1))
    if not group:
        raise errors.DataError(
            f"the manifest lists no {split} sample of {manifest.dataset}",
            fix="see `vipocc data check` for what was left out, or choose another data.split",
        )
    return SampleTable(
        groups=tuple(names),
        pinhole=tuple(pinhole),
        group=torch.from_numpy(np.concatenate(group).astype(np.int32)),
        row=torch.from_numpy(np.concatenate(row).astype(np.int32)),
        key_from_view=torch.from_numpy(np.concatenate(poses).astype(np.float32)),
        intrinsics=torch.from_numpy(np.stack(intrinsics)),
    )


@dataclass(frozen=True)
class SamplePaths:
    """The stores that samples are read from; None where the configuration needs none."""

    frames: Path
    depth: Path | None
    anchors: Path | None


class TrainingSamples(Dataset[Sample]):
    """The samples of a run by position: position p is sample `order(p // N)[p % N]` of epoch `p // N`."""

    def __init__(
        self, table: SampleTable, paths: SamplePaths, config: TrainingConfig, size: tuple[int, int], seed: int
    ) -> None:
        self.table, self.paths, self.config, self.size, self.seed = table, paths, config, size, seed

    @cached_property
    def _frames(self) -> StoreReader:
        return StoreReader(self.paths.frames)

    @cached_property
    def _depth(self) -> StoreReader | None:
        return None if self.paths.depth is None else StoreReader(self.paths.depth)

    @cached_property
    def _anchors(self) -> StoreReader | None:
        return None if self.paths.anchors is None else StoreReader(self.paths.anchors)

    def __getstate__(self) -> dict[str, Any]:
        # Readers hold handles of this process; a worker opens its own.
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def place(self, position: int) -> tuple[int, int]:
        """Return the epoch and the key's index in the table of the sample at a position of the run."""
        epoch, within = divmod(position, len(self.table))
        return epoch, int(epoch_order(self.seed, epoch, len(self.table))[within])

    def __getitem__(self, position: int) -> Sample:
        epoch, index = self.place(position)
        table, config = self.table, self.config
        group, row = table.group[index].numpy(), table.row[index].numpy()
        draw = [
            numpy_generator(self.seed, purpose, epoch, index) for purpose in ("views", "patches", "depth", "augment")
        ]
        names = [table.groups[at] for at in group]
        split = choose_split(draw[0], names, row.tolist(), config.view_split)
        centres, views = choose_patches(
            draw[1],
            split.loss,
            self._anchors_of(draw[1], split.loss, names, row, config.sampler),
            count=config.patches,
            share=config.view_share,
            size=self.size,
            patch=config.patch_size,
            bounds=config.patch_bounds,
        )
        of_key = self._anchors_of(draw[2], (0,), names, row, config.depth_sampler)[0]
        sample: Sample = {
            "images": self._images(names, row),
            "intrinsics": table.intrinsics[group].numpy(),
            "key_from_view": table.key_from_view[index].numpy(),
            "render_views": np.asarray(split.render, dtype=np.int64),
            "centres": centres,
            "patch_views": views,
            "depth_centres": uniform_centres(
                draw[2], config.depth_patches, self.size, config.patch_size, config.patch_bounds
            )
            if of_key is None
            else choose_anchors(draw[2], of_key, config.depth_patches),
            "flip": np.bool_(draw[3].random() < 0.5),
            "position": np.int64(position),
            "index": np.int64(index),
        }
        if config.colour_jitter:
            sample["colour_factors"] = colour_factors(draw[3])
        if self._depth is not None:
            sample["prior_depth"] = self._depth.read_many(names[0], row[:2].tolist(), "depth").astype(
                np.float16, copy=False
            )
        return sample

    def _images(self, names: list[str], row: NDArray[np.int32]) -> NDArray[np.uint8]:
        images = np.empty((len(names), *self.size, 3), dtype=np.uint8)
        for name in dict.fromkeys(names):
            views = [view for view, of_view in enumerate(names) if of_view == name]
            images[views] = self._frames.read_many(name, row[views].tolist(), "rgb")
        return images

    def _anchors_of(
        self, rng: np.random.Generator, views: tuple[int, ...], names: list[str], row: NDArray[np.int32], sampler: str
    ) -> list[NDArray[np.integer[Any]] | None]:
        """Return one random draw of the anchors of each view in `views` that has some, None for the others."""
        found: list[NDArray[np.integer[Any]] | None] = [None] * len(names)
        if sampler == "uniform" or self._anchors is None:
            return found
        for view in views:
            name = names[view]
            if self._anchors.has(name) and self._anchors.rows(name)[row[view]]:
                draws = self._anchors.read(name, int(row[view]), "anchors")
                found[view] = draws[rng.integers(len(draws))]
        return found


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, samples: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits its samples."""
    return numpy_generator(seed, "order", epoch).permutation(samples)


def colour_factors(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return [8]: factors of brightness, contrast, saturation, the shift of the hue, and the order of the four."""
    return np.concatenate([rng.uniform(0.8, 1.2, 3), rng.uniform(-0.1, 0.1, 1), rng.permutation(4)]).astype(np.float32)


class RunBatches(Sampler[list[int]]):
    """Positions of a run in batches, from `start`, where a run is resumed, to `stop`; the last batch is filled up.

    Each global batch is cut into `world * parts` runs of positions of one length, of which this process reads `parts`
    in order: which samples form global batch k depends neither on how many processes share it nor on how many parts
    each of them takes it in.
    """

    def __init__(
        self, start: int, stop: int, batch_size: int, *, rank: int = 0, world: int = 1, parts: int = 1
    ) -> None:
        """Divide the run.

        Args:
            start: first position.
            stop: position after the last.
            batch_size: samples of one optimiser step, over all processes and parts.
            rank: number of this process, from 0.
            world: how many processes share each batch.
            parts: batches in which each process reads its share (gradient accumulation).

        Raises:
            ConfigError: the batch cannot be shared evenly.
        """
        if batch_size % (world * parts):
            shared = " and ".join(
                text for count, text in ((world, f"{world} processes"), (parts, f"{parts} parts in each")) if count > 1
            )
            below, above = batch_size // (world * parts) * world * parts, -(-batch_size // (world * parts))
            choices = [str(size) for size in (below, above * world * parts) if size]
            raise errors.ConfigError(
                f"a batch of {batch_size} samples cannot be shared evenly by {shared}",
                fix=f"set -o training.batch_size={' or '.join(choices)}",
            )
        self.start, self.stop, self.batch_size = start, stop, batch_size
        self.rank, self.world, self.parts = rank, world, parts

    def __iter__(self) -> Iterator[list[int]]:
        length = self.batch_size // (self.world * self.parts)
        for first in range(self.start, self.stop, self.batch_size):
            for part in range(self.rank * self.parts, (self.rank + 1) * self.parts):
                yield list(range(first + part * length, first + (part + 1) * length))

    @property
    def steps(self) -> int:
        """Global batches, each one optimiser step."""
        return -(-(self.stop - self.start) // self.batch_size)

    def __len__(self) -> int:
        return self.steps * self.parts


@dataclass(frozen=True)
class _Failure:
    """An error on its way out of a worker; exceptions themselves lose their parts when they are pickled."""

    kind: str
    what: str
    where: str | None
    fix: str | None


class _Guarded(Dataset[Sample | _Failure]):
    """Samples whose errors travel as values."""

    def __init__(self, samples: Dataset[Sample]) -> None:
        self.samples = samples

    def __getitem__(self, position: int) -> Sample | _Failure:
        try:
            return self.samples[position]
        except VipoccError as error:
            return _Failure(type(error).__name__, error.what, error.where, error.fix)


def _collate(items: list[Sample | _Failure]) -> Any:
    failure = next((item for item in items if isinstance(item, _Failure)), None)
    return failure or default_collate(items)


def _single_thread(_worker: int) -> None:
    # Workers are one per core already, and reading needs no linear algebra.
    torch.set_num_threads(1)


def load_batches(
    samples: Dataset[Sample], batches: RunBatches, *, workers: int, prefetch: int, pinned: bool
) -> Iterator[dict[str, Tensor]]:
    """Yield collated batches in order, read by `workers` spawned processes (0: in this one).

    Workers are spawned, since the stores' reader does not survive a fork. An error of a sample is raised here as
    itself, one sentence, and not as a worker's traceback.
    """
    loader = DataLoader(
        _Guarded(samples),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pinned,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=_single_thread,
    )
    for batch in loader:
        if isinstance(batch, _Failure):
            kind: type[VipoccError] = getattr(errors, batch.kind, VipoccError)
            raise kind(batch.what, where=batch.where, fix=batch.fix)
        yield batch
