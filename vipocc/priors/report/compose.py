"""The page of `vipocc priors report`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc import charts
from vipocc.page import Link, Page
from vipocc.priors.report.examine import Examined
from vipocc.priors.report.sheets import Sheets
from vipocc.priors.report.tables import DEPTH_EDGES
from vipocc.priors.sources import maker
from vipocc.progress import size
from vipocc.stores import SHARD

_COMMANDS = {"depth": "vipocc priors depth", "instances": "vipocc priors sam", "anchors": "vipocc priors anchors"}
#: Outliers and frames without detections that get pictures; all are counted.
SHOWN = 12


def compose(examined: Examined, sheets: Sheets, frames: int = 8) -> Page:
    """Return the page: what is there, what stands out, distributions, contact sheets of `frames` frames, provenance."""
    rows = sum(known["rows"] for known in examined.provenance.values())
    page = Page(f"Priors of {examined.dataset}", f"{rows:,} rows in {len(examined.provenance)} stores")
    _overview(page, examined)
    _attention(page, examined, sheets)
    _depth(page, examined)
    _instances(page, examined)
    _contact_sheets(page, examined, sheets, frames)
    _provenance(page, examined)
    return page


def _overview(page: Page, examined: Examined) -> None:
    page.section("At a glance")
    told = examined.summary()
    depth, instances, anchors = told["depth"], told["instances"], told["anchors"]
    rows: list[tuple[str, str]] = []
    if depth["frames"]:
        rows += [
            ("depth maps", f"{depth['frames']:,}"),
            ("mean of the frames' median depth", _number(depth["median_m"], "{:.1f} m")),
            ("pixels at the model's cap", _number(depth["share_at_cap"], "{:.1%}") + _cap(examined.cap)),
            ("pixels without depth", _number(depth["share_missing"], "{:.2%}")),
            ("median ratio to the LiDAR", _ratio(depth)),
        ]
    if instances["frames"]:
        rows += [
            ("images segmented", f"{instances['frames']:,}"),
            ("images without a detection", f"{instances['frames_without_detections']:,}"),
            ("instances an image", _number(instances["per_frame"], "{:.1f}")),
            ("pixels on critical instances", _number(instances["critical_share"], "{:.1%}")),
        ]
    if anchors["frames"]:
        rows.append(("rays on critical instances, ψ_v", _number(anchors["psi_v"], "{:.3f}")))
    page.table(("", "over all frames"), rows)


def _attention(page: Page, examined: Examined, sheets: Sheets) -> None:
    page.section("Look at these first")
    for kind, count in examined.missing.items():
        if count:
            page.text(f"{count:,} frames of the other priors have no {kind}: `{_COMMANDS[kind]}` makes them", "warning")
    for kind in _COMMANDS:
        if kind not in examined.stores:
            page.text(f"there are no {kind} yet: `{_COMMANDS[kind]}` makes them", "warning")
    for remark, kinds in _remarks(examined).items():
        page.text(f"{remark[0].upper()}{remark[1:]}: {', '.join(kinds)}.", "warning")
    empty = [(g, int(e["row"])) for g, table in examined.instances.items() for e in table[table["count"] == 0]]
    listed = [(one.group, one.row, one.reason) for one in examined.outliers]
    listed += [(group, row, "no detection") for group, row in empty]
    if not listed:
        page.text("No frame stands out: nothing missing, flat, capped, unlike its drive or without detections.")
        return
    page.text(f"{len(examined.outliers):,} outliers and {len(empty):,} frames without a detection.")
    spread = [listed[i] for i in _evenly(len(examined.outliers), SHOWN)]
    spread += [listed[len(examined.outliers) + i] for i in _evenly(len(empty), SHOWN // 2)]
    shown = {(group, row) for group, row, _ in spread}
    table = [
        (Link(group, _anchor(group, row)) if (group, row) in shown else group, examined.frame_id(group, row), row, why)
        for group, row, why in listed[:200]
    ]
    page.table(("sequence and camera", "frame", "row", "what"), [(g, str(f), str(r), w) for g, f, r, w in table])
    if len(listed) > 200:
        page.text(f"and {len(listed) - 200:,} more; `vipocc priors report --json` lists all", "faint")
    for group, row in sorted(shown):
        reasons = [why for g, r, why in listed if (g, r) == (group, row)]
        _card(page, examined, sheets, group, row, reasons)


def _remarks(examined: Examined) -> dict[str, list[str]]:
    """Return what the sources of the priors have to say, each with the kinds of which it is true."""
    found: dict[str, list[str]] = {}
    for kind, known in examined.provenance.items():
        made_by = known["fingerprint"]
        if not made_by:
            continue
        source = maker("depth" if kind == "depth" else "instances", made_by)
        absent = f"made by the source '{made_by.get('source')}', which is not installed here"
        for remark in (absent,) if source is None else source.remarks(made_by):
            found.setdefault(remark, []).append(kind)
    return found


def _depth(page: Page, examined: Examined) -> None:
    tables = {group: table for group, table in examined.depth.items() if len(table)}
    if not tables:
        return
    page.section("Depth")
    counts = np.sum([table["histogram"].sum(axis=0) for table in tables.values()], axis=0)
    every = np.concatenate([table["median"] for table in tables.values()])
    medians, edges = np.histogram(every[np.isfinite(every)], bins=40)
    drawn = [
        (
            charts.histogram(DEPTH_EDGES, counts, "depth in metres", logarithmic=True, mark=examined.cap),
            "depth of all pixels; dashed: the model's cap",
        ),
        (charts.histogram(edges, medians, "metres"), "median depth of each frame"),
        (charts.lines(_over_rows(tables, "median"), "row", "metres"), "median depth along each drive"),
    ]
    ratios = np.concatenate([table["ratio"] for table in tables.values()])
    ratios = ratios[np.isfinite(ratios)]
    if len(ratios):
        counts, edges = np.histogram(ratios, bins=30)
        drawn.append(
            (charts.histogram(edges, counts, "prior / LiDAR", mark=1.0), "median ratio to the LiDAR, by frame")
        )
    page.charts(drawn)
    rows = [
        (
            group,
            len(table),
            _round(np.nanmedian(table["median"])),
            _round(100 * table["capped"].mean()),
            _round(np.nanmedian(table["ratio"])) if np.isfinite(table["ratio"]).any() else "–",
        )
        for group, table in tables.items()
    ]
    page.table(("sequence and camera", "frames", "median depth (m)", "at the cap (%)", "ratio to LiDAR"), rows)


def _instances(page: Page, examined: Examined) -> None:
    tables = {group: table for group, table in examined.instances.items() if len(table)}
    if not tables:
        return
    page.section("Instances and anchors")
    every = np.concatenate([table["count"] for table in tables.values()])
    edges = np.arange(-0.5, max(int(every.max()), 1) + 1.0)
    edges = edges if len(edges) <= 60 else np.linspace(-0.5, every.max() + 0.5, 60)
    order = np.argsort(-examined.counts)
    named = [(examined.labels[i], i) for i in order if examined.counts[i]]
    drawn = [
        (charts.histogram(edges, np.histogram(every, edges)[0], "instances"), "instances of each image"),
        (charts.bars([(n, float(examined.counts[i])) for n, i in named], "instances"), "instances by class"),
        (charts.bars([(n, 100 * float(examined.shares[i])) for n, i in named], "share", " %"), "share of the image"),
        (charts.lines(_over_rows(tables, "critical_share"), "row", "share"), "share of critical pixels along drives"),
    ]
    psi = [table["psi"] for table in examined.anchors.values() if len(table)]
    if psi:
        counts, edges = np.histogram(np.concatenate(psi), bins=30, range=(0, 1))
        drawn.append(
            (charts.histogram(edges, counts, "ψ_v"), "share of an image's rays on critical instances (Eq. A.6)")
        )
    page.charts(drawn)


def _contact_sheets(page: Page, examined: Examined, sheets: Sheets, frames: int) -> None:
    page.section("Contact sheets")
    source = examined.depth or examined.instances
    every = [(group, int(row)) for group, table in source.items() for row in table["row"]]
    for group, row in (every[i] for i in _evenly(len(every), frames)):
        _card(page, examined, sheets, group, row, (), "sheet")


def _provenance(page: Page, examined: Examined) -> None:
    page.section("Where they come from")
    for kind, known in examined.provenance.items():
        page.heading(f"{examined.stores[kind].name}: {known['rows']:,} rows, {size(known['bytes'])}")
        page.table(("", ""), [(key, text) for key, text in _flat(known["fingerprint"])])
    page.text(
        f"Every row's inputs and checksum stand in the store's ledger, {SHARD} rows a shard; "
        "`vipocc stores verify --deep` compares them.",
        "faint",
    )


def _card(
    page: Page, examined: Examined, sheets: Sheets, group: str, row: int, notes: Any, prefix: str = "frame"
) -> None:
    title = f"{group}, frame {examined.frame_id(group, row)} (row {row})"
    page.card(_anchor(group, row, prefix), title, sheets.pictures(group, row), list(notes))


def _anchor(group: str, row: int, prefix: str = "frame") -> str:
    return f"{prefix}-{group.replace('/', '-')}-{row}"


def _flat(fingerprint: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in fingerprint.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            text = "–" if value is None else str(value)
            found.append((f"{prefix}{key}", text if len(text) <= 300 else text[:300] + " …"))
    return found


def _over_rows(tables: Mapping[str, NDArray[Any]], name: str) -> list[tuple[str, NDArray[Any], NDArray[Any]]]:
    # At most 400 points a line: more cannot be told apart at this size.
    return [(g, t["row"][:: 1 + len(t) // 400], t[name][:: 1 + len(t) // 400]) for g, t in tables.items()]


def _evenly(count: int, most: int) -> list[int]:
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, most))}) if count else []


def _round(value: Any) -> float:
    return float(f"{float(value):.3g}")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _cap(cap: float | None) -> str:
    return f" (cap {cap:g} m)" if cap else ""


def _ratio(depth: Mapping[str, Any]) -> str:
    if depth["median_ratio_to_lidar"] is None:
        return "no LiDAR depth is prepared for these frames (`vipocc data prepare --kinds lidar`)"
    return f"{depth['median_ratio_to_lidar']:.3f} over {depth['frames_with_lidar']:,} frames with LiDAR"
