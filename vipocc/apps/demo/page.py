"""The demo's page: what the priors saw, where SNOG samples, what the model learned, numbers beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vipocc.apps.demo.tables import generalisation, tables
from vipocc.evaluation.report import Report
from vipocc.page import Page

PAGE = "report.html"


def write_page(output: Path, reports: dict[str, Report], pictures: Sequence[Path], about_priors: str) -> Path:
    """Write `report.html` into the demo's folder and return its path.

    Args:
        output: the demo's folder; the newest folder of figures in it is shown.
        reports: by the names that `tables` takes.
        pictures: overview first, then one a frame.
        about_priors: a sentence on where they come from.

    Raises:
        StoreError: the disk is full or may not be written.
    """
    figures = sorted(path.parent for path in output.glob("*figures*/index.html"))[-1]
    page = Page("vipocc: the demo", "A small synthetic street world, from images to an evaluated occupancy model")

    page.section("What went in, what came out")
    page.text(
        "Frames of a street that training never saw: the image with its sampling anchors, pseudo-depth, the depth "
        "branch, depth rendered from the density, the true depth; occupied cells from above, found, missed, invented."
    )
    page.card("overview", "All pictured frames", [(pictures[0].read_bytes(), "")], least=1100)

    page.section("What the priors saw, and where SNOG samples")
    page.text(about_priors)
    _figures(page, figures, "03", "Instances, the density that anchors are drawn from, and one draw")
    _figures(page, figures, "08", "Random patches beside SNOG's")

    page.section("What the model learned")
    _figures(page, figures, "01", "Single-view reconstruction")
    _figures(page, figures, "04", "Occupied cells, coloured by height")
    _figures(page, figures, "06", "Depth, one scale of metres for all")
    _figures(page, figures, "05", "Share of pixels at each depth")

    page.section("Numbers beside the truth")
    for table in tables(reports):
        page.heading(table.title)
        page.table(table.head, table.rows)
    page.text(generalisation(reports))
    page.text(
        "Networks this narrow, trained this briefly, refine depth clearly and have only begun to learn what is behind "
        "things: look at balanced accuracy and average precision, where constant guesses score .5 and the share of "
        "occupied cells.",
        "faint",
    )

    page.section("Look further")
    page.text(f"{output.name}/scene.html: the same frames in three dimensions, in any browser.")
    page.text(f"{output.name}/{figures.name}/index.html: all figures of the paper that this workspace can draw.")
    page.text(f"{output.name}/workspace/reports/: one page for each evaluation, with intervals and per-frame values.")
    path = output / PAGE
    page.save(path)
    return path


def _figures(page: Page, folder: Path, number: str, title: str) -> None:
    drawn = [(path.read_bytes(), "") for path in sorted(folder.glob(f"figure-{number}*.png"))]
    if drawn:
        page.card(f"figure-{number}", title, drawn, least=700)
