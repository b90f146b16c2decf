"""Training samples: how they are drawn and read from the stores, in the order a seed fixes.

A sample is read as it is stored (uint8 colours, float16 depth); conversion and augmentation happen on the trainer's
device (`vipocc.training.batch`). Every draw is seeded by (seed, purpose, epoch, index), so the sample at a position of
the run is the same whichever process reads it and wherever a run was resumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vipocc.stores.reader import StoreReader
from vipocc.training.batch import MAP
from vipocc.training.config import TrainingConfig
from vipocc.training.packing import Packed
from vipocc.training.rays import ViewSplit, choose_anchors, choose_patches, choose_split, uniform_centres
from vipocc.training.seeds import numpy_generator
from vipocc.training.table import SampleTable

Sample = dict[str, Any]


@dataclass(frozen=True)
class SamplePaths:
    """The stores that samples are read from; None where the configuration needs none."""

    frames: Path
    depth: Path | None
    anchors: Path | None
    maps: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    """Store and array of each per-pixel map of the key view, by the name that the density head gives it."""


@dataclass(frozen=True)
class Share:
    """Positions of a run that one process reads at once: all of a global batch, or a part of it."""

    positions: range
    first: int
    """Position of the global batch's first sample, whose choices are those of all with `training.shared_patches`."""


@dataclass(frozen=True)
class _Place:
    """A sample before anything of it is read."""

    position: int
    epoch: int
    index: int
    groups: list[str]
    rows: list[int]
    split: ViewSplit


