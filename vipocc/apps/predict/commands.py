"""The command `vipocc predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vipocc.cli import App, pass_app, path_option


def _store(name: str) -> Any:
    def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        app = context.ensure_object(App)
        if value:
            setattr(app, name, getattr(app, name) + value if name in ("overrides", "verbosity") else value)
        return value

    return callback


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE|FOLDER|VIDEO...")
@path_option(
    "-o", "--output", required=True, metavar="FOLDER", help="Where to; a folder for each picture is made in it."
)
@click.option("--checkpoint", metavar="FOLDER|ID", help="A checkpoint's or a run's folder, or a repository of the hub.")
@click.option("--run", metavar="NAME", help="The best checkpoint of this run of the workspace [default: the newest].")
@click.option(
    "--depth-model", metavar="ID|FOLDER|PTH|SOURCE",
    help="Compute the depth prior: a metric Depth Anything V2, or a source of priors by name. Else depth is rendered.",
)  # fmt: skip
@click.option("--focal", type=float, metavar="PIXELS", help="Focal length in pixels of the picture.")
@click.option("--fx", type=float, metavar="PIXELS", help="The same, across.")
@click.option("--fy", type=float, metavar="PIXELS", help="Down [default: as --fx].")
@click.option("--cx", type=float, metavar="PIXELS", help="Principal point [default: the middle].")
@click.option("--cy", type=float, metavar="PIXELS", help="Principal point [default: the middle].")
@click.option("--fov", type=float, metavar="DEGREES", help="Horizontal angle of view, instead of a focal length.")
@path_option(
    "--calibration",
    metavar="FILE",
    help="KITTI calib_cam_to_cam.txt, calib.txt or perspective.txt, JSON or OpenCV YAML.",
)
@click.option("--camera", metavar="NAME", help="Which camera of --calibration, such as 02.")
@click.option(
    "--training-camera", metavar="NAME|FILE",
    help="kitti-360, kitti-raw, synthetic or a calibration file [default: that of the checkpoint's workspace].",
)  # fmt: skip
@click.option("--x", nargs=2, type=float, metavar="LEFT RIGHT", help="Grid in metres [default: -4 4].")
@click.option("--y", nargs=2, type=float, metavar="TOP BOTTOM", help="Grid, down from the camera [default: 0 1].")
@click.option("--z", nargs=2, type=float, metavar="NEAR FAR", help="Grid, ahead of the camera [default: 4 20].")
@click.option("--cell", type=float, default=0.1, show_default=True, metavar="METRES", help="Side of a voxel.")
@click.option(
    "--tilt", type=float, metavar="DEGREES", help="How far the camera looks down [default: as the training camera's]."
)
@click.option(
    "--threshold", type=click.FloatRange(min=0.0, min_open=True), default=0.5, show_default=True, metavar="DENSITY",
    help="A voxel is occupied above it, 1/m.",
)  # fmt: skip
@click.option("--full-size", is_flag=True, help="Write depth at the pixels of the picture itself, too.")
@click.option("--no-depth", is_flag=True, help="Occupancy alone.")
@click.option("--no-occupancy", is_flag=True, help="Depth alone.")
@click.option("--every", type=click.IntRange(min=1), default=1, metavar="N", help="Of a video, each N-th frame.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N pictures.")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Pictures at once [default: 4, 8 on CUDA].")
@click.option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N [default: auto].")
@click.option("--overwrite", is_flag=True, help="Predict again what is there already.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON; all else goes to standard error.")
@path_option("-C", "--workspace", metavar="DIR", expose_value=False, callback=_store("workspace_dir"),
    help="Workspace folder, for --run; --checkpoint needs none.",
)  # fmt: skip
@click.option(
    "--override", multiple=True, metavar="KEY=VALUE", expose_value=False, callback=_store("overrides"),
    help="Set one key of the checkpoint's configuration (elsewhere -o).",
)  # fmt: skip
@click.option("-v", "verbose", count=True, expose_value=False, callback=_store("verbosity"), help="Say more.")
@pass_app
def predict(app: App, /, pictures: tuple[Path, ...], **options: Any) -> None:
    """Depth and occupancy of anybody's pictures and videos.

    Each picture is brought to the focal length, size and principal point of the camera that the network was trained
    with. Its own camera is that of --focal, --fov or --calibration, else what its EXIF says, else a guess with a
    warning. Pictures that are done already are skipped; of one that cannot be predicted the reason is told, and the
    others go on. Exit codes: 0 all are there, 3 some could not be predicted, 2 none could, or a mistake in the call.
    """
    from vipocc.apps.predict.start import start

    as_json = options.pop("as_json")
    summary = start(app, pictures, say=lambda text: click.echo(text, err=as_json), **options)
    if as_json:
        click.echo(json.dumps(summary.as_dict(), indent=1))
    else:
        failed = f", {len(summary.failed):,} failed" if summary.failed else ""
        done = f", {summary.skipped:,} there already" if summary.skipped else ""
        app.say(f"{summary.predicted:,} predicted{done}{failed}; in {summary.output}")
    if summary.exit_code:
        raise click.exceptions.Exit(summary.exit_code)
