"""What the commands of `vipocc priors` do: check everything, prepare frames, then run the jobs one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

from vipocc.data_manifests import stage as preparation
from vipocc.data_manifests.manifest import SPLITS
from vipocc.errors import UsageError
from vipocc.priors import jobs
from vipocc.priors.devices import resolve_devices, worker_device
from vipocc.priors.inputs import Rows, wanted_rows
from vipocc.priors.job import Job
from vipocc.priors.jobs import PriorKind
from vipocc.priors.outlook import Left, left_of, outlook, rows_to_come
from vipocc.priors.parts import part_of
from vipocc.priors.sources import Source
from vipocc.progress import duration, size
from vipocc.stores import DaskExecutor, Executor, LocalExecutor, parse_shard
from vipocc.stores.space import refuse_without_space
from vipocc.workspace import Workspace

Say: TypeAlias = Callable[[str], None]
"""Tells the user one line."""


@dataclass(frozen=True)
class Wanted:
    """What a command was asked for: frames, where to, on what, and how."""

    split: str = "all"
    cameras: Literal["perspective", "all"] = "perspective"
    limit: int | None = None
    """Most images."""
    name: str | None = None
    """Of a second store."""
    shard: str | None = None
    """`I/N`, the part to do."""
    scheduler: str | None = None
    """Address of a dask cluster."""
    jobs: int | None = None
    """Processes on the CPU."""
    device: str = "auto"
    every_device: bool = False
    overwrite: bool = False
    auto: bool = True
    """Whether frames that are missing are made."""
    dry_run: bool = False


def run_stage(kinds: Sequence[PriorKind], workspace: Workspace, config: Any, wanted: Wanted, say: Say) -> None:
    """Make the priors of these kinds, one after another; with `dry_run` only tell what that would take.

    Raises:
        VipoccError: a mistake in the configuration, models, device or frames, before anything is written; later what
            `vipocc.stores.run` raises.
    """
    if wanted.shard:
        parse_shard(wanted.shard)
    if wanted.scheduler and wanted.every_device:
        raise UsageError("--devices all and --scheduler contradict each other", fix="give one of them")
    preparation.require_listed(workspace, config, wanted.split)
    source = jobs.check(kinds[0], workspace, config, wanted.cameras)
    devices = _devices(source, wanted)
    say(_assumed(kinds[0], workspace, config, source, devices, wanted))
    if wanted.dry_run:
        rows = rows_to_come(workspace, config, wanted.split, wanted.cameras, wanted.limit, wanted.jobs, say)
    else:
        rows = _prepared_rows(workspace, config, wanted, say)
    if wanted.shard:
        rows = part_of(rows, wanted.shard)
        if not rows:
            say(f"part {wanted.shard} holds no unit: there are fewer units than parts")
            return
    for kind in kinds:
        if wanted.dry_run:
            left = outlook(kind, workspace, config, rows, wanted.name, overwrite=wanted.overwrite)
            say(_line(left, _devices_of(left, devices), wanted))
        else:
            _run(jobs.describe(kind, workspace, config, rows, wanted.name), source, devices, wanted, say)


def _devices(source: Source | None, wanted: Wanted) -> tuple[str, ...]:
    """Return where the work is done, checked to be there: the CPU for what no GPU helps, and in place of a cluster."""
    if wanted.scheduler:
        return ("cpu",)
    idle = source is None or not source.accelerated
    asked = "cpu" if idle and wanted.device == "auto" and not wanted.every_device else wanted.device
    # A GPU that was asked for by name must be there, even where it would have nothing to do.
    devices = resolve_devices(asked, every=wanted.every_device)
    if source is None or idle:
        return ("cpu",)
    source.check_device(devices[0])
    return devices


def _assumed(
    kind: PriorKind, workspace: Workspace, config: Any, source: Source | None, devices: Sequence[str], wanted: Wanted
) -> str:
    """Return the first line of the output: all that was assumed."""
    snog, name = config.priors.snog, wanted.name
    if source is None:
        what = f"anchors by SNOG, {snog.draws} draws of {snog.anchors}, seed {config.seed}"
    else:
        what, name = f"{kind} {source.summary()}", jobs.store_name(source, wanted.name)
    where = wanted.scheduler or ", ".join(devices)
    store = workspace.store(kind, name).relative_to(workspace.path)
    size_of = "x".join(str(side) for side in config.data.image_size)
    return f"{what}; {workspace.dataset}, split {wanted.split}, {size_of}, on {where}, into {store}"


def _prepared_rows(workspace: Workspace, config: Any, wanted: Wanted, say: Say) -> Rows:
    """Return the rows of the split, their frames prepared."""
    manifest = preparation.ensure_prepared(
        workspace, config, wanted.split, ("frames",), wanted.cameras, auto=wanted.auto, jobs=wanted.jobs
    )
    for name in SPLITS if wanted.split == "all" else (wanted.split,):
        reasons = manifest.left_out.get(name, {})
        if reasons:
            listed = ", ".join(f"{count:,} ({reason})" for reason, count in reasons.items())
            say(f"{name}: samples left out: {listed}; see `vipocc data check`")
    return wanted_rows(manifest, wanted.split, wanted.cameras, wanted.limit)


def _run(job: Job, source: Source | None, devices: tuple[str, ...], wanted: Wanted, say: Say) -> None:
    left = left_of(job, overwrite=wanted.overwrite)
    devices = _devices_of(left, devices)
    say(_line(left, devices, wanted))
    if not left.missing:
        return
    rows = f"{left.missing:,} rows of {job.spec.kind}"
    elsewhere = "use a workspace on another disk (`vipocc init -C FOLDER`)"
    refuse_without_space(job.path, left.bytes, rows, elsewhere)
    seconds = 0.0 if left.recipe.accelerated else _seconds(left, devices[0])
    executor: Executor = LocalExecutor(devices, left.workers(wanted.jobs, seconds))
    if wanted.scheduler:
        # Which device a worker has is found out there.
        network = source if left.recipe.accelerated else None
        place = "cpu" if network is None else partial(worker_device, wanted.device, network.check_device)
        executor = DaskExecutor(wanted.scheduler, place)
    done = job.run(executor, overwrite=wanted.overwrite)
    say(f"{left.recipe.shown}: {done.rows:,} rows in {duration(done.seconds)}, {job.rows:,} in {job.path.name}")


def _devices_of(left: Left, devices: tuple[str, ...]) -> tuple[str, ...]:
    return devices if left.recipe.accelerated else ("cpu",)


def _line(left: Left, devices: tuple[str, ...], wanted: Wanted) -> str:
    """Return what is to be done, in words."""
    recipe = left.recipe
    if not left.missing:
        return f"{recipe.shown}: nothing to do, all {left.rows:,} rows are there"
    text = f"{recipe.shown}: {left.missing:,} of {left.rows:,} rows in {_count(left.units, 'unit')}, {size(left.bytes)}"
    # Loading a network to time it takes as long as some of its work: a run that goes ahead tells the rate itself.
    if wanted.dry_run or not recipe.accelerated:
        text += _time(left, devices, wanted)
    return f"{text}; {recipe.model}"


def _time(left: Left, devices: tuple[str, ...], wanted: Wanted) -> str:
    """Return how long the work takes, in words, measured here."""
    if wanted.scheduler:
        here = resolve_devices()[0] if left.recipe.accelerated else "cpu"
        if left.recipe.accelerated and here == "cpu":
            return ", the time not known: no GPU here to measure on"
        return f", about {duration(max(_seconds(left, here), 1))} on one {here}, which the workers share"
    seconds = _seconds(left, devices[0])
    processes = min(len(devices) * left.workers(wanted.jobs, seconds), left.units)
    return f", about {duration(max(seconds / processes, 1))} in {_count(processes, 'process', 'es')}"


def _seconds(left: Left, device: str) -> float:
    """Return the time that one process on a device takes for all."""
    return left.missing * left.recipe.computer.seconds_per_row(device, left.recipe.size)


def _count(number: int, noun: str, ending: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else ending}"
