"""`vipocc priors`: depth, sam, anchors, report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from vipocc.cli import App, pass_app, path_option, workspace_options
from vipocc.errors import UsageError
from vipocc.progress import duration, size

if TYPE_CHECKING:
    from vipocc.priors.config import DepthConfig, SamConfig
    from vipocc.priors.job import Job, Source
    from vipocc.priors.jobs import Rows
    from vipocc.stores import Executor

F = TypeVar("F", bound=Callable[..., Any])
Kind = Literal["depth", "instances", "anchors"]

#: Work expected to take longer than this is spread over the cores; below, starting processes costs more than it gains.
SPREAD_FROM = 20.0


class BatchSizeOption(click.ParamType[Any]):
    """A number from 1, or `auto`."""

    name = "batch size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the number, or `auto`."""
        if value == "auto":
            return "auto"
        if not str(value).isdecimal() or int(value) == 0:
            self.fail(f"{value!r} is neither a number from 1 nor 'auto'.", param, ctx)
        return int(value)


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
        click.option(
            "--batch-size", type=BatchSizeOption(), metavar="N|auto",
            help="Images the networks take at once; auto: tried out on CUDA, halved when memory runs out.",
        ),
        click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="Arithmetic of the networks."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@priors.command("depth")
@_work_options
@click.option(
    "--model", metavar="ID|FOLDER|PTH", help="Metric Depth Anything V2: a hub id, a local folder or an original .pth."
)
@click.option("--max-depth", type=float, metavar="METRES", help="Of an original .pth whose name does not tell it.")
@click.option(
    "--from",
    "images",
    type=click.Choice(["prepared", "raw"]),
    help="Prepared images (as published), or the dataset's own, into the store depth-raw [default: prepared].",
)
@click.option(
    "--preprocessing",
    type=click.Choice(["official", "hub"]),
    help="The published code's, or that of the hub's image processor [default: official].",
)
@click.option(
    "--input-size",
    type=click.Choice(["published", "native"]),
    help="Short side 518 as published, or the image's own size: faster, other depth [default: published].",
)
@click.option("--dtype-stored", type=click.Choice(["float16", "float32"]), help="Type of the stored metres.")
@click.option("--compile", "compiled", is_flag=True, default=None, help="Compile the network first (CUDA).")
@_device_options
@workspace_options
@pass_app
def depth(app: App, /, **options: Any) -> None:
    """Metric pseudo-depth of the stereo frames, by Depth Anything V2."""
    network = ("model", "max_depth", "images", "preprocessing", "input_size", "compiled")
    given = {f"priors.depth.{name}": options.pop(name) for name in network}
    stored = options.pop("dtype_stored")
    _override(app, "depth", options, given)
    if stored is not None:
        app.overrides += (f"priors.depth.stored={stored}",)
    _stage(app, ("depth",), options)


@priors.command("sam")
@_work_options
@click.option("--detector", metavar="ID|FOLDER|PTH", help="Grounding DINO: a hub id, a folder, or an official .pth.")
@click.option("--segmenter", metavar="ID|FOLDER|PTH", help="SAM: a hub id, a folder, or an official .pth.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "transformers", "original"]),
    help="What runs the networks: transformers, or the original packages for .pth files [default: by the weights].",
)
@click.option("--tokenizer", metavar="ID|FOLDER", help="For a detector given as .pth: BERT's tokenizer.")
@click.option(
    "--encoding",
    type=click.Choice(["square", "native"]),
    help="SAM's input: padded to a square as published [default], or to whole patches only (faster, not the same).",
)
@click.option(
    "--cameras", type=click.Choice(["perspective", "all"]), default="perspective", show_default=True,
    help="Whether fisheyes are segmented too.",
)  # fmt: skip
@_device_options
@workspace_options
@pass_app
def sam(app: App, /, **options: Any) -> None:
    """Instances by Grounding DINO and SAM, and the anchors drawn from them."""
    more = ("detector", "segmenter", "engine", "tokenizer", "encoding")
    _override(app, "sam", options, {f"priors.sam.{name}": options.pop(name) for name in more})
    _stage(app, ("instances", "anchors"), options)


@priors.command("convert")
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer", metavar="ID|FOLDER", default="google-bert/bert-base-uncased", show_default=True,
    help="For a Grounding DINO's .pth: BERT's tokenizer, if none lies beside the file.",
)  # fmt: skip
def convert(source: str, target: Path, tokenizer: str) -> None:
    """Convert a Grounding DINO or SAM checkpoint between its two layouts.

    SOURCE is an official .pth and TARGET a new folder for transformers, or the other way round. Nothing in the file is
    executed; tensors that are missing or unknown are an error.
    """
    from vipocc.priors.grounded_sam.conversion import convert as run

    kind = run(source, target, tokenizer)
    click.echo(f"{'Grounding DINO' if kind == 'grounding-dino' else 'SAM'}: {source} is now also {target}")


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


