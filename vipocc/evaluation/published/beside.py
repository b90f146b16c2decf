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


def comparable_tables(
    kind: Subject, dataset: str, split: str, protocol: Mapping[str, Any], frames: int
) -> list[PublishedTable]:
    """Return the tables whose rows may be compared with a run, of those that stand beside it by default."""
    names = _OF_DATASET.get((kind, dataset), _DEFAULT[kind])
    about = (kind, dataset, split, protocol, frames)
    return [TABLES[name] for name in names if not _against(TABLES[name], *about)]


def beside(
    tables: Sequence[PublishedTable], kind: Subject, dataset: str, split: str, protocol: Mapping[str, Any], frames: int
) -> list[Row]:
    """Return the rows of tables, those of one method from tables of one digit count joined to one.

    Each row's note names its source and, where it must not be compared with the run (`Row.apart`), why.
    """
    about = (kind, dataset, split, protocol, frames)
    values: dict[tuple[str, int | None], dict[str, float]] = {}
    sources: dict[tuple[str, int | None], dict[str, list[str]]] = {}
    apart: dict[tuple[str, int | None], list[str]] = {}
    for table in tables:
        told = _judgement(table, *about)
        for name in table.rows:
            method = (name, table.digits)
            values.setdefault(method, {}).update(table.values(name))
            by_judgement = sources.setdefault(method, {}).setdefault(told, [])
            by_judgement += [] if table.source in by_judgement else [table.source]
            apart.setdefault(method, []).extend(table.metrics if _against(table, *about) else ())
    return [
        Row.published(method[0], found, _note(sources[method]), method[1], apart[method])
        for method, found in values.items()
    ]


def _note(sources: Mapping[str, Sequence[str]]) -> str:
    told = (f"{' and '.join(named)}: {judgement}" for judgement, named in sources.items())
    return f"published, {'; '.join(told)}"


def _judgement(
    table: PublishedTable, kind: Subject, dataset: str, split: str, protocol: Mapping[str, Any], frames: int
) -> str:
    against = _against(table, kind, dataset, split, protocol, frames)
    if against:
        return f"not comparable, {', '.join(against)}"
    caveat = table.comparable[str(protocol["name"])]
    return f"comparable, but {caveat}" if caveat else "comparable"


def _against(
    table: PublishedTable, kind: Subject, dataset: str, split: str, protocol: Mapping[str, Any], frames: int
) -> list[str]:
    """What stands against comparing a table with a run, in words."""
    found = []
    if kind != table.kind and {kind, table.kind} != {"depth", "priors"}:
        found.append(f"of {table.kind}")
    if dataset != table.dataset:
        found.append(f"of {table.dataset}")
    elif protocol.get("name") not in table.comparable:
        found.append("by another protocol")
    elif table.split and split != table.split:
        found.append(f"of split {table.split}")
    elif table.frames is not None and frames != table.frames:
        found.append(f"over {table.frames} frames")
    scaling = protocol.get("scaling")
    if table.scaling is not None and scaling is not None and scaling != table.scaling:
        found.append(f"with {table.scaling} scaling")
    return found
