"""The command `vipocc eval priors`."""

from __future__ import annotations

from typing import Any

import click

from vipocc.cli import App, pass_app, workspace_options
from vipocc.evaluation.metrics import DEPTH
from vipocc.evaluation.options import frame_options, limit_options, show, speaker


@click.command()
@click.option(
    "--protocol", metavar="NAME",
    help="Of depth, as for `vipocc eval depth` [default: the dataset's own; of the synthetic world exact, which judges "
    "instances, too].",
)  # fmt: skip
@click.option("--store", metavar="NAME", help="Second stores, depth-NAME.zarr and instances-NAME.zarr.")
@frame_options
@click.option(
    "--no-auto", "auto", is_flag=True, flag_value=False, default=True, help="Refuse to prepare missing ground truth."
)
@limit_options(*DEPTH)
@workspace_options
@pass_app
def priors(app: App, /, as_json: bool, **options: Any) -> None:
    """Pseudo-depth against the truth (Table 4) and instances: how many, of which class, how right.

    No checkpoint is needed and no prior is computed.
    """
    from vipocc.evaluation.priors.run import run_priors

    report, folder = run_priors(app.workspace, app.config, say=speaker(app, as_json), **options)
    show(app, report, folder, as_json)
