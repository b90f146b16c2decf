"""The command `vipocc eval depth`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vipocc.cli import App, pass_app, workspace_options
from vipocc.evaluation.metrics import DEPTH
from vipocc.evaluation.options import (
    entrant_options,
    frame_options,
    limit_options,
    model_options,
    picture_option,
    show,
    speaker,
)


@click.command()
@click.option(
    "--protocol", metavar="NAME",
    help="lidar (KITTI-360 as published, and any LiDAR at the prepared size), eigen (KITTI Raw's Eigen split with the "
    "Garg crop), ddad (zero-shot, KITTI-360's field of view) or exact (every pixel of the synthetic world up to 80 m) "
    "[default: the dataset's own].",
)  # fmt: skip
@click.option(
    "--scaling",
    type=click.Choice(["none", "median", "least-squares", "all"]),
    help="How the network's depth is fitted to the truth before it is compared; all gives a row each [default: none, "
    "under ddad median].",
)
@frame_options
@model_options
@picture_option
@entrant_options
@limit_options(*DEPTH)
@workspace_options
@pass_app
def depth(
    app: App, /, as_json: bool, predictions: tuple[str, ...], save_predictions: Path | None, **options: Any
) -> None:
    """Metric depth: rendered and, where the split has priors, the depth branch and the prior itself.

    Where a dataset lists no test frames (DDAD), val takes their place.
    """
    from vipocc.evaluation.depth.run import run_depth
    from vipocc.evaluation.predictors.entrants import Entrants

    report, folder = run_depth(
        app.workspace,
        app.config,
        overrides=app.overrides,
        say=speaker(app, as_json),
        entrants=Entrants(predictions, save=save_predictions),
        **options,
    )
    show(app, report, folder, as_json)
