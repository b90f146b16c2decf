"""The report for people: tables on a terminal, plain lines elsewhere; colour for what is missing or damaged alone."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
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
        click.secho(_job_line(job), fg="yellow" if job.state in ("partial", "unusable") else None)
    for line in _lack_lines(report.jobs):
        click.secho(line, fg="yellow")
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
    unposed = {drive.drive: sum(camera.unposed for camera in drive.cameras.values()) for drive in report.drives}
    yield from _counted(unposed, "images are of frames without pose and are not used")
    standing = {drive.drive: drive.standing for drive in report.drives}
    yield from _counted(standing, "frames have exactly the pose of the frame before")
    told: dict[str, list[str]] = {}
    for drive in report.drives:
        for fact in drive.facts:
            told.setdefault(fact, []).append(drive.drive)
    for fact, drives in told.items():
        yield f"known of {_drives(drives)}: {fact}"
    for repeat in report.repeats:
        yield f"note: {repeat.poses:,} poses of {repeat.drive} are also those of {repeat.of}"


def _counted(counts: Mapping[str, int], what: str) -> Iterator[str]:
    """Yield what there is some of, in one line however many drives have it."""
    some = {drive: count for drive, count in counts.items() if count}
    if some:
        yield f"note: {sum(some.values()):,} {what} ({_drives(list(some))})"


def _drives(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} drives"


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


def _job_line(job: JobReport) -> str:
    gone = "".join(f"; {count:,} {what} were never published" for what, count in job.unpublished.items())
    said = {
        "unlisted": f"split {job.split} lists no frames",
        "complete": f"has everything (split {job.split})",
        "unusable": f"nothing it needs is usable (split {job.split})",
        "partial": f"runs on {job.usable:,} of {job.listed:,} samples (split {job.split})",
    }[job.state]
    return f"{job.job}: {said}{gone}"


def _lack_lines(jobs: Sequence[JobReport]) -> Iterator[str]:
    """Yield a line for each gap; jobs that lack the same files share one."""
    grouped: dict[tuple[str, int, int, tuple[str, ...]], list[str]] = {}
    held: dict[tuple[str, int, int, tuple[str, ...]], Lack] = {}
    for job in jobs:
        for lack in job.lacks:
            key = (lack.what, lack.missing, lack.needed, tuple(lack.downloads))
            grouped.setdefault(key, []).append(job.job)
            held[key] = lack
    for key, names in grouped.items():
        lack = held[key]
        first, *others = lack.downloads
        drives = sorted({drive for some in lack.downloads.values() for drive in some})
        more = f" and {len(others):,} more, which --json names" if others else ""
        verb = "lacks" if len(names) == 1 else "lack"
        yield (
            f"{', '.join(names)} {verb} {lack.missing:,} of {lack.needed:,} {lack.what} ({_drives(drives)}): "
            f"{first}{more}"
        )


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
