"""What a report holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vipocc.evaluation.metrics import Aggregate, aggregate_all

FORMAT_VERSION = 2

Kind = Literal["measured", "untrained", "baseline", "constant", "prior", "published"]
Subject = Literal["occupancy", "depth", "sampler", "priors", "speed"]


@dataclass(frozen=True)
class Frame:
    """One image of a dataset."""

    sequence: str
    camera: str
    row: int
    frame_id: int

    @property
    def name(self) -> str:
        """As people write it."""
        return f"{self.sequence}/{self.camera} frame {self.frame_id}"


@dataclass(frozen=True)
class Skipped:
    """A frame that was not evaluated, and why."""

    frame: Frame
    reason: str


def reasons(skipped: Sequence[Skipped]) -> dict[str, int]:
    """Return how many frames were left out for each reason, the commonest first."""
    counts = Counter(one.reason for one in skipped)
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


@dataclass(frozen=True)
class Row:
    """A method's line of the table."""

    name: str
    kind: Kind
    metrics: Mapping[str, Aggregate]
    note: str = ""
    per_frame: Sequence[tuple[Frame, Mapping[str, float]]] = ()
    digits: int | None = None
    """Digits after the point that are known, where they are not those of the columns."""
    skipped: Sequence[Skipped] = ()
    """Frames that the report has, but this row has not, and why."""
    apart: Sequence[str] = ()
    """Metrics that must not be compared with those of other rows; the note says why."""

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
        skipped: Sequence[Skipped] = (),
    ) -> Row:
        """Return the row of per-frame values."""
        pairs = tuple(zip(frames, values, strict=True))
        return cls(name, kind, aggregate_all(values, resamples, confidence), note, pairs, skipped=skipped)

    @classmethod
    def published(
        cls,
        name: str,
        values: Mapping[str, float],
        note: str,
        digits: int | None = None,
        apart: Sequence[str] = (),
    ) -> Row:
        """Return the row of somebody's published means, printed with so many digits."""
        means = {k: Aggregate(v, math.nan, math.nan, 0) for k, v in values.items()}
        return cls(name, "published", means, note, digits=digits, apart=apart)

    def mean(self, metric: str) -> float:
        """Return the mean of a metric, NaN where the row has none."""
        return self.metrics[metric].mean if metric in self.metrics else math.nan

    @property
    def frames(self) -> int:
        """Frames of the metric that most have."""
        return max((value.frames for value in self.metrics.values()), default=0)


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

    kind: Subject
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
    truth_frames: Mapping[Frame, str] = field(default_factory=dict)
    """Of each frame's ground truth, where it is known (`TruthDigest.frames`)."""
    checkpoint: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the evaluation: confidence, batch size, device, ..."""
    breakdowns: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """Tables of parts by title, as "Rings of distance": a row for each part and method, in the report's metrics."""
    figures: list[Figure] = field(default_factory=list)
    """For the page alone."""
    attachments: Mapping[str, bytes] = field(default_factory=dict)
    """Files that are saved beside the report, by their path in its folder."""
    configuration: Mapping[str, Any] | None = None
    """The resolved configuration; it is saved beside the report, which has its digest."""
    created: Mapping[str, Any] = field(default_factory=dict)
    """When, by which command and with which versions; `save` fills it in. All else is the same for the same inputs."""

    def row(self, name: str) -> Row:
        """Return a row by name."""
        return next(row for row in self.rows if row.name == name)

    @property
    def title(self) -> str:
        """What was measured on what, under which protocol."""
        name, digest = self.protocol["name"], self.protocol["digest"]
        return f"{self.kind} on {self.dataset} {self.split}, protocol {name} ({digest})"

    def reasons(self) -> dict[str, int]:
        """Return how many frames were left out for each reason, the commonest first."""
        return reasons(self.skipped)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values; NaN becomes null. The keys are documented in docs/evaluation.md."""
        from vipocc.evaluation.report.document import document

        return document(self)

    def markdown(self) -> str:
        """Return the tables with their headings: protocol, frames, rows, notes."""
        from vipocc.evaluation.report.markdown import markdown

        return markdown(self)

    def html(self) -> str:
        """Return the page, which needs nothing beside it."""
        from vipocc.evaluation.report.page import page

        return page(self).html()

    def save(self, reports: Path) -> Path:
        """Write `report.json`, `table.md` and `report.html` into a new folder of `reports` and return it.

        Raises:
            StoreError: the disk is full or may not be written.
        """
        from vipocc.evaluation.report.save import save

        return save(self, reports)
