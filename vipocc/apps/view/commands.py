"""The command `vipocc view`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vipocc.cli import App, pass_app, path_option, workspace_options

STANDALONE = 10
"""Frames in one HTML file by default; each takes about a megabyte."""


@click.command()
@click.argument("predictions", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True, help="Which key frames."
)
@click.option("--sequence", metavar="NAME", help="Which drive [default: the first of the split].")
@click.option("--frame", "first", type=click.IntRange(min=0), metavar="ID", help="Begin at this frame id.")
@click.option(
    "--frames", "count", type=click.IntRange(min=1), metavar="N", help="So many frames [default: all; 10 with --html]."
)
@click.option(
    "--run", metavar="NAME", help="Predict with the best checkpoint of this run [default: of the newest run, if any]."
)
@path_option("--checkpoint", metavar="FOLDER", help="Predict with this checkpoint.")
@click.option("--no-model", is_flag=True, help="Show the data alone.")
@click.option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N [default: auto].")
@click.option(
    "--x", nargs=2, type=float, default=(-9.0, 9.0), show_default=True, help="Shown cells: left to right, metres."
)
@click.option(
    "--y", nargs=2, type=float, default=(-1.5, 1.7), show_default=True, help="Top to bottom; the road is at about 1.6."
)
@click.option("--z", nargs=2, type=float, default=(3.0, 25.0), show_default=True, help="Near to far.")
@click.option(
    "--cell", type=click.FloatRange(0.02, 5.0), default=0.2, show_default=True, help="Edge of a cell, metres."
)
@path_option("--html", metavar="FILE", help="Write one file that needs no server, instead of serving.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Where to serve; 0 takes a free one."
)
@workspace_options
@pass_app
def view(app: App, /, predictions: tuple[Path, ...], html: Path | None, port: int, **options: Any) -> None:
    """Look round frames of the dataset in the browser: cells, LiDAR, cameras, truth, a slider through the drive.

    With PREDICTIONS, folders that `vipocc predict` wrote, those are shown instead, and no workspace is needed.

    The page is served on this machine only; from another one, go through SSH: ssh -L 8080:localhost:8080 HOST.
    """
    from vipocc.apps.view.run import of_dataset, of_predictions, serve, write_html

    if html is not None:
        options["count"] = options["count"] or STANDALONE
    if predictions:
        shown = of_predictions(predictions, options["count"])
    else:
        shown = of_dataset(app.workspace, app.config, say=app.say, overrides=app.overrides, **options)
    if html is None:
        serve(shown, port=port, say=app.say)
    else:
        app.say(f"{html}: {write_html(shown, html) / 1e6:.1f} MB, opens in any browser with WebGL 2")
