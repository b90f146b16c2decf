"""Several reports brought to the same frames, or refused."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vipocc.errors import UsageError
from vipocc.evaluation.compare.find import Named
from vipocc.evaluation.compare.paired import Difference, differences
from vipocc.evaluation.metrics import aggregate_all
from vipocc.evaluation.published import beside, comparable_tables, published_table
from vipocc.evaluation.report.content import Figure, Frame, Report, Row
from vipocc.evaluation.report.frames import main_row
from vipocc.evaluation.report.markdown import DAGGER

JUDGED = ("measured", "baseline", "prior")
NONE = "none"
FEW = 20
"""Frames below which a bootstrap interval is not to be trusted; the comparison says so."""


@dataclass(frozen=True)
class Run:
    """A report that is compared."""

    name: str
    folder: str
    about: str
    """Kind, dataset, split, protocol and its digest."""
    checkpoint: str
    used: int
    shared: int
    """Frames of those that all runs have."""
    differs: tuple[str, ...]
    """In what it is another measurement than the first."""


@dataclass(frozen=True)
class Line:
    """A method of a run, on the shared frames."""

    run: str
    row: Row
    against: str = ""
    """The line that it is compared with; empty where it is none."""
    differences: Mapping[str, Difference] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Run and method; published rows have no run."""
        return f"{self.run} {self.row.name}" if self.run else self.row.name


@dataclass
class Comparison:
    """Reports side by side."""

    kind: str
    dataset: str
    split: str
    metrics: Sequence[str]
    runs: Sequence[Run]
    lines: Sequence[Line]
    breakdowns: Mapping[str, Sequence[Line]]
    frames: int
    """That all runs share; 0 where the means are those of the reports, over each run's own frames."""
    confidence: float
    resamples: int
    notes: Sequence[str]
    figures: list[Figure] = field(default_factory=list)
    """For the page alone."""

    @property
    def anyway(self) -> bool:
        """Whether different measurements stand side by side because the user said so."""
        return any(run.differs for run in self.runs)


