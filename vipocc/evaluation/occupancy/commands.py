"""The command `vipocc eval occupancy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vipocc.cli import App, pass_app, path_option, workspace_options
from vipocc.evaluation.metrics import OBJECT, OURS, SCENE
from vipocc.evaluation.options import entrant_options, frame_options, limit_options, model_options, show, speaker


@click.command()
@click.option(
    "--protocol", metavar="NAME",
    help="slice-300 (ground truth from LiDAR sweeps; slice-300-paper by the paper's rule) or exact (the synthetic "
    "world's) [default: slice-N, N being data.sweeps, by data.occupancy_rule].",
)  # fmt: skip
@path_option(
    "--truth-folder", metavar="FOLDER",
    help="The published ground truth, a folder that holds GT_Occ and Object_Label: protocol slice-300-published.",
)  # fmt: skip
@frame_options
@model_options
@entrant_options
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    metavar="NAME",
    help="Depth turned into occupancy: prior, rendered or branch (occupied behind it), prior+4m, ... (4 m behind it); "
    "none for none [default: prior and prior+4m where the split has pseudo-depth]. Repeatable.",
)
@limit_options(*SCENE, *OBJECT, *OURS, "precision", "recall", "iou", "ie_precision")
@workspace_options
@pass_app
def occupancy(
    app: App,
    /,
    as_json: bool,
    predictions: tuple[str, ...],
    baselines: tuple[str, ...],
    save_predictions: Path | None,
    **options: Any,
) -> None:
    """Occupancy of the slice in front of the camera: published metrics, balanced accuracy, average precision.

    Frames and ground truth that are missing are prepared first; priors are not needed.
    """
    from vipocc.evaluation.occupancy.run import run_occupancy
    from vipocc.evaluation.predictors.entrants import Entrants

    report, folder = run_occupancy(
        app.workspace,
        app.config,
        overrides=app.overrides,
        say=speaker(app, as_json),
        entrants=Entrants(predictions, baselines, save_predictions),
        **options,
    )
    show(app, report, folder, as_json)
