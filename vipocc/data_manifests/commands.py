"""`vipocc data`: check, index and prepare a dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vipocc.cli import App, pass_app, path_option, workspace_options

if TYPE_CHECKING:
    from vipocc.data_manifests.check import CheckReport
    from vipocc.data_manifests.manifest import Cameras

_SPLIT = click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    default="all",
    show_default=True,
    help="Which samples.",
)
_JOBS = click.option("--jobs", type=click.IntRange(1), metavar="N", help="Processes [default: one for each core].")


@click.group()
def data() -> None:
    """Check, index and prepare a dataset."""


@data.command("check")
@click.option(
    "--for", "job", metavar="JOB",
    help="Only what this job needs: priors, train, validation, eval-occupancy, eval-depth, eval-sampler, or all of "
    "them. Exit code 3 if it lacks anything.",
)  # fmt: skip
@click.option("--deep", is_flag=True, help="Read every file instead of a few of each drive and camera.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Threads that read [default: one for each core].")
@workspace_options
@pass_app
def check_command(app: App, job: str | None, deep: bool, as_json: bool, jobs: int | None) -> int:
    """Say what is there, what each job lacks, which download fills the gap, and what it will cost. Writes nothing.

    \b
    Exit code 0: usable, and no file that was read is damaged; with --for, the
                 job can run on everything that its split lists.
    Exit code 2: a file is damaged or wrong, or nothing is usable; with --for,
                 of what the job needs.
    Exit code 3: with --for only: the job can run, but lacks something.
    """
    from vipocc.data_manifests.check import JOBS, check
    from vipocc.data_manifests.check.show import show
    from vipocc.data_manifests.stage import cores
    from vipocc.data_manifests.synthetic.generate import is_complete
    from vipocc.errors import MissingInputError, UsageError

    if job is not None and job not in (*JOBS, "all"):
        raise UsageError(f"there is no job '{job}'", fix=f"use --for {', '.join(JOBS)} or all")
    workspace, config = app.workspace, app.config
    if workspace.dataset == "synthetic" and not is_complete(workspace.root, config.data.world):
        raise MissingInputError(
            "the synthetic world is not generated yet", where=workspace.root, fix="run `vipocc data prepare`"
        )
    only = None if job in (None, "all") else (str(job),)
    report = check(workspace.root, workspace.dataset, config.data, only=only, deep=deep, jobs=jobs or cores())
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1))
    else:
        show(report, workspace.path)
    _refuse_unsound(report, job)
    return 3 if job is not None and any(one.state in ("partial", "unusable") for one in report.jobs) else 0


@data.command("index")
@click.option("--no-auto", is_flag=True, help="Refuse to generate an absent synthetic world.")
@workspace_options
@pass_app
def index_command(app: App, no_auto: bool) -> None:
    """Write the manifest anew: which frames exist, where, calibrated how."""
    from vipocc.data_manifests import stage

    workspace, config = app.workspace, app.config
    app.say(f"indexing {workspace.dataset} at {workspace.root}, split {config.data.split or 'as packaged'}")
    stage.ensure_world(workspace, config, auto=not no_auto)
    manifest = stage.index(workspace, config, again=True).manifest
    manifest.save(workspace.manifest)
    frames = sum(manifest.rows(sequence) for sequence in manifest.sequences)
    app.say(f"{len(manifest.sequences)} drives, {frames:,} posed frames -> {workspace.manifest}")
    for split, reasons in manifest.left_out.items():
        app.say(f"{split}: {_count(manifest, split):,} samples" + _reasons(reasons))


@data.command("prepare")
@_SPLIT
@click.option(
    "--kinds", metavar="LIST", help="Of frames, lidar, occupancy, by commas [default: all that the dataset has]."
)
@click.option(
    "--cameras",
    type=click.Choice(["perspective", "all", "every"]),
    default="all",
    show_default=True,
    help="Images of which cameras: without fisheyes, all of samples, or also those that no sample looks through.",
)
@click.option("--no-auto", is_flag=True, help="Refuse to generate an absent synthetic world.")
@_JOBS
@click.option("--shard", metavar="I/N", help="Do only part I of N (from 0), for array jobs.")
@click.option("--scheduler", metavar="tcp://…", help="Run on the workers of a dask.distributed cluster.")
@click.option("--dry-run", is_flag=True, help="Say how many rows and bytes and how much time; write nothing.")
@click.option(
    "--device", default="cpu", show_default=True, metavar="DEVICE", help="cpu or cuda[:N], for occupancy ground truth."
)
@workspace_options
@pass_app
def prepare_command(
    app: App, /, split: str, kinds: str | None, cameras: Cameras, no_auto: bool, dry_run: bool, **means: Any
) -> None:
    """Decode, rectify and resize images; rasterise LiDAR depth; build occupancy ground truth.

    Resumes where an earlier run stopped.
    """
    from vipocc.data_manifests import stage
    from vipocc.data_manifests.datasets import adapter
    from vipocc.data_manifests.ground_truth.devices import check_device
    from vipocc.stores import parse_shard

    workspace, config = app.workspace, app.config
    chosen = adapter(workspace.dataset).products
    if kinds is not None:
        chosen = tuple(kind.strip() for kind in kinds.split(",") if kind.strip())
    stage.refuse_unknown_kinds(workspace.dataset, chosen)
    part = parse_shard(means["shard"]) if means["shard"] else None
    jobs, device = means["jobs"], means["device"]
    height, width = config.data.image_size
    app.say(
        f"preparing {', '.join(chosen)} of {workspace.dataset} at {height}x{width}, split {split} "
        f"of {config.data.split or 'its own lists'}"
    )
    check_device(device)
    if dry_run:
        _dry_run(app, split, chosen, cameras, part, jobs or stage.cores())
        return
    stage.ensure_world(workspace, config, auto=not no_auto, jobs=jobs)
    manifest = stage.ensure_prepared(
        workspace, config, split, chosen, cameras, jobs=jobs, device=device, part=part, scheduler=means["scheduler"]
    )
    for name in ("train", "val", "test") if split == "all" else (split,):
        app.say(f"{name}: {_count(manifest, name):,} samples" + _reasons(manifest.left_out.get(name, {})))
    share = "everything" if part is None else f"part {part[0]} of {part[1]}"
    app.say(f"{share} of {', '.join(chosen)} is in {workspace.store(chosen[0]).parent}")


def _dry_run(
    app: App, split: str, kinds: Sequence[str], cameras: Cameras, part: tuple[int, int] | None, jobs: int
) -> None:
    """Say what `data prepare` would do; writes nothing."""
    from vipocc.data_manifests import stage
    from vipocc.data_manifests.synthetic.generate import estimate, is_complete
    from vipocc.progress import duration, size

    workspace, config = app.workspace, app.config
    if workspace.dataset == "synthetic" and not is_complete(workspace.root, config.data.world):
        seconds, count = estimate(config.data.world, jobs)
        app.say(
            f"the synthetic world would be generated first: {config.data.world.frames:,} frames, "
            f"about {duration(seconds)}, {size(count)}; its rows are counted once it is there"
        )
        return
    manifest = stage.index(workspace, config).manifest
    stage.require_samples(manifest, split)
    processes = f"{jobs} process" + ("" if jobs == 1 else "es")
    for work in stage.plan_jobs(workspace, config.data, manifest, split, kinds, cameras):
        job = work if part is None else work.part(*part)
        plan = job.plan()
        took = duration(plan.missing * job.seconds_per_row / jobs)
        app.say(
            f"{job.kind}: {plan.missing:,} of {plan.rows:,} rows would be made, "
            f"{size(plan.missing * job.bytes_per_row)}, about {took} in {processes}"
        )
        for note in job.notes:
            app.say(f"note: {note}")


@data.command("contact-sheet")
@path_option(
    "--output", metavar="FILE", help="The .png to write [default: contact_sheet.png in the workspace's reports folder]."
)
@click.option("--frames", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Frames of a drive.")
@click.option(
    "--width", type=click.IntRange(400, 4000), default=1600, show_default=True, metavar="N", help="Pixels across."
)
@workspace_options
@pass_app
def contact_sheet_command(app: App, output: Path | None, frames: int, width: int) -> None:
    """Draw one picture of the synthetic world: what its cameras and its LiDAR saw, and the truth.

    A block for the first drive of each split.
    """
    from vipocc.data_manifests.synthetic.contact_sheet import contact_sheet
    from vipocc.data_manifests.synthetic.generate import is_complete
    from vipocc.errors import MissingInputError, UsageError

    workspace = app.workspace
    if workspace.dataset != "synthetic":
        raise UsageError(
            f"contact sheets are of the synthetic world, not of {workspace.dataset}", fix="look into its image folders"
        )
    if not is_complete(workspace.root, app.config.data.world):
        raise MissingInputError(
            "the synthetic world is not generated yet", where=workspace.root, fix="run `vipocc data prepare`"
        )
    path = output or workspace.reports / "contact_sheet.png"
    contact_sheet(workspace.root, path, frames, width)
    app.say(f"wrote {path}")


def _count(manifest: Any, split: str) -> int:
    return sum(len(rows) for rows in manifest.key_rows(split).values())


def _reasons(left_out: dict[str, int]) -> str:
    from vipocc.data_manifests.check.show import reasons

    return reasons(left_out)


def _refuse_unsound(report: CheckReport, job: str | None) -> None:
    from vipocc.errors import DataError

    if report.faults:
        first = report.faults[0]
        more = f" (the first of {len(report.faults):,} such files)" if len(report.faults) > 1 else ""
        raise DataError(f"{first.fault}{more}", where=f"{report.root}/{first.path}", fix=first.fix)
    if not report.sound:
        raise DataError(
            "no posed frame has an image", where=report.root, fix="download what the report says is lacking"
        )
    if job is None:
        return
    if all(one.state == "unlisted" for one in report.jobs):
        raise DataError(
            f"split {report.split} lists no frame for {job}", where=report.root, fix="set data.split, or choose another"
        )
    if all(one.state in ("unusable", "unlisted") for one in report.jobs):
        raise DataError(
            f"nothing of what {job} needs is usable", where=report.root, fix="download what the report says is lacking"
        )
