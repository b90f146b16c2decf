"""The command `vipocc eval figures`."""

from __future__ import annotations

from pathlib import Path

import click

from vipocc.cli import App, pass_app, path_option, workspace_options


@click.command()
@click.argument("reports", metavar="[REPORT...]", nargs=-1)
@path_option("--output", metavar="FOLDER", help="Where the folder of figures goes [default: the workspace's reports].")
@workspace_options
@pass_app
def figures(app: App, /, reports: tuple[str, ...], output: Path | None) -> None:
    """Draw Figures 1 and 3 to 10 of the paper from the newest reports, or from those that are named.

    A REPORT is named as for `vipocc eval compare`; several stand side by side in the comparisons. Nothing is computed
    again: a figure whose inputs are missing says which command makes them.
    """
    from vipocc.data_manifests.stage import ensure_indexed
    from vipocc.evaluation.compare import find_reports
    from vipocc.evaluation.figures.gallery import files, gallery
    from vipocc.evaluation.report.save import write_folder

    workspace = app.workspace
    named = {one.name: one.folder for one in find_reports(reports, workspace.reports)} if reports else {}
    places = gallery(workspace, app.config, ensure_indexed(workspace, app.config, auto=False), named)
    folder = write_folder(output or workspace.reports, "figures", files(places, f"Figures of {workspace.dataset}"))
    for place in places:
        told = "drawn" if place.figures else f"not there: {place.missing}"
        app.say(f"Figure {place.number}, {place.about}: {told}")
    app.say(f"figures: {folder / 'index.html'}")
