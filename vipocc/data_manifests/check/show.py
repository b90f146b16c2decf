"""The report for people: tables on a terminal, plain lines elsewhere; colour for what is missing or damaged alone."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from vipocc.data_manifests.check.report import CheckReport, Cost, DriveReport, JobReport, Lack
from vipocc.progress import duration, size

# More damaged files than this are counted, not listed; --json has all.
_FAULTS_SHOWN = 20
_WIDE = 110


def show(report: CheckReport, workspace: Path) -> None:
    """Write the report to standard output.

    Args:
        report: what to write.
        workspace: where the stores would be, for the room there is.
    """
    click.echo(f"{report.dataset} at {report.root}, split {report.split}; licence: {report.licence}")
    for note in report.notes:
        click.echo(f"note: {note}")
    if sys.stdout.isatty():
        _drive_table(report)
    else:
        for drive in report.drives:
            click.echo(_drive_line(drive))
    for line in _drive_notes(report):
        click.echo(line)
    for line in _split_lines(report):
        click.echo(line)
    for job in report.jobs:
        for line, bad in _job_lines(job):
            click.secho(line, fg="yellow" if bad else None)
    _costs(report, workspace)
    for fault in report.faults[:_FAULTS_SHOWN]:
        click.secho(f"damaged: {fault.fault}: {fault.path}; {fault.fix}", fg="red")
    if len(report.faults) > _FAULTS_SHOWN:
        click.secho(f"damaged: {len(report.faults) - _FAULTS_SHOWN:,} more, all with --json", fg="red")
    click.echo(_read_line(report))


def _drive_table(report: CheckReport) -> None:
    # Imported here: a pipe or --json does not pay for it.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cameras = list(dict.fromkeys(camera for drive in report.drives for camera in drive.cameras))
    console = Console()
    # The range of frame ids is what a narrow terminal can do without.
    ranges = console.width >= _WIDE
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
    table.add_column("drive", no_wrap=True)
    rows = []
    for drive in report.drives:
        frames = [f"{drive.first_frame}-{drive.last_frame}"] if ranges else []
        counts = [drive.cameras[name].images if name in drive.cameras else 0 for name in cameras]
        cells = [Text(f"{n:,}", style="" if n == drive.posed_frames else "yellow") for n in (*counts, drive.scans)]
        rows.append([Text(text) for text in (f"{drive.posed_frames:,}", *frames, str(drive.gaps))] + cells)
    for column, name in enumerate(("posed", *(("frames",) if ranges else ()), "gaps", *cameras, "sweeps")):
        widest = max((len(row[column]) for row in rows), default=1)
        table.add_column(name, justify="right", overflow="fold", min_width=widest)
    for drive, row in zip(report.drives, rows, strict=True):
        table.add_row(drive.drive, *row)
    console.print(table)


def _drive_line(drive: DriveReport) -> str:
    images = "  ".join(f"{name} {camera.images:,}" for name, camera in drive.cameras.items())
    return (
        f"  {drive.drive}: {drive.posed_frames:,} posed frames {drive.first_frame}-{drive.last_frame}, "
        f"{drive.gaps} gaps; images: {images}; scans {drive.scans:,}"
    )


def _drive_notes(report: CheckReport) -> Iterator[str]:
    for drive in report.drives:
        unposed = sum(camera.unposed for camera in drive.cameras.values())
        if unposed:
            yield f"note: {drive.drive}: {unposed:,} images are of frames without pose and are not used"
        if drive.standing:
            yield f"note: {drive.drive}: {drive.standing:,} frames have exactly the pose of the frame before"
        for fact in drive.facts:
            yield f"known: {drive.drive}: {fact}"
    for repeat in report.repeats:
        yield f"note: {repeat.poses:,} poses of {repeat.drive} are also those of {repeat.of}"


def _split_lines(report: CheckReport) -> Iterator[str]:
    for split, count in report.usable.items():
        yield f"{split}: {count:,} of {report.listed[split]:,} listed samples usable" + reasons(report.left_out[split])
    for view, count in report.leaks.items():
        held, _, role = view.partition(": ")
        yield f"note: {count:,} {role} images of training samples show frames that {held} lists"
    for split, count in report.also_train.items():
        yield f"note: {count:,} samples of {split} are of frames that train lists too, through the other camera"


def reasons(left_out: Mapping[str, int]) -> str:
    """Return why samples were left out, as the end of a sentence."""
    if not left_out:
        return ""
    return "; left out: " + ", ".join(f"{count:,} ({reason})" for reason, count in left_out.items())


def _job_lines(job: JobReport) -> Iterator[tuple[str, bool]]:
    """Yield lines with whether they tell of something missing."""
    gone = "".join(f"; {count:,} {what} were never published" for what, count in job.unpublished.items())
    if job.state == "unlisted":
        yield f"{job.job}: the split lists no {job.split} frames", False
    elif job.state == "complete":
        yield f"{job.job}: has everything ({job.split}){gone}", False
    else:
        state = "nothing it needs is usable" if job.state == "unusable" else f"{job.usable:,} of {job.listed:,} samples"
        yield f"{job.job}: {state} ({job.split}){gone}", True
    for lack in job.lacks:
        for line in _lack_lines(job, lack):
            yield line, True


def _lack_lines(job: JobReport, lack: Lack) -> Iterator[str]:
    drives = sorted({drive for some in lack.downloads.values() for drive in some})
    where = drives[0] if len(drives) == 1 else f"{len(drives)} drives"
    names = list(lack.downloads)
    more = f" and {len(names) - 1} more downloads, all with --json" if len(names) > 1 else ""
    yield f"{job.job} lacks {lack.missing:,} of {lack.needed:,} {lack.what} ({where}): {names[0]}{more}"


def _costs(report: CheckReport, workspace: Path) -> None:
    if not any(cost.rows for cost in report.costs):
        return
    free = shutil.disk_usage(workspace).free
    total = sum(cost.bytes for cost in report.costs)
    click.echo("cost, estimated, from nothing:")
    for cost in report.costs:
        if cost.rows:
            click.echo(_cost_line(cost))
    room = f"{size(total)} in all; {size(free)} are free in the workspace"
    click.secho(f"  {room}", fg="yellow" if total > free else None)
    if report.training_bytes and report.usable.get("train"):
        click.echo(f"  training reads {size(report.training_bytes)} of these")


def _cost_line(cost: Cost) -> str:
    # Estimates are not good to the second.
    step = next((step for step, above in ((3600, 36_000), (600, 3600), (60, 300), (10, 60)) if cost.seconds > above), 1)
    took = duration(max(round(cost.seconds / step) * step, 1))
    return f"  {cost.stage:<10} {cost.rows:>9,} rows  {size(cost.bytes):>7}  about {took} on {cost.on}"


def _read_line(report: CheckReport) -> str:
    damaged = len(report.faults)
    return f"{report.read:,} of {report.present:,} files read, {damaged:,} damaged" + (
        "" if report.read >= report.present else "; --deep reads all"
    )
