"""The command `vipocc eval speed`."""

from __future__ import annotations

from typing import Any

import click

from vipocc.cli import App, pass_app, path_option, workspace_options
from vipocc.evaluation.options import limit_options, show, speaker


@click.command()
@click.option("--run", metavar="NAME", help="The best checkpoint of this run [default: of the newest run].")
@path_option("--checkpoint", metavar="FOLDER", help="This checkpoint.")
@click.option("--untrained", is_flag=True, help="The workspace's configuration with random weights, which are as fast.")
@click.option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N [default: auto].")
@click.option(
    "--dtype", type=click.Choice(["auto", "float32", "bfloat16"]),
    help="Precision of the 2D networks; auto is bfloat16 on CUDA [default: the configuration's].",
)  # fmt: skip
@click.option(
    "--batch-size", "batch_sizes", type=click.IntRange(min=1), multiple=True, default=(1, 16), show_default=True,
    metavar="N", help="Images at once; give it several times for several sets of rows.",
)  # fmt: skip
@click.option(
    "--images", type=click.IntRange(min=1), default=446, show_default=True, metavar="N", help="Images of each figure."
)
@click.option("--graph/--no-graph", default=True, help="Replay networks as CUDA graphs, where there is CUDA.")
@click.option(
    "--depth-model", metavar="MODEL",
    help="Depth Anything whose share is measured, too: hub id, folder or .pth [default: the configured one, if its "
    "weights are on this machine].",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of the table.")
@limit_options("parameters", "occupancy_fps", "depth_fps")
@workspace_options
@pass_app
def speed(app: App, /, as_json: bool, **options: Any) -> None:
    """Parameters, and images per second of occupancy and depth, beside the published ones (Table 9).

    Each call is waited for; warm-up, batch, precision, graphs and hardware stand in the report. No frames are needed.
    """
    from vipocc.evaluation.speed.run import run_speed

    report, folder = run_speed(app.workspace, app.config, overrides=app.overrides, say=speaker(app, as_json), **options)
    show(app, report, folder, as_json)
