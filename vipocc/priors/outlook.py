"""What a run would have left to do: rows, units, bytes and time, also of images that are not prepared yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vipocc.data_manifests import stage as preparation
from vipocc.data_manifests.manifest import SPLITS
from vipocc.data_manifests.synthetic.config import WorldConfig
from vipocc.data_manifests.synthetic.generate import estimate, is_complete, split_lines
from vipocc.errors import MissingInputError
from vipocc.priors import jobs
from vipocc.priors.inputs import Rows, held_rows, wanted_rows
from vipocc.priors.job import Job, Recipe
from vipocc.priors.jobs import PriorKind
from vipocc.priors.sources import make_source
from vipocc.progress import duration, size
from vipocc.stores import StoreReader, Unit, requests_for
from vipocc.workspace import Workspace

#: Work on the CPU expected to take longer is spread over the cores; below, starting processes costs more than it gains.
SPREAD_FROM = 20.0


@dataclass(frozen=True)
class Left:
    """What is left to do of one prior."""

    recipe: Recipe
    rows: int
    """That are asked for."""
    missing: int
    """Of them."""
    units: int
    """With missing rows."""

    @property
    def bytes(self) -> float:
        """Of the rows that are missing, on the disk."""
        return self.missing * self.recipe.bytes_per_row

    def workers(self, asked: int | None, seconds: float) -> int:
        """Return how many processes work on each device, where one in all would take so many `seconds`."""
        if self.recipe.accelerated or asked is not None or seconds <= SPREAD_FROM:
            return asked or 1
        return preparation.cores()


def left_of(job: Job, *, overwrite: bool = False) -> Left:
    """Return what is left of a job; writes nothing.

    Raises:
        StoreError: the store holds rows of another model and `overwrite` is not set.
    """
    plan = job.plan(overwrite=overwrite)
    if plan is None:
        return Left(job.recipe, job.rows, job.rows, len(job.requests))
    return Left(job.recipe, job.rows, plan.missing, len(plan.todo))


def outlook(
    kind: PriorKind,
    workspace: Workspace,
    config: Any,
    rows: Rows,
    name: str | None = None,
    *,
    overwrite: bool = False,
) -> Left:
    """Return what would be left of a prior, whether what it is made from is there already or not; writes nothing.

    Args:
        kind: of prior.
        workspace: whose stores.
        config: the resolved root configuration.
        rows: of each (sequence, camera), prepared or not.
        name: of a second store.
        overwrite: whether rows of another model count as missing.

    Raises:
        StoreError: the store holds rows of another model and `overwrite` is not set.
        CheckpointError, ConfigError, UsageError: see `vipocc.priors.jobs`.
    """
    every = [
        r for (sequence, camera), some in sorted(rows.items()) for r in requests_for(f"{sequence}/{camera}", some, {})
    ]
    asked = {request.unit: set(request.rows) for request in every}
    job = _possible(kind, workspace, config, rows, name)
    plan, planned = None, {}
    if job is not None:
        planned = {request.unit: set(request.rows) for request in job.requests}
        plan = job.plan(overwrite=overwrite)
    missing = {unit: some - planned.get(unit, set()) for unit, some in asked.items()}
    todo: dict[Unit, Sequence[int]] = {unit: tuple(some) for unit, some in planned.items()}
    if plan is not None:
        todo = {entry.request.unit: entry.missing for entry in plan.todo}
    for unit, some in todo.items():
        missing[unit] |= set(some)
    if job is not None:
        recipe = job.recipe
    elif kind == "anchors":
        recipe = jobs.anchors_recipe(workspace, config, name)
    else:
        recipe = jobs.source_recipe(make_source(kind, workspace, config))
    counts = [len(some) for some in missing.values() if some]
    return Left(recipe, sum(map(len, asked.values())), sum(counts), len(counts))


def rows_to_come(
    workspace: Workspace, config: Any, split: str, cameras: Any, limit: int | None, workers: int | None,
    say: Callable[[str], None],
) -> Rows:  # fmt: skip
    """Return the rows of a split, and tell what would be generated and prepared first; writes nothing.

    Raises:
        MissingInputError: no image of the split exists.
    """
    if workspace.dataset == "synthetic" and not is_complete(workspace.root, config.data.world):
        world = config.data.world
        seconds, count = estimate(world, workers or preparation.cores())
        say(
            f"the synthetic world would be generated first: {world.frames:,} frames, about {duration(seconds)}, "
            f"{size(count)}"
        )
        return _first(_rows_of_world(world, split), limit)
    manifest = preparation.index(workspace, config).manifest
    rows = wanted_rows(manifest, split, cameras, limit)
    for work in preparation.plan_jobs(workspace, config.data, manifest, split, ("frames",), cameras):
        missing = work.plan().missing
        if missing:
            say(
                f"frames: {missing:,} rows would be prepared first, "
                f"about {duration(missing * work.seconds_per_row)} on one core, {size(missing * work.bytes_per_row)}"
            )
    return rows


def _possible(kind: PriorKind, workspace: Workspace, config: Any, rows: Rows, name: str | None) -> Job | None:
    """Return the job of those rows whose inputs are there, None if none are."""
    frames = workspace.store("frames")
    try:
        if kind != "anchors":
            reader = StoreReader(frames)
            held = {place: held_rows(reader, "/".join(place), some) for place, some in rows.items()}
            rows = {place: np.asarray(some, np.int64) for place, some in held.items() if some}
        return jobs.describe(kind, workspace, config, rows, name) if rows else None
    except MissingInputError:
        return None


def _rows_of_world(world: WorldConfig, split: str) -> Rows:
    """Return the rows that a split of a world to be generated will need, as its manifest will tell."""
    from vipocc.data_manifests.synthetic.rig import STEREO

    found: Rows = {}
    for name in SPLITS if split == "all" else (split,):
        left = Counter(line.split()[0] for line in split_lines(world, name) if line.endswith(" l"))
        for drive, keys in left.items():
            # Training looks at both cameras, at t and t+1; the other splits at the key alone.
            places = {(drive, camera): keys + 1 for camera in STEREO} if name == "train" else {(drive, STEREO[0]): keys}
            found = {**found, **{place: np.arange(count) for place, count in places.items()}}
    return found


def _first(rows: Rows, limit: int | None) -> Rows:
    if limit is None:
        return rows
    found, left = {}, limit
    for place, some in rows.items():
        if left:
            found[place] = some[:left]
            left -= len(found[place])
    return found
