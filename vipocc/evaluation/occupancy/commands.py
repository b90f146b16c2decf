"""The command `vipocc eval occupancy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vipocc.cli import App, pass_app, path_option, workspace_options
from vipocc.evaluation.metrics import OBJECT, OURS, SCENE
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
    help="slice-300 (released: ground truth from LiDAR sweeps), slice-300-paper (by the paper's rule), "
    "slice-300-published (published files), slice-20 (BTS's), cuboid (the paper's volume), voxel (SSCBench-KITTI-360), "
    "exact or exact-cuboid (the synthetic world's truth) [default: slice-N, N being data.sweeps, by "
    "data.occupancy_rule].",
)  # fmt: skip
@path_option(
    "--truth-folder", metavar="FOLDER",
    help="Ground truth that you have: the folder that holds GT_Occ and Object_Label, for slice-300-published (the "
    "protocol where none is named); the folder of SSCBench-KITTI-360, for voxel.",
)  # fmt: skip
@frame_options
@model_options
@picture_option
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
    """Occupancy in front of the camera: published metrics, balanced accuracy, average precision, rings of distance.

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