def compare(
    reports: Sequence[Named],
    *,
    published: Sequence[str] = (),
    anyway: bool = False,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Comparison:
    """Bring reports to the frames they share and compare each method with the first report's of the same name.

    A method whose name the first report does not have is compared with that report's main row. Constant guesses and
    the untrained network are shown of the first report alone.

    Args:
        reports: at least one, of one kind.
        published: names of published tables to show, or `none`; by default those that may be compared with the runs.
        anyway: compare different protocols, datasets or ground truths, and say so in every line.
        resamples: of the bootstrap.
        confidence: of the intervals.

    Raises:
        UsageError: the reports are of different kinds or, without `anyway`, different measurements; or share no frame.
    """
    first = reports[0].report
    for one in reports[1:]:
        if one.report.kind != first.kind:
            raise UsageError(f"{one.name} is about {one.report.kind} and {reports[0].name} about {first.kind}")
    differing = [_differs(first, one.report) for one in reports]
    if not anyway:
        _refuse(reports, differing)
    frames = [_frames(one.report) for one in reports]
    shared = set.intersection(*frames)
    if not shared and all(frames) and not anyway:
        raise UsageError("the reports share no frame", fix="evaluate the same frames, or add --anyway")
    keep = shared if all(frames) else set()
    main = main_row(first)
    alike = _Alike(
        [one.name for one in reports],
        differing,
        keep,
        first.metrics,
        None if main is None else main.name,
        resamples,
        confidence,
    )
    lines = alike.lines([one.report.rows for one in reports])
    titles = [title for title in first.breakdowns if all(title in one.report.breakdowns for one in reports)]
    breakdowns = {title: alike.lines([one.report.breakdowns[title] for one in reports]) for title in titles}
    runs = [
        Run(
            one.name,
            one.folder.name,
            one.report.title,
            "" if one.report.checkpoint is None else str(one.report.checkpoint.get("path", "")),
            len(own) or len(one.report.used),
            len(keep),
            tuple(differs),
        )
        for one, own, differs in zip(reports, frames, differing, strict=True)
    ]
    lines += [Line("", row) for row in _published(first, published, len(keep) or len(first.used))]
    return Comparison(
        first.kind,
        first.dataset,
        first.split,
        _metrics(reports),
        runs,
        lines,
        breakdowns,
        len(keep),
        confidence,
        resamples,
        _notes(runs, lines, keep, confidence, resamples),
    )


def _differs(first: Report, other: Report) -> list[str]:
    """In what a report is another measurement than the first, in words."""
    found = [
        f"{what} {getattr(other, what)}, not {getattr(first, what)}"
        for what in ("dataset", "split")
        if getattr(other, what) != getattr(first, what)
    ]
    ours, theirs = dict(first.protocol), dict(other.protocol)
    if None in (ours.get("scaling"), theirs.get("scaling")):
        # Rows of several scalings, or no matter of depth: the scaling stands in the rows' names.
        ours["scaling"] = theirs["scaling"] = None
    if ours != theirs:
        names = sorted(name for name in {*ours, *theirs} - {"digest"} if ours.get(name) != theirs.get(name))
        told = ", ".join(f"{name} {theirs.get(name)}, not {ours.get(name)}" for name in names)
        found.append(f"another protocol ({told or 'only its digest differs'})")
    both = first.truth_frames.keys() & other.truth_frames.keys()
    changed = sum(first.truth_frames[frame] != other.truth_frames[frame] for frame in both)
    if changed:
        found.append(f"another ground truth on {changed:,} of {len(both):,} shared frames")
    # Without digests of frames only the whole can be compared, and that depends on which frames there were.
    elif not both and first.truth_digest != other.truth_digest:
        found.append(f"another ground truth ({other.truth_digest}, not {first.truth_digest})")
    return found


def _refuse(reports: Sequence[Named], differing: Sequence[Sequence[str]]) -> None:
    for one, differs in zip(reports, differing, strict=True):
        if differs:
            raise UsageError(
                f"{one.name} and {reports[0].name} are different measurements: {one.name} has {'; '.join(differs)}",
                where=one.folder,
                fix="evaluate both alike, or add --anyway to see them side by side all the same",
            )


def _frames(report: Report) -> set[Frame]:
    """The frames that a report has values of; none where its rows are no means over frames."""
    return {frame for row in report.rows for frame, _ in row.per_frame}


@dataclass(frozen=True)
class _Alike:
    """What all tables of a comparison have in common."""

    names: Sequence[str]
    """Of the runs."""
    differing: Sequence[Sequence[str]]
    keep: Collection[Frame]
    metrics: Sequence[str]
    main: str | None
    """Name of the first run's main row."""
    resamples: int
    confidence: float

    def lines(self, tables: Sequence[Sequence[Row]]) -> list[Line]:
        """Return the lines of a table of each run: the judged rows of all, the others of the first."""
        base = {row.name: self.restricted(row) for row in tables[0] if row.kind in JUDGED}
        return [
            self._line(place, row, base)
            for place, rows in enumerate(tables)
            for row in rows
            if row.kind in JUDGED or (not place and row.kind != "published")
        ]

    def _line(self, place: int, row: Row, base: Mapping[str, Row]) -> Line:
        kept = self.restricted(row)
        against = self._against(place, row, base)
        told: Mapping[str, Difference] = {}
        if against is not None:
            names = dict.fromkeys((*self.metrics, *kept.metrics))
            told = differences(kept, base[against], list(names), self.resamples, self.confidence)
        if self.differing[place]:
            note = "; ".join(["not comparable", *self.differing[place], *filter(None, [kept.note])])
            kept = replace(kept, note=note, apart=tuple(kept.metrics))
        return Line(self.names[place], kept, f"{self.names[0]} {against}" if told else "", told)

    def _against(self, place: int, row: Row, base: Mapping[str, Row]) -> str | None:
        """Name of the first run's row that a row is compared with."""
        if row.kind not in JUDGED:
            return None
        if place and row.name in base:
            return row.name
        # Rows of the first run are compared among themselves only where there is no other run.
        alone = len(self.names) == 1 and row.name != self.main
        return self.main if self.main in base and (place or alone) else None

    def restricted(self, row: Row) -> Row:
        """Return a row over the kept frames; as it is if its report has no values of frames or nothing is shared."""
        if not self.keep:
            return row
        if not row.per_frame:
            # Pooled values and the like: where they are over other frames, they cannot be brought to the shared ones.
            if row.frames in (0, len(self.keep)):
                return row
            note = f"over {row.frames:,} frames of its own"
            return replace(row, note="; ".join(filter(None, (note, row.note))), apart=tuple(row.metrics))
        pairs = tuple(pair for pair in sorted(row.per_frame, key=_order) if pair[0] in self.keep)
        metrics = aggregate_all([values for _, values in pairs], self.resamples, self.confidence)
        return replace(row, metrics=metrics, per_frame=pairs)


def _order(pair: tuple[Frame, Any]) -> tuple[str, str, int]:
    return pair[0].sequence, pair[0].camera, pair[0].row


def _metrics(reports: Sequence[Named]) -> list[str]:
    return list(dict.fromkeys(name for one in reports for name in one.report.metrics))


def _published(first: Report, names: Sequence[str], frames: int) -> list[Row]:
    if NONE in names:
        return []
    about = (first.kind, first.dataset, first.split, first.protocol, frames)
    tables = [published_table(name) for name in names] if names else comparable_tables(*about)
    return beside(tables, *about)


def _notes(
    runs: Sequence[Run], lines: Sequence[Line], keep: Collection[Frame], confidence: float, resamples: int
) -> list[str]:
    notes = []
    if any(line.row.apart for line in lines):
        notes.append(f"{DAGGER}.")
    if 0 < len(keep) < FEW:
        notes.append(f"{len(keep)} frames are too few for intervals and p to mean much.")
    if keep:
        notes.append(f"Means over the {len(keep):,} frames that all runs share, with {100 * confidence:g} % intervals.")
        for run in runs:
            if run.used > run.shared:
                notes.append(
                    f"{run.name} has {run.used:,} frames, of which {run.used - run.shared:,} are left out here, so its "
                    "means differ from those of its own report."
                )
    else:
        notes.append("Means are those of the reports: there are no values of shared frames, so nothing is paired.")
    count = sum(1 for line in lines for one in line.differences.values() if not math.isnan(one.mean))
    if count:
        notes.append(
            f"Differences are paired frame by frame ({resamples:,} bootstrap resamples of the shared frames). p is "
            f"two-sided and of each difference alone: of {count} differences, {100 * (1 - confidence):g} % leave out 0 "
            "by chance where nothing differs."
        )
    return notes