Anchors = Mapping[tuple[str, int], NDArray[np.integer[Any]]]
"""Anchors [draws, A, 2] by group and row."""


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

    @cached_property
    def _maps(self) -> dict[str, tuple[StoreReader, str]]:
        """Readers of the per-pixel maps, by their name in a batch."""
        return {MAP + name: (StoreReader(path), array) for name, (path, array) in self.paths.maps.items()}

    @cached_property
    def _with_anchors(self) -> dict[str, NDArray[np.bool_]]:
        """For each group that has anchors, which of its rows do."""
        held = self._anchors
        return {} if held is None else {name: held.rows(name) for name in self.table.groups if held.has(name)}

    def __getstate__(self) -> dict[str, Any]:
        # Readers hold handles of this process; a worker opens its own.
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def place(self, position: int) -> tuple[int, int]:
        """Return the epoch and the key's index in the table of the sample at a position of the run."""
        epoch, within = divmod(position, len(self.table))
        return epoch, int(epoch_order(self.seed, epoch, len(self.table))[within])

    def shapes(self, share: Share) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Return shapes and data types of the tensors of a batch; all batches of one length have the same."""
        return self._shapes(self._columns(self._places(share), share), len(share.positions))

    def batch(self, share: Share, room: Packed | None = None) -> Packed:
        """Return the samples of a share, each tensor with a leading dimension B; `[position]` is the plain twin.

        All rows of the batch are asked for at once and are decompressed into the batch itself: images [B, V, H, W, 3]
        uint8, intrinsics [B, V, 3, 3], key_from_view [B, V, 4, 4], render_views [B, K], centres [B, P, 2] and
        patch_views [B, P] of the colour patches, depth_centres [B, P', 2], flip [B], position [B], index [B];
        colour_factors [B, 8] with `colour_jitter`, prior_depth [B, 2, H, W] float16 in metres where a loss needs it,
        map/NAME [B, ...] as stored for each per-pixel map.

        Args:
            share: which samples.
            room: where to put them (`shapes`); made if it is left out.

        Raises:
            MissingInputError: a row is not in its store.
            StoreError: a shard is missing, truncated or altered.
        """
        places = self._places(share)
        columns = self._columns(places, share)
        packed = Packed.allocate(self._shapes(columns, len(places))) if room is None else room
        packed.copy_from(columns)
        tensors = packed.tensors()
        frames = [where for place in places for where in zip(place.groups, place.rows, strict=True)]
        self._frames.gather(frames, "rgb", out=tensors["images"].flatten(0, 1).numpy())
        if self._depth is not None:
            _gather_depth(
                self._depth,
                [(place.groups[0], row) for place in places for row in place.rows[:2]],
                tensors["prior_depth"].flatten(0, 1).numpy(),
            )
        for name, (reader, array) in self._maps.items():
            reader.gather([(place.groups[0], place.rows[0]) for place in places], array, out=tensors[name].numpy())
        return packed

    def __getitem__(self, position: int) -> Sample:
        place = self._place(position)
        anchors = {
            (group, row): self._anchors.read(group, row, "anchors")
            for group, row in self._anchors_wanted(place)
            if self._anchors is not None
        }
        images = np.empty((len(place.groups), *self.size, 3), dtype=np.uint8)
        for view, (group, row) in enumerate(zip(place.groups, place.rows, strict=True)):
            images[view] = self._frames.read(group, row, "rgb")
        sample = {**self._calibration(place), **self._choices(place, anchors), **self._own(place), "images": images}
        if self._depth is not None:
            depth = self._depth.read_many(place.groups[0], place.rows[:2], "depth")
            sample["prior_depth"] = depth.astype(np.float16, copy=False)
        for name, (reader, array) in self._maps.items():
            sample[name] = reader.read(place.groups[0], place.rows[0], array)
        return sample

    def _places(self, share: Share) -> list[_Place]:
        return [self._place(position) for position in share.positions]

    def _columns(self, places: list[_Place], share: Share) -> dict[str, Tensor]:
        """Return all tensors of a batch but images and depth."""
        deciding = [self._place(share.first)] if self.config.shared_patches else places
        anchors = self._read_anchors([where for place in deciding for where in self._anchors_wanted(place)])
        choices = [self._choices(place, anchors) for place in deciding]
        if self.config.shared_patches:
            choices *= len(places)
        samples = [
            {**self._calibration(place), **choice, **self._own(place)}
            for place, choice in zip(places, choices, strict=True)
        ]
        return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}

    def _shapes(self, columns: dict[str, Tensor], samples: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        shapes = {name: (tuple(column.shape), column.dtype) for name, column in columns.items()}
        shapes["images"] = (samples, self.table.group.shape[1], *self.size, 3), torch.uint8
        if self._depth is not None:
            shapes["prior_depth"] = (samples, 2, *self.size), torch.float16
        for name, (reader, array) in self._maps.items():
            stored = reader.spec.array(array)
            shapes[name] = (samples, *stored.shape), torch.from_numpy(np.empty(0, stored.dtype)).dtype
        return shapes

    def _place(self, position: int) -> _Place:
        epoch, index = self.place(position)
        groups = [self.table.groups[at] for at in self.table.group[index].tolist()]
        rows = self.table.row[index].tolist()
        split = choose_split(numpy_generator(self.seed, "views", epoch, index), groups, rows, self.config.view_split)
        return _Place(position, epoch, index, groups, rows, split)

    def _calibration(self, place: _Place) -> Sample:
        table = self.table
        return {
            "intrinsics": table.intrinsics[table.group[place.index]].numpy(),
            "key_from_view": table.key_from_view[place.index].numpy(),
        }

    def _choices(self, place: _Place, anchors: Anchors) -> Sample:
        """Return what is chosen of a sample's views: which are rendered from, the patches, and the flip."""
        config = self.config
        patches, depth, augment = self._generators(place, "patches", "depth", "augment")
        centres, views = choose_patches(
            patches,
            place.split.loss,
            self._draw_of(patches, place, place.split.loss if config.sampler == "snog" else (), anchors),
            count=config.patches,
            share=config.view_share,
            size=self.size,
            patch=config.patch_size,
            bounds=config.patch_bounds,
        )
        of_key = self._draw_of(depth, place, (0,) if config.depth_sampler == "snog" else (), anchors)[0]
        return {
            "render_views": np.asarray(place.split.render, dtype=np.int64),
            "centres": centres,
            "patch_views": views,
            "depth_centres": uniform_centres(
                depth, config.depth_patches, self.size, config.patch_size, config.patch_bounds
            )
            if of_key is None
            else choose_anchors(depth, of_key, config.depth_patches),
            "flip": np.bool_(augment.random() < 0.5),
        }

    def _own(self, place: _Place) -> Sample:
        """Return what is never shared among the samples of a batch: how colours vary, and which sample it is."""
        own: Sample = {"position": np.int64(place.position), "index": np.int64(place.index)}
        if self.config.colour_jitter:
            (augment,) = self._generators(place, "augment")
            augment.random()  # the flip's
            own["colour_factors"] = colour_factors(augment)
        return own

    def _generators(self, place: _Place, *purposes: str) -> list[np.random.Generator]:
        return [numpy_generator(self.seed, purpose, place.epoch, place.index) for purpose in purposes]

    def _anchors_wanted(self, place: _Place) -> list[tuple[str, int]]:
        """Return group and row of every image of a sample whose anchors its choices look at, and that has some."""
        config = self.config
        views = {
            *(place.split.loss if config.sampler == "snog" else ()),
            *((0,) if config.depth_sampler == "snog" else ()),
        }
        places = [(place.groups[view], place.rows[view]) for view in sorted(views)]
        return [(group, row) for group, row in places if group in self._with_anchors and self._with_anchors[group][row]]

    def _read_anchors(self, places: list[tuple[str, int]]) -> Anchors:
        if self._anchors is None or not places:
            return {}
        different = list(dict.fromkeys(places))
        return dict(zip(different, self._anchors.gather(different, "anchors"), strict=True))

    def _draw_of(
        self, rng: np.random.Generator, place: _Place, views: tuple[int, ...], anchors: Anchors
    ) -> list[NDArray[np.integer[Any]] | None]:
        """Return one random draw of the anchors of each view in `views` that has some, None for the others."""
        found: list[NDArray[np.integer[Any]] | None] = [None] * len(place.groups)
        for view in views:
            draws = anchors.get((place.groups[view], place.rows[view]))
            if draws is not None:
                found[view] = draws[rng.integers(len(draws))]
        return found


def _gather_depth(reader: StoreReader, places: list[tuple[str, int]], out: NDArray[np.float16]) -> None:
    """Read pseudo-depth, which a store may hold as float32, as float16."""
    if reader.spec.array("depth").dtype == "float16":
        reader.gather(places, "depth", out=out)
    else:
        out[...] = reader.gather(places, "depth")


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, samples: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits its samples."""
    return numpy_generator(seed, "order", epoch).permutation(samples)


def colour_factors(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return [8]: factors of brightness, contrast, saturation, the shift of the hue, and the order of the four."""
    return np.concatenate([rng.uniform(0.8, 1.2, 3), rng.uniform(-0.1, 0.1, 1), rng.permutation(4)]).astype(np.float32)
