"""`vipocc stores`: what the stores of a workspace hold, whether it is sound, and making it sound."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from vipocc.cli import App, pass_app, workspace_options
from vipocc.errors import MissingInputError, StoreError
from vipocc.progress import duration, size

_ENDING = ".zarr"
_names = click.argument("names", nargs=-1, metavar="[STORE]...")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


@click.group()
def stores() -> None:
    """Show, verify and repair the Zarr stores.

    STORE is a kind (frames, depth, instances, anchors, lidar, occupancy), a kind with a name (depth-large) or the path
    of a .zarr folder; by default all stores of the workspace.
    """


@stores.command("status")
@_names
@_json
@workspace_options
@pass_app
def status_command(app: App, names: tuple[str, ...], as_json: bool) -> int:
    """Show rows done, size, provenance and, of runs at work, rows left, rate and time left; from the ledgers alone."""
    from vipocc.stores.verification import status

    paths = _paths(app, names)
    reports = [status(path) for path in paths]
    if as_json:
        click.echo(json.dumps({"stores": reports}, indent=1, ensure_ascii=False))
        return 0
    click.echo(_assumed(paths, names))
    for report in reports:
        click.echo(
            f"{Path(report['store']).stem}: {report['done']} of {report['rows']} rows, {report['units']} units, "
            f"{size(report['bytes'])}{_marks(report)}"
        )
        for note in report["running"]:
            click.echo(f"  being written: {_progress(note)}")
        for name, group in report["groups"].items():
            click.echo(f"  {name}: {group['done']} of {group['rows']}")
        for fingerprint in report["fingerprints"]:
            click.echo("  made by: " + ", ".join(f"{k} {v}" for k, v in fingerprint.items() if _is_short(v)))
    return 0


@stores.command("verify")
@_names
@click.option(
    "--deep", is_flag=True, help="Also compare the inputs that still exist with what the rows were made from."
)
@click.option("--scheduler", metavar="tcp://…", help="Read on the workers of a dask.distributed cluster.")
@_json
@workspace_options
@pass_app
def verify_command(app: App, names: tuple[str, ...], deep: bool, scheduler: str | None, as_json: bool) -> int:
    """Read every checksum; mark what does not hold, so that the next run makes just that again.

    Exit code 2 when something is wrong.
    """
    from vipocc.stores.verification import verify

    paths = _paths(app, names)
    if not as_json:
        click.echo(_assumed(paths, names))
    root = app.workspace.root if deep else None
    reports = [verify(path, deep=deep, root=root, scheduler=scheduler) for path in paths]
    sound = all(report.sound for report in reports)
    if as_json:
        click.echo(json.dumps({"sound": sound, "stores": [r.to_json() for r in reports]}, indent=1, ensure_ascii=False))
        return 0 if sound else 2
    for report in reports:
        state = "sound" if report.sound else f"{len(report.findings)} units do not hold"
        click.echo(
            f"{Path(report.store).stem}: {report.units} units, {report.rows} rows, {size(report.bytes)}: {state}"
        )
        for finding in report.findings:
            click.echo(f"  {finding.unit}: {finding.reason}{'' if finding.marked else ' (could not be marked)'}")
        if report.in_work:
            click.echo(f"  {len(report.in_work)} units are being written and were left out")
        if report.interrupted:
            click.echo(f"  {len(report.interrupted)} units had been interrupted half-way through their replacement")
        if report.inputs_gone:
            click.echo(f"  {report.inputs_gone} input files are no longer there to compare")
    if not sound:
        click.echo(_advice([report.store for report in reports if not report.sound]))
    return 0 if sound else 2


@stores.command("repair")
@_names
@_json
@workspace_options
@pass_app
def repair_command(app: App, names: tuple[str, ...], as_json: bool) -> int:
    """Verify, then carry through what was interrupted, clear litter away and save the good rows of damaged units.

    Exit code 2 when rows were lost: the command that made them makes them again.
    """
    from vipocc.stores.repairing import repair

    paths = _paths(app, names)
    if not as_json:
        click.echo(_assumed(paths, names))
    reports = {str(path): repair(path) for path in paths}
    lost = [path for path, report in reports.items() if report["todo"]]
    if as_json:
        click.echo(json.dumps({"stores": reports}, indent=1))
        return 2 if lost else 0
    for path, report in reports.items():
        click.echo(
            f"{Path(path).stem}: {report['carried_through']} units carried through, {report['saved']} rows saved, "
            f"{report['lost']} lost, {report['litter']} leftover files removed"
        )
    if lost:
        click.echo(_advice(lost))
    return 2 if lost else 0


def _paths(app: App, names: Sequence[str]) -> list[Path]:
    if not names:
        folder = app.workspace.path / "stores" / app.workspace.dataset
        found = sorted(path for path in folder.glob(f"*{_ENDING}") if path.is_dir())
        if not found:
            raise MissingInputError(
                "there are no stores in this workspace yet", where=folder, fix="make some with `vipocc priors depth`"
            )
    else:
        found = [_path(app, name) for name in names]
    for path in found:
        _refuse_other_dataset(app, path)
    return found


def _refuse_other_dataset(app: App, path: Path) -> None:
    """Raise `StoreError` for a store in the workspace that was copied there from a workspace of another dataset."""
    from vipocc.stores import layout

    workspace = app.workspace
    if not path.absolute().is_relative_to(workspace.path / "stores") or not (path / "zarr.json").is_file():
        return
    held = layout.read_root(path).attributes.get("dataset")
    if held not in (None, workspace.dataset):
        raise StoreError(
            f"the store is of dataset '{held}', and the workspace of '{workspace.dataset}'",
            where=path,
            fix="move it to a workspace of its own, or name it by its path from outside of this one",
        )


def _path(app: App, name: str) -> Path:
    if name.endswith(_ENDING) or "/" in name:
        return Path(name)
    return app.workspace.store(name)


def _assumed(paths: Sequence[Path], names: Sequence[str]) -> str:
    where = ", ".join(sorted({str(path.absolute().parent) for path in paths}))
    return f"{len(paths)} stores in {where}" if not names else f"{', '.join(path.stem for path in paths)} in {where}"


def _marks(report: dict[str, Any]) -> str:
    rejected, interrupted = len(report["rejected"]), len(report["interrupted"])
    return (f", {rejected} units rejected" if rejected else "") + (
        f", {interrupted} interrupted" if interrupted else ""
    )


def _progress(note: dict[str, Any]) -> str:
    left = "" if note["seconds_left"] is None else f", {duration(note['seconds_left'])} left"
    return (
        f"{note['done']:,} of {note['asked']:,} rows of a run, {note['left']:,} to go, {note['rows_per_s']:.1f} rows/s"
        f"{left} (process {note['pid']} on {note['host']})"
    )


def _is_short(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and len(str(value)) <= 80


_MADE_BY: dict[str, str] = {
    "frames": "vipocc data prepare", "lidar": "vipocc data prepare", "occupancy": "vipocc data prepare",
    "depth": "vipocc priors depth", "instances": "vipocc priors sam", "anchors": "vipocc priors anchors",
}  # fmt: skip


def _advice(paths: Sequence[str]) -> str:
    commands = sorted({_MADE_BY[kind] for p in paths if (kind := Path(p).stem.split("-", 1)[0]) in _MADE_BY})
    return "the next " + " / ".join(f"`{c}`" for c in commands or ["run"]) + " makes just those rows again"
