"""The command `vipocc eval compare`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vipocc.cli import App, pass_app, path_option, workspace_options
from vipocc.errors import WorkspaceError


@click.command()
@click.argument("runs", metavar="REPORT...", nargs=-1, required=True)
@click.option(
    "--published", multiple=True, metavar="TABLE",
    help="Published rows: table-1 to table-6, table-9 to table-11, released-scene, released-objects, released-depth or "
    "none [default: those that may be compared with the runs].",
)  # fmt: skip
@click.option("--anyway", is_flag=True, help="Compare different measurements, and say so in every line.")
@click.option(
    "--confidence", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95, show_default=True,
    help="Coverage of the intervals.",
)  # fmt: skip
@click.option("--resamples", type=click.IntRange(min=100), default=1000, show_default=True, help="Of the bootstrap.")
@path_option("--output", metavar="FOLDER", help="Where the comparison goes [default: the workspace's reports].")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON instead of the tables.")
@workspace_options
@pass_app
def compare(
    app: App,
    /,
    runs: tuple[str, ...],
    published: tuple[str, ...],
    anyway: bool,
    confidence: float,
    resamples: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Put reports and published rows side by side, with paired differences on the frames that the reports share.

    A REPORT is a folder that an evaluation wrote, its name under reports/, or a glob; NAME=REPORT calls it by a name
    of yours. Each method is compared with the first report's of the same name. Reports of different protocols or
    ground truths are refused.
    """
    from vipocc.evaluation.compare import compare as bring_together
    from vipocc.evaluation.compare import find_reports, show
    from vipocc.evaluation.figures.pictured import FOLDER
    from vipocc.evaluation.report.save import write_folder

    reports = _reports(app, needed=output is None)
    found = find_reports(runs, reports)
    made = bring_together(found, published=published, anyway=anyway, resamples=resamples, confidence=confidence)
    pictures: dict[str, bytes] = {}
    if all((one.folder / FOLDER).is_dir() for one in found):
        from vipocc.evaluation.figures.compared import compared, nothing_shared
        from vipocc.evaluation.figures.drawing import png_files

        folders = {one.name: one.folder for one in found}
        drawn = compared(folders)
        made.figures, pictures = [one.figure() for one in drawn], png_files(drawn)
        made.notes = [*made.notes, *filter(None, [nothing_shared(folders)])]
    text = json.dumps(show.document(made), indent=1, allow_nan=False) + "\n"
    texts = {"compare.json": text, "compare.md": show.markdown(made), "compare.html": show.page(made).html()}
    place = output if output is not None else reports
    assert place is not None
    folder = write_folder(place, f"compare-{made.kind}", {**texts, **pictures})
    if as_json:
        click.echo(text, nl=False)
        return
    app.say(texts["compare.md"])
    app.say(f"comparison: {folder}")


def _reports(app: App, *, needed: bool) -> Path | None:
    """The workspace's folder of reports; None where there is no workspace and none is needed."""
    try:
        return app.workspace.reports
    except WorkspaceError as error:
        if app.workspace_dir is not None:
            raise
        if needed:
            fix = "name a folder for the comparison with --output"
            raise WorkspaceError(error.what, where=error.where, fix=fix) from None
        return None
