"""The command `vipocc eval points`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from vipocc.cli import App, pass_app, path_option, workspace_options


@click.command()
@click.option("--protocol", metavar="NAME", help="As of the evaluation that the predictions are for.")
@click.option(
    "--for", "quantity", type=click.Choice(["occupancy", "depth"]), default="occupancy", show_default=True,
    help="What will be predicted; depth has frames alone.",
)  # fmt: skip
@click.option(
    "--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True, help="Which key frames."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only N frames, evenly spaced over the split.")
@path_option("--output", metavar="FILE", required=True, help="The .npz file to write.")
@click.option("--no-auto", "auto", is_flag=True, flag_value=False, default=True, help="Refuse to generate a world.")
@workspace_options
@pass_app
def points(
    app: App,
    /,
    protocol: str | None,
    quantity: Literal["occupancy", "depth"],
    split: str,
    limit: int | None,
    output: Path,
    auto: bool,
) -> None:
    """Write a protocol's frames and query points for a method that runs elsewhere.

    Its predictions then go into a folder, which `vipocc eval occupancy --predictions FOLDER` or `vipocc eval depth
    --predictions FOLDER` evaluates. The layout: docs/evaluating-your-method.md.
    """
    from vipocc.evaluation.points.run import run_points

    run_points(
        app.workspace, app.config, output, say=app.say, protocol=protocol, quantity=quantity, split=split, limit=limit,
        auto=auto,
    )  # fmt: skip
