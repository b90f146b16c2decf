"""Options that several commands `vipocc eval ...` share, and how they show a report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vipocc.cli import App, path_option

if TYPE_CHECKING:
    from vipocc.evaluation.report import Report

F = TypeVar("F", bound=Callable[..., Any])


def frame_options(command: F) -> F:
    """Add --split, --limit and --json."""
    options = [
        click.option(
            "--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True,
            help="Which key frames.",
        ),
        click.option(
            "--limit", type=click.IntRange(min=1), metavar="N", help="Only N frames, evenly spaced over the split."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of the table."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def model_options(command: F) -> F:
    """Add --run, --checkpoint, --device and --no-auto."""
    options = [
        click.option("--run", metavar="NAME", help="The best checkpoint of this run [default: of the newest run]."),
        path_option("--checkpoint", metavar="FOLDER", help="This checkpoint."),
        click.option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N [default: auto]."),
        click.option(
            "--no-auto", "auto", is_flag=True, flag_value=False, default=True,
            help="Refuse to prepare missing frames and ground truth.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def speaker(app: App, as_json: bool) -> Callable[[str], None]:
    """Return what takes the lines that tell what was assumed."""
    # With --json standard output is the report and nothing else.
    return (lambda text: click.echo(text, err=True)) if as_json else app.say


def show(app: App, report: Report, folder: Path, as_json: bool) -> None:
    """Print a report."""
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=1))
        return
    app.say("")
    app.say(report.markdown())
    app.say(f"report: {folder}")
