"""Reports: what was measured how, on which frames, with which result, as `report.json` and a Markdown table."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from vipocc import __version__
from vipocc.evaluation.metrics import Aggregate, aggregate_all

FORMAT_VERSION = 1

Kind = Literal["measured", "untrained", "baseline", "constant", "prior", "published"]

TITLES = {
    "o_acc": "O_acc",
    "ie_acc": "IE_acc",
    "ie_rec": "IE_rec",
    "object_o_acc": "object O_acc",
    "object_ie_acc": "object IE_acc",
    "object_ie_rec": "object IE_rec",
    "balanced_accuracy": "balanced acc.",
    "average_precision": "avg. precision",
    "abs_rel": "Abs Rel",
    "sq_rel": "Sq Rel",
    "rmse": "RMSE",
    "rmse_log": "RMSE log",
    "a1": "δ<1.25",
    "a2": "δ<1.25²",
    "a3": "δ<1.25³",
    "n_v": "N_v",
    "n_vc": "N_vc",
    "psi_v": "ψ_v",
}


@dataclass(frozen=True)
class Frame:
    """One image of a dataset."""

    sequence: str
    camera: str
    row: int
    frame_id: int


@dataclass(frozen=True)
class Skipped:
    """A frame that was not evaluated, and why."""

    frame: Frame
    reason: str


@dataclass(frozen=True)
class Row:
    """A method's line of the table."""

    name: str
    kind: Kind
    metrics: Mapping[str, Aggregate]
    note: str = ""
    per_frame: Sequence[tuple[Frame, Mapping[str, float]]] = ()

    @classmethod
    def measured(
        cls,
        name: str,
        kind: Kind,
        frames: Sequence[Frame],
        values: Sequence[Mapping[str, float]],
        resamples: int,
        confidence: float,
        note: str = "",
    ) -> Row:
        """Return the row of per-frame values."""
        pairs = tuple(zip(frames, values, strict=True))
        return cls(name, kind, aggregate_all(values, resamples, confidence), note, pairs)

    @classmethod
    def published(cls, name: str, values: Mapping[str, float], note: str) -> Row:
        """Return the row of somebody's published means."""
        return cls(name, "published", {k: Aggregate(v, math.nan, math.nan, 0) for k, v in values.items()}, note)


@dataclass(frozen=True)
class Figure:
    """A picture for the page: PNG or JPEG bytes, or SVG text. It is no part of report.json."""

    title: str
    caption: str
    picture: bytes | str
    frame: Frame | None = None
    """The frame it shows, so that the lists of worst and best frames can lead to it."""


@dataclass
class Report:
    """A whole evaluation."""

    kind: Literal["occupancy", "depth", "sampler", "priors", "speed"]
    dataset: str
    split: str
    protocol: Mapping[str, Any]
    """The protocol's description and its digest."""
    metrics: Sequence[str]
    """Columns of the table, in order."""
    rows: list[Row]
    used: Sequence[Frame]
    skipped: Sequence[Skipped] = ()
    truth_digest: str = ""
    """Of all ground truth that was compared with."""
    checkpoint: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the evaluation: confidence, batch size, device, ..."""
    breakdowns: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """Tables of parts by title, as "Rings of distance": a row for each part and method, in the report's metrics."""
    figures: list[Figure] = field(default_factory=list)
    """For the page alone."""
    command: str = ""
    """What the user typed, to do it again; may hold what this machine's folders are called."""

    def row(self, name: str) -> Row:
        """Return a row by name."""
        return next(row for row in self.rows if row.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values; NaN becomes null."""
        values = {
            "format_version": FORMAT_VERSION,
            "vipocc": __version__,
            "kind": self.kind,
            "dataset": self.dataset,
            "split": self.split,
            "protocol": dict(self.protocol),
            "ground_truth_digest": self.truth_digest,
            "checkpoint": None if self.checkpoint is None else dict(self.checkpoint),
            "settings": dict(self.settings),
            "frames": {
                "used": len(self.used),
                "skipped": [{**asdict(one.frame), "reason": one.reason} for one in self.skipped],
            },
            "metrics": list(self.metrics),
            "rows": [_row(row) for row in self.rows],
            "breakdowns": {title: [_row(row) for row in rows] for title, rows in self.breakdowns.items()},
            "notes": list(self.notes),
        }
        cleaned: dict[str, Any] = _without_nan(values)
        return cleaned

    def markdown(self) -> str:
        """Return the table with its heading: protocol, frames, rows, notes."""
        name, digest = self.protocol["name"], self.protocol["digest"]
        left = f"; {len(self.skipped)} left out ({self._reasons()})" if self.skipped else ""
        lines = [
            f"# {self.kind} on {self.dataset} {self.split}, protocol {name} ({digest})",
            "",
            f"{len(self.used):,} frames{left}.",
        ]
        if self.checkpoint is not None:
            lines.append(f"Checkpoint {self.checkpoint['path']}, {self.checkpoint['rule']}.")
        lines += ["", *self._table(self.rows)]
        for title, rows in self.breakdowns.items():
            lines += ["", f"## {title}", "", *self._table(rows)]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def save(self, reports: Path) -> Path:
        """Write `report.json` and `table.md` into a new folder of `reports` and return it."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        base = f"{stamp}-{self.kind}-{self.protocol['name']}-{self.split}"
        for number in range(1, 1000):
            folder = reports / (base if number == 1 else f"{base}-{number}")
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                continue
        _write(folder / "table.md", self.markdown())
        _write(folder / "report.json", json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n")
        return folder

    def _table(self, rows: Sequence[Row]) -> list[str]:
        shown = [name for name in self.metrics if any(not math.isnan(_mean(row, name)) for row in rows)]
        lines = [
            self._line(["", *(TITLES.get(name, name) for name in shown), "n", "note"]),
            self._line(["---", *("---:" for _ in shown), "---:", "---"]),
        ]
        for row in rows:
            count = max((value.frames for value in row.metrics.values()), default=0)
            cells = (_cell(row, name) for name in shown)
            lines.append(self._line([row.name, *cells, f"{count:,}" if count else "", row.note]))
        return lines

    def _reasons(self) -> str:
        counts: dict[str, int] = {}
        for one in self.skipped:
            counts[one.reason] = counts.get(one.reason, 0) + 1
        return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))

    @staticmethod
    def _line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"


class TruthDigest:
    """Digest of the ground truth that an evaluation used, in the order it used it."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, frame: Frame, *arrays: Any) -> None:
        """Take in a frame and its arrays."""
        self._hash.update(f"{frame.sequence}/{frame.camera}/{frame.frame_id}".encode())
        for array in arrays:
            self._hash.update(f"{array.dtype}{array.shape}".encode())
            self._hash.update(array.tobytes())

    @property
    def value(self) -> str:
        """First 16 hexadecimal digits."""
        return self._hash.hexdigest()[:16]


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "note": row.note,
        "metrics": {name: asdict(value) for name, value in row.metrics.items()},
        "per_frame": [{**asdict(frame), **values} for frame, values in row.per_frame],
    }


def _mean(row: Row, name: str) -> float:
    return row.metrics[name].mean if name in row.metrics else math.nan


def _cell(row: Row, name: str) -> str:
    value = row.metrics.get(name)
    if value is None or math.isnan(value.mean):
        return "n/a" if value is not None else ""
    digits = 1 if name in ("n_v", "n_vc") else 3
    text = f"{value.mean:.{digits}f}"
    return text if math.isnan(value.low) else f"{text} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
