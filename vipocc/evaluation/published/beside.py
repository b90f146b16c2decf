"""Which published rows stand beside a run, and what has to be said of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vipocc.evaluation.published.tables import TABLES, PublishedTable
from vipocc.evaluation.report.content import Row, Subject

_DEFAULT: dict[str, tuple[str, ...]] = {
    "occupancy": ("table-1", "table-2", "released-scene", "released-objects"),
    "depth": ("table-4", "released-depth"),
    "priors": ("table-4", "released-depth"),
    "sampler": ("table-10",),
    "speed": ("table-9",),
}
_OF_DATASET: dict[tuple[str, str], tuple[str, ...]] = {
    ("depth", "kitti-raw"): ("table-3",),
    ("depth", "ddad"): ("table-6",),
}


def rows_beside(kind: Subject, dataset: str, split: str, protocol: Mapping[str, Any], frames: int) -> list[Row]:
    """Return the published rows for a report of that kind: of its dataset where there are any, else of KITTI-360.

    Args:
        kind: of the report.
        dataset: of the report.
        split: of the report.
        protocol: of the report, as it describes itself.
        frames: that were evaluated.
    """
    names = _OF_DATASET.get((kind, dataset), _DEFAULT[kind])
    rows = beside([TABLES[name] for name in names], kind, dataset, split, protocol, frames)
    return [row for row in rows if "Pseudo" in row.name] if kind == "priors" else rows


def beside(
    tables: Sequence[PublishedTable], kind: Subject, dataset: str, split: str, protocol: Mapping[str, Any], frames: int
) -> list[Row]:
    """Return the rows of tables, those of one method from tables of one digit count joined to one.

    Each row's note names its source and, where it must not be compared with the run, why.
    """
    values: dict[tuple[str, int | None], dict[str, float]] = {}
    notes: dict[tuple[str, int | None], list[str]] = {}
    for table in tables:
        told = f"{table.source}: {_judgement(table, kind, dataset, split, protocol, frames)}"
        for name in table.rows:
            values.setdefault((name, table.digits), {}).update(table.values(name))
            notes.setdefault((name, table.digits), []).append(told)
    return [
        Row.published(name, found, f"published; {'; '.join(dict.fromkeys(notes[name, digits]))}", digits)
        for (name, digits), found in values.items()
    ]


def _judgement(
    table: PublishedTable, kind: Subject, dataset: str, split: str, protocol: Mapping[str, Any], frames: int
) -> str:
    against = []
    if kind != table.kind and {kind, table.kind} != {"depth", "priors"}:
        against.append(f"of {table.kind}")
    if dataset != table.dataset:
        against.append(f"of {table.dataset}")
    elif protocol.get("name") not in table.comparable:
        against.append("by another protocol")
    elif table.split and split != table.split:
        against.append(f"of split {table.split}")
    elif table.frames is not None and frames != table.frames:
        against.append(f"over {table.frames} frames")
    scaling = protocol.get("scaling")
    if table.scaling is not None and scaling is not None and scaling != table.scaling:
        against.append(f"with {table.scaling} scaling")
    if against:
        return f"not comparable, {', '.join(against)}"
    caveat = table.comparable[str(protocol["name"])]
    return f"comparable, but {caveat}" if caveat else "comparable"
