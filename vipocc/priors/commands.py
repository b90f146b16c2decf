"""`vipocc priors`: depth, sam, anchors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from vipocc.cli import App, pass_app, workspace_options
from vipocc.errors import UsageError
from vipocc.progress import duration, size

if TYPE_CHECKING:
    from vipocc.priors.job import Job
    from vipocc.priors.jobs import Rows
    from vipocc.stores import Executor

F = TypeVar("F", bound=Callable[..., Any])
Kind = Literal["depth", "instances", "anchors"]

#: Work expected to take longer than this is spread over the cores; below, starting processes costs more than it gains.
SPREAD_FROM = 20.0


@click.group()
def priors() -> None:
    """Compute pseudo-depth, instances and sampling anchors, once, before training.

    What the split needs is indexed and prepared first; for the synthetic dataset the world is generated if need be.
    A second run computes only what is missing.
    """


def _work_options(command: F) -> F:
    """Add what all three commands take."""
    options = [
        click.option(
            "--split", type=click.Choice(["train", "val", "test", "all"]), default="all", show_default=True,
            help="Frames that this split's samples touch, their neighbours t+1 included.",
        ),
        click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images, for a trial."),
        click.option("--store", "name", metavar="NAME", help="Write a second store of this kind, <kind>-NAME.zarr."),
        click.option("--shard", metavar="I/N", help="Do only part I of N (from 0), for array jobs."),
        click.option("--scheduler", metavar="tcp://…", help="Run on a dask.distributed cluster, a worker per device."),
        click.option("--jobs", type=click.IntRange(min=1), help="Processes on the CPU [default: by the work]."),
        click.option("--overwrite", is_flag=True, help="Replace rows that another model or other parameters made."),
        click.option("--no-auto", is_flag=True, help="Refuse to generate, index or prepare what is missing."),
        click.option("--dry-run", is_flag=True, help="Say how many rows and bytes and how much time; write nothing."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _device_options(command: F) -> F:
    """Add what commands with networks take."""
    options = [
        click.option(
            "--source", type=click.Choice(["transformers", "simulated"]),
            help="Networks, or the degraded exact truth of the synthetic world [default there].",
        ),
        click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N."),
        click.option("--devices", type=click.Choice(["all"]), help="All CUDA devices of this machine, a process each."),
        click.option("--batch-size", type=click.IntRange(min=1), help="Images the networks take at once."),
        click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="Arithmetic of the networks."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@priors.command("depth")
@_work_options
@click.option("--model", metavar="ID|FOLDER", help="Metric Depth Anything V2: a hub id or a local folder.")
@_device_options
@workspace_options
@pass_app
def depth(app: App, /, model: str | None, **options: Any) -> None:
    """Metric pseudo-depth of the stereo frames, by Depth Anything V2."""
    _override(app, "depth", options, {"priors.depth.model": model})
    _stage(app, ("depth",), options)


@priors.command("sam")
@_work_options
@click.option("--detector", metavar="ID|FOLDER", help="Grounding DINO: a hub id or a local folder.")
@click.option("--segmenter", metavar="ID|FOLDER", help="SAM: a hub id or a local folder.")
@click.option(
    "--cameras", type=click.Choice(["perspective", "all"]), default="perspective", show_default=True,
    help="Whether fisheyes are segmented too.",
)  # fmt: skip
@_device_options
@workspace_options
@pass_app
def sam(app: App, /, detector: str | None, segmenter: str | None, **options: Any) -> None:
    """Instances by Grounding DINO and SAM, and the anchors drawn from them."""
    _override(app, "sam", options, {"priors.sam.detector": detector, "priors.sam.segmenter": segmenter})
    _stage(app, ("instances", "anchors"), options)


@priors.command("anchors")
@_work_options
@click.option(
    "--cameras", type=click.Choice(["perspective", "all"]), default="perspective", show_default=True,
    help="Whether fisheyes get anchors too.",
)  # fmt: skip
@workspace_options
@pass_app
def anchors(app: App, /, **options: Any) -> None:
    """Sampling anchors (SNOG) from the instances there are; `priors sam` ends with this by itself."""
    _stage(app, ("anchors",), {"device": "cpu", **options})


def _override(app: App, section: str, options: dict[str, Any], more: dict[str, Any]) -> None:
    """Turn options into configuration overrides, so that what is saved beside results is what ran."""
    given = {
        **more,
        f"priors.{section}.batch_size": options.pop("batch_size"),
        f"priors.{section}.dtype": options.pop("dtype"),
    }
    source = options.pop("source")
    if source is None and any(value is not None for value in more.values()):
        # Whoever names a model wants it to run, also where the default is to simulate.
        source = "transformers"
    given["priors.source"] = source
    app.overrides += tuple(f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None)


def _stage(app: App, kinds: tuple[Kind, ...], options: dict[str, Any]) -> None:
    """Check everything, prepare frames, then run the jobs one after another."""
    config, workspace = app.config, app.workspace
    from vipocc.priors import jobs
    from vipocc.priors.devices import check_dtype, resolve_devices
    from vipocc.stores import parse_shard

    part = parse_shard(options["shard"]) if options["shard"] else None
    if options["scheduler"] and options.get("devices"):
        raise UsageError("--devices all and --scheduler contradict each other", fix="give one of them")
    source = jobs.check(kinds[0], workspace, config)
    cameras = options.get("cameras", "perspective")
    jobs.check_cameras(cameras, source)
    devices: tuple[str, ...] = ("cpu",)
    if not options["scheduler"]:
        every, device = options.get("devices") == "all", options["device"]
        # The simulation and SNOG run on the CPU; a GPU that was asked for by name must be there all the same.
        idle = source == "simulated" or kinds[0] == "anchors"
        devices = resolve_devices("cpu" if idle and device == "auto" and not every else device, every=every)
        if source == "transformers" and kinds[0] != "anchors":
            check_dtype((config.priors.depth if kinds[0] == "depth" else config.priors.sam).dtype, devices[0])
        devices = ("cpu",) if idle else devices
    app.say(_assumed(app, kinds, source, devices, options))
    rows = _rows(app, cameras, options)
    if rows is None:
        return
    for kind in kinds:
        job = _describe(app, kind, rows, options)
        if job is None:
            return
        if part is not None:
            job = job.part(*part)
        _run(app, job, devices if kind != "anchors" else ("cpu",), options)


def _assumed(app: App, kinds: tuple[Kind, ...], source: str, devices: tuple[str, ...], options: dict[str, Any]) -> str:
    config = app.config.priors
    if kinds[0] == "anchors":
        what = f"anchors by SNOG, {config.snog.draws} draws of {config.snog.anchors}, seed {app.config.seed}"
    elif source == "simulated":
        what = f"{kinds[0]} simulated from the synthetic world's exact truth (no network runs), seed {app.config.seed}"
    elif kinds[0] == "depth":
        what = f"depth by {config.depth.model} in {config.depth.dtype}, short side {config.depth.short_side}"
    else:
        what = f"instances by {config.sam.detector} and {config.sam.segmenter} in {config.sam.dtype}"
    where = options["scheduler"] or ", ".join(devices)
    store = app.workspace.store(kinds[0], options["name"]).relative_to(app.workspace.path)
    size_of = "x".join(str(side) for side in app.config.data.image_size)
    return f"{what}; {app.workspace.dataset}, split {options['split']}, {size_of}, on {where}, into {store}"


def _rows(app: App, cameras: Literal["perspective", "all"], options: dict[str, Any]) -> Rows | None:
    """Return the rows of the split, their frames prepared; with --dry-run nothing is prepared, only told."""
    from vipocc.data_manifests import stage
    from vipocc.priors.jobs import wanted_rows

    split = options["split"]
    if not options["dry_run"]:
        manifest = stage.ensure_prepared(
            app.workspace, app.config, split, ("frames",), cameras, auto=not options["no_auto"], jobs=options["jobs"]
        )
        for name in ("train", "val", "test") if split == "all" else (split,):
            reasons = manifest.left_out.get(name, {})
            if reasons:
                listed = ", ".join(f"{count:,} ({reason})" for reason, count in reasons.items())
                app.say(f"{name}: samples left out: {listed}; see `vipocc data check`")
        return wanted_rows(manifest, split, cameras, options["limit"])
    if app.workspace.dataset == "synthetic":
        from vipocc.data_manifests.synthetic.generate import estimate, is_complete

        world = app.config.data.world
        if not is_complete(app.workspace.root, world):
            seconds, count = estimate(world, options["jobs"] or stage.cores())
            app.say(
                f"the synthetic world would be generated first: {world.frames:,} frames, about {duration(seconds)}, "
                f"{size(count)}; its rows are counted once it is there"
            )
            return None
    manifest = stage.index(app.workspace, app.config).manifest
    rows = wanted_rows(manifest, split, cameras, options["limit"])
    for work in stage.plan_jobs(app.workspace, app.config.data, manifest, split, ("frames",), cameras):
        missing = work.plan().missing
        if missing:
            app.say(
                f"frames: {missing:,} rows would be prepared first, "
                f"about {duration(missing * work.seconds_per_row)} on one core, {size(missing * work.bytes_per_row)}; "
                f"then {sum(len(some) for some in rows.values()):,} rows of this prior"
            )
            return None
    return rows


def _describe(app: App, kind: Kind, rows: Rows, options: dict[str, Any]) -> Job | None:
    from vipocc.errors import MissingInputError
    from vipocc.priors import jobs

    describe = {"depth": jobs.depth_job, "instances": jobs.instances_job, "anchors": jobs.anchors_job}[kind]
    try:
        return describe(app.workspace, app.config, rows, options["name"])
    except MissingInputError:
        # A dry run of `priors sam` has no instances yet to plan anchors for.
        if options["dry_run"] and kind == "anchors":
            app.say(f"anchors: {sum(len(some) for some in rows.values()):,} rows after that")
            return None
        raise


def _run(app: App, job: Job, devices: tuple[str, ...], options: dict[str, Any]) -> None:
    plan = job.plan(overwrite=options["overwrite"])
    missing = job.rows if plan is None else plan.missing
    units = len(job.requests) if plan is None else len(plan.todo)
    kind = f"{job.spec.kind} ({job.source})" if job.source == "simulated" else job.spec.kind
    if not missing:
        app.say(f"{kind}: nothing to do, all {job.rows:,} rows are there")
        return
    workers = options["jobs"] or 1
    cheap = job.source == "simulated" or job.spec.kind == "anchors"
    text = f"{kind}: {missing:,} of {job.rows:,} rows in {_count(units, 'unit')}, {size(missing * job.bytes_per_row)}"
    if cheap or options["dry_run"]:
        from vipocc.data_manifests.stage import cores

        seconds = missing * job.computer.seconds_per_row(devices[0], job.size)
        if cheap and options["jobs"] is None and seconds > SPREAD_FROM:
            workers = cores()
        seconds /= len(devices) * min(workers, units)
        text += f", about {duration(max(seconds, 1))} in {_count(len(devices) * min(workers, units), 'process', 'es')}"
    app.say(f"{text}; {job.model}")
    if options["dry_run"]:
        return
    done = job.run(_executor(devices, workers, options), overwrite=options["overwrite"])
    app.say(f"{kind}: {done.rows:,} rows in {duration(done.seconds)}, {job.rows:,} in {job.path.name}")


def _count(number: int, noun: str, ending: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else ending}"


def _executor(devices: tuple[str, ...], workers: int, options: dict[str, Any]) -> Executor:
    if options["scheduler"]:
        from vipocc.stores import DaskExecutor

        return DaskExecutor(options["scheduler"])
    from vipocc.stores import LocalExecutor

    return LocalExecutor(devices, workers)
