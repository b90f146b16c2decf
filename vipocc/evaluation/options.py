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

_LIMITS = "vipocc.evaluation.limits"


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


def picture_option(command: F) -> F:
    """Add --picture."""
    return click.option(
        "--picture", "picture", multiple=True, metavar="SEQ/FRAME",
        help="Picture this frame in the report, too, beside `evaluation.pictures` evenly spaced ones. Repeatable.",
    )(command)  # fmt: skip


def entrant_options(command: F) -> F:
    """Add --predictions and --save-predictions."""
    options = [
        click.option(
            "--predictions", multiple=True, metavar="[NAME=]FOLDER",
            help="Evaluate the predictions in this folder (docs/evaluating-your-method.md). No checkpoint is needed "
            "then: ours is evaluated only if --run or --checkpoint names it. Repeatable.",
        ),
        path_option(
            "--save-predictions", metavar="FOLDER", help="Write what our network predicts, a folder for each row."
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def limit_options(*metrics: str) -> Callable[[F], F]:
    """Add --fail-under and --fail-over for the metrics that a command can measure; `show` looks at them."""

    def limits(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> None:
        from vipocc.evaluation.limits import parse_limit

        for text in values:
            side: Any = str(parameter.name).removeprefix("fail_")
            context.meta.setdefault(_LIMITS, []).append(parse_limit(text, side, metrics))

    def add(command: F) -> F:
        for side, which in (("over", "an error"), ("under", "a score")):
            command = click.option(
                f"--fail-{side}", multiple=True, metavar="[ROW:]METRIC=VALUE", callback=limits, expose_value=False,
                help=f"Exit with 3 if {which} is {side} VALUE, of the row or of every measured one. Repeatable.",
            )(command)  # fmt: skip
        return command

    return add


def speaker(app: App, as_json: bool) -> Callable[[str], None]:
    """Return what takes the lines that tell what was assumed."""
    # With --json standard output is the report and nothing else.
    return (lambda text: click.echo(text, err=True)) if as_json else app.say


def show(app: App, report: Report, folder: Path, as_json: bool) -> None:
    """Print a report, and leave with `limits.EXIT_CODE` if it does not keep to a limit that was asked for."""
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=1))
    else:
        app.say("")
        app.say(report.markdown())
        app.say(f"report: {folder}")
    limits = click.get_current_context().meta.get(_LIMITS)
    if limits:
        from vipocc.evaluation.limits import EXIT_CODE, breaches

        found = breaches(report, limits)
        for sentence in found:
            click.echo(f"vipocc: limit: {sentence}", err=True)
        if found:
            raise click.exceptions.Exit(EXIT_CODE)