@priors.command("report")
@click.option("--store", "name", metavar="NAME", help="Report on the second stores called <kind>-NAME.zarr.")
@click.option(
    "--frames",
    type=click.IntRange(0),
    default=8,
    show_default=True,
    help="Frames in the contact sheets, evenly spaced.",
)
@path_option("--output", metavar="FILE", help="The page [default: reports/priors.html in the workspace].")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object instead of writing a page.")
@workspace_options
@pass_app
def report(app: App, name: str | None, frames: int, output: Path | None, as_json: bool) -> None:
    """Write one HTML page to look at before training: contact sheets, distributions, outliers, provenance."""
    from vipocc.priors.report.compose import compose
    from vipocc.priors.report.examine import examine
    from vipocc.priors.report.sheets import Sheets

    workspace = app.workspace
    examined = examine(workspace, name)
    if as_json:
        click.echo(json.dumps(examined.summary(), indent=1, ensure_ascii=False))
        return
    path = output or workspace.reports / (f"priors-{name}.html" if name else "priors.html")
    app.say(f"priors of {examined.dataset}: {', '.join(examined.provenance)} -> {path}")
    compose(examined, Sheets(examined.stores, examined.labels, app.config.priors.snog), frames).save(path)
    told = f"{len(examined.outliers):,} outliers" if examined.outliers else "no outliers"
    app.say(f"{told}; {size(path.stat().st_size)}, open it in a browser")


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
    from vipocc.data_manifests.stage import require_listed
    from vipocc.priors import jobs
    from vipocc.priors.devices import check_compiled, check_dtype, resolve_devices
    from vipocc.priors.parts import part_of
    from vipocc.stores import parse_shard

    if options["shard"]:
        parse_shard(options["shard"])
    if options["scheduler"] and options.get("devices"):
        raise UsageError("--devices all and --scheduler contradict each other", fix="give one of them")
    require_listed(workspace, config, options["split"])
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
            check_compiled(kinds[0] == "depth" and config.priors.depth.compiled, devices[0])
        devices = ("cpu",) if idle else devices
    app.say(_assumed(app, kinds, source, devices, options))
    rows = _rows(app, cameras, options)
    if rows is None:
        return
    if options["shard"]:
        rows = part_of(rows, options["shard"])
        if not rows:
            app.say(f"part {options['shard']} holds no unit: there are fewer units than parts")
            return
    for kind in kinds:
        job = _describe(app, kind, rows, options)
        if job is None:
            return
        _run(app, job, devices if kind != "anchors" else ("cpu",), options)


def _assumed(
    app: App, kinds: tuple[Kind, ...], source: Source, devices: tuple[str, ...], options: dict[str, Any]
) -> str:
    from vipocc.priors.jobs import depth_store_name

    config = app.config.priors
    if kinds[0] == "anchors":
        what = f"anchors by SNOG, {config.snog.draws} draws of {config.snog.anchors}, seed {app.config.seed}"
    elif source == "simulated":
        what = f"{kinds[0]} simulated from the synthetic world's exact truth (no network runs), seed {app.config.seed}"
    elif kinds[0] == "depth":
        what = f"depth by {config.depth.model} in {config.depth.dtype}, {_input(config.depth)}"
    else:
        what = f"instances by {_engines(config.sam)} in {config.sam.dtype}"
    where = options["scheduler"] or ", ".join(devices)
    name = depth_store_name(config, source, options["name"]) if kinds[0] == "depth" else options["name"]
    store = app.workspace.store(kinds[0], name).relative_to(app.workspace.path)
    size_of = "x".join(str(side) for side in app.config.data.image_size)
    return f"{what}; {app.workspace.dataset}, split {options['split']}, {size_of}, on {where}, into {store}"


def _input(depth: DepthConfig) -> str:
    size = "own size" if depth.input_size == "native" else f"short side {depth.short_side}"
    size = "the hub's processing" if depth.preprocessing == "hub" else size
    return f"{depth.images} images, {size}"


def _engines(config: SamConfig) -> str:
    """Name both models and what runs them: the engines may differ."""
    from vipocc.priors.grounded_sam.engines import choose_engine
    from vipocc.priors.grounded_sam.networks import DETECTOR, SEGMENTER

    models = ((config.detector, DETECTOR), (config.segmenter, SEGMENTER))
    return " and ".join(f"{name} (engine {choose_engine(config, name, option).name})" for name, option in models)


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
    from vipocc.stores.space import refuse_without_space

    rows = f"{missing:,} rows of {job.spec.kind}"
    elsewhere = "use a workspace on another disk (`vipocc init -C FOLDER`)"
    refuse_without_space(job.path, missing * job.bytes_per_row, rows, elsewhere)
    done = job.run(_executor(job, devices, workers, options), overwrite=options["overwrite"])
    app.say(f"{kind}: {done.rows:,} rows in {duration(done.seconds)}, {job.rows:,} in {job.path.name}")


def _count(number: int, noun: str, ending: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else ending}"


def _executor(job: Job, devices: tuple[str, ...], workers: int, options: dict[str, Any]) -> Executor:
    from vipocc.stores import DaskExecutor, LocalExecutor

    if options["scheduler"]:
        from functools import partial

        from vipocc.priors.devices import worker_device

        cheap = job.source == "simulated" or job.spec.kind == "anchors"
        return DaskExecutor(options["scheduler"], "cpu" if cheap else partial(worker_device, options["device"]))
    return LocalExecutor(devices, workers)
