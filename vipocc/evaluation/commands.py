"""The commands `vipocc eval ...`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vipocc.cli import App, pass_app, path_option, workspace_options

if TYPE_CHECKING:
    from vipocc.evaluation.report import Report

F = TypeVar("F", bound=Callable[..., Any])


@click.group("eval")
def eval_() -> None:
    """Evaluate occupancy, depth and the ray sampler.

    Every report states its protocol with a digest and the frames that were left out, and puts published rows beside
    ours.
    """


def _frame_options(command: F) -> F:
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


def _model_options(command: F) -> F:
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


@eval_.command()
@click.option(
    "--protocol", metavar="NAME",
    help="slice-300 (ground truth from LiDAR sweeps; slice-300-paper by the paper's rule) or exact (the synthetic "
    "world's) [default: slice-N, N being data.sweeps, by data.occupancy_rule].",
)  # fmt: skip
@path_option(
    "--truth-folder", metavar="FOLDER",
    help="The published ground truth, a folder that holds GT_Occ and Object_Label: protocol slice-300-published.",
)  # fmt: skip
@_frame_options
@_model_options
@workspace_options
@pass_app
def occupancy(app: App, /, as_json: bool, **options: Any) -> None:
    """Occupancy of the slice in front of the camera: published metrics, balanced accuracy, average precision.

    Frames and ground truth that are missing are prepared first; priors are not needed.
    """
    from vipocc.evaluation.run import run_occupancy

    report, folder = run_occupancy(
        app.workspace, app.config, overrides=app.overrides, say=_speaker(app, as_json), **options
    )
    _show(app, report, folder, as_json)


@eval_.command()
@click.option(
    "--protocol", metavar="NAME", help="lidar (default) or exact (every pixel of the synthetic world up to 80 m)."
)
@click.option(
    "--scaling",
    type=click.Choice(["none", "median", "least-squares"]),
    default="none",
    show_default=True,
    help="How the network's depth is fitted to the truth before it is compared.",
)
@_frame_options
@_model_options
@workspace_options
@pass_app
def depth(app: App, /, as_json: bool, **options: Any) -> None:
    """Metric depth: rendered and, where the split has priors, the depth branch and the prior itself."""
    from vipocc.evaluation.run import run_depth

    report, folder = run_depth(
        app.workspace, app.config, overrides=app.overrides, say=_speaker(app, as_json), **options
    )
    _show(app, report, folder, as_json)


@eval_.command()
@_frame_options
@workspace_options
@pass_app
def sampler(app: App, /, as_json: bool, **options: Any) -> None:
    """How many distinct rays 64 patches use and how many lie on critical instances: random beside SNOG (Table 10)."""
    from vipocc.evaluation.run import run_sampler

    report, folder = run_sampler(app.workspace, app.config, say=_speaker(app, as_json), **options)
    _show(app, report, folder, as_json)


def _speaker(app: App, as_json: bool) -> Callable[[str], None]:
    # With --json standard output is the report and nothing else.
    return (lambda text: click.echo(text, err=True)) if as_json else app.say


def _show(app: App, report: Report, folder: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=1))
        return
    app.say("")
    app.say(report.markdown())
    app.say(f"report: {folder}")
