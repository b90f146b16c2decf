"""`vipocc data`: check, index and prepare a dataset."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from vipocc.cli import App, pass_app, workspace_options

if TYPE_CHECKING:
    from vipocc.data_manifests.check import CheckReport

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
@click.option("--deep", is_flag=True, help="Read every file instead of a few of each drive and camera.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@_JOBS
@workspace_options
@pass_app
def check_command(app: App, deep: bool, as_json: bool, jobs: int | None) -> None:
    """Say what is there, what each job lacks, and which download fills the gap. Writes nothing.

    Exit code 0: something is usable and nothing read was damaged; 2 otherwise.
    """
    from vipocc.data_manifests.check import check
    from vipocc.data_manifests.stage import cores
    from vipocc.data_manifests.synthetic.generate import is_complete
    from vipocc.errors import MissingInputError

    workspace, config = app.workspace, app.config
    if workspace.dataset == "synthetic" and not is_complete(workspace.root, config.data.world):
        raise MissingInputError(
            "the synthetic world is not generated yet", where=workspace.root, fix="run `vipocc data prepare`"
        )
    report = check(workspace.root, workspace.dataset, config.data, deep=deep, jobs=jobs or cores())
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1))
    else:
        _print(report)
    _refuse_unsound(report)


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
    "--kinds", default="frames,lidar,occupancy", show_default=True, metavar="LIST", help="What to prepare, by commas."
)
@click.option("--no-auto", is_flag=True, help="Refuse to generate an absent synthetic world.")
@_JOBS
@workspace_options
@pass_app
def prepare_command(app: App, split: str, kinds: str, no_auto: bool, jobs: int | None) -> None:
    """Decode, rectify and resize images; rasterise LiDAR depth; build occupancy ground truth.

    Resumes where an earlier run stopped.
    """
    from vipocc.data_manifests import stage

    workspace, config = app.workspace, app.config
    chosen = tuple(kind.strip() for kind in kinds.split(",") if kind.strip())
    height, width = config.data.image_size
    app.say(
        f"preparing {', '.join(chosen)} of {workspace.dataset} at {height}x{width}, split {split} "
        f"of {config.data.split or 'its own lists'}"
    )
    stage.ensure_world(workspace, config, auto=not no_auto, jobs=jobs)
    manifest = stage.ensure_prepared(workspace, config, split, chosen, jobs=jobs)
    for name in ("train", "val", "test") if split == "all" else (split,):
        app.say(f"{name}: {_count(manifest, name):,} samples" + _reasons(manifest.left_out.get(name, {})))
    app.say(f"everything of {', '.join(chosen)} is in {workspace.store(chosen[0]).parent}")


def _count(manifest: Any, split: str) -> int:
    return sum(len(rows) for rows in manifest.key_rows(split).values())


def _reasons(reasons: dict[str, int]) -> str:
    if not reasons:
        return ""
    return "; left out: " + ", ".join(f"{count:,} ({reason})" for reason, count in reasons.items())


def _refuse_unsound(report: CheckReport) -> None:
    from vipocc.errors import DataError

    if report.faults:
        first = report.faults[0]
        more = f" (the first of {len(report.faults):,} such files)" if len(report.faults) > 1 else ""
        raise DataError(f"{first.fault}{more}", where=f"{report.root}/{first.path}", fix=first.fix)
    if not report.sound:
        raise DataError(
            "no posed frame has an image", where=report.root, fix="download what the report says is lacking"
        )


def _print(report: CheckReport) -> None:
    click.echo(f"{report.dataset} at {report.root}, split {report.split}")
    for drive in report.drives:
        images = "  ".join(f"{name} {camera.images:,}" for name, camera in drive.cameras.items())
        click.echo(
            f"  {drive.drive}: {drive.posed_frames:,} posed frames {drive.first_frame}-{drive.last_frame}, "
            f"{drive.gaps} gaps; images: {images}; scans {drive.scans:,}"
        )
        unposed = sum(camera.unposed for camera in drive.cameras.values())
        if unposed:
            click.echo(f"    {unposed:,} images are of frames without pose and are not used")
        for fact in drive.facts:
            click.echo(f"    known: {fact}")
    for split, count in report.usable.items():
        click.echo(
            f"{split}: {count:,} of {report.listed[split]:,} listed samples usable" + _reasons(report.left_out[split])
        )
    for view, count in report.leaks.items():
        held, _, role = view.partition(": ")
        click.echo(f"note: {count:,} {role} images of training samples show frames that {held} lists")
    for lack in report.lacks:
        where = f" ({len(lack.drives)} drives)" if len(lack.drives) > 1 else f" ({lack.drives[0]})"
        click.echo(f"{lack.job} lacks {lack.missing:,} of {lack.needed:,} {lack.what}{where}: {lack.download}")
    for fault in report.faults:
        click.echo(f"damaged: {fault.fault}: {fault.path}; {fault.fix}")
    click.echo(f"{report.read:,} files read, {len(report.faults)} damaged")
