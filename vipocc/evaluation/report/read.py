"""Reading `report.json` back: whole and checked, or one error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vipocc.errors import DataError, MissingInputError
from vipocc.evaluation.metrics import Aggregate
from vipocc.evaluation.report.content import FORMAT_VERSION, Frame, Kind, Report, Row, Skipped, Subject

FILE = "report.json"


class _Values(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Frame(_Values):
    sequence: str
    camera: str
    row: int
    frame_id: int

    def frame(self) -> Frame:
        return Frame(self.sequence, self.camera, self.row, self.frame_id)


class _Skipped(_Frame):
    reason: str

    def skipped(self) -> Skipped:
        return Skipped(self.frame(), self.reason)


class _Aggregate(_Values):
    mean: float | None
    low: float | None
    high: float | None
    frames: int


class _PerFrame(_Frame):
    __pydantic_extra__: dict[str, float | None] = Field(init=False)


class _Row(_Values):
    name: str
    kind: str
    note: str
    digits: int | None
    apart: list[str]
    metrics: dict[str, _Aggregate]
    skipped: list[_Skipped]
    per_frame: list[_PerFrame]

    def row(self) -> Row:
        if self.kind not in get_args(Kind):
            raise ValueError(f"row '{self.name}' is of unknown kind '{self.kind}'")
        return Row(
            self.name,
            self.kind,  # type: ignore[arg-type]  # looked up above
            {
                name: Aggregate(_number(one.mean), _number(one.low), _number(one.high), one.frames)
                for name, one in self.metrics.items()
            },
            self.note,
            tuple(
                (one.frame(), {name: _number(value) for name, value in (one.__pydantic_extra__ or {}).items()})
                for one in self.per_frame
            ),
            self.digits,
            tuple(one.skipped() for one in self.skipped),
            tuple(self.apart),
        )


class _Truth(_Frame):
    digest: str


class _Frames(_Values):
    used: int
    digest: str
    every: list[_Frame] = Field(alias="list")
    ground_truth: list[_Truth]
    skipped: list[_Skipped]


class _Protocol(_Values):
    name: str
    digest: str


class _Document(_Values):
    created: dict[str, Any]
    kind: str
    dataset: str
    split: str
    protocol: _Protocol
    ground_truth_digest: str
    configuration_digest: str | None
    checkpoint: dict[str, Any] | None
    settings: dict[str, Any]
    frames: _Frames
    metrics: list[str]
    rows: list[_Row]
    breakdowns: dict[str, list[_Row]]
    notes: list[str]


def read_report(place: Path) -> Report:
    """Return the report at a folder or a file `report.json`.

    Its configuration, its figures and whatever else lies beside it stay where they are.

    Raises:
        MissingInputError: there is no report.
        DataError: it is damaged, of another format version, or no report of vipocc.
    """
    file = place / FILE if place.is_dir() else place
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingInputError(
            "there is no report", where=file, fix="`vipocc eval occupancy` (or depth, sampler, ...) writes one"
        ) from None
    except (ValueError, OSError) as error:
        raise DataError(f"the report cannot be read ({error})", where=file, fix="run the evaluation again") from None
    version = values.get("format_version") if isinstance(values, Mapping) else None
    if version is None:
        raise DataError("this is no report of vipocc: it names no format_version", where=file)
    if version != FORMAT_VERSION:
        raise DataError(
            f"the report is of format {version}, and this vipocc reads format {FORMAT_VERSION}",
            where=file,
            fix="run the evaluation again, or read it with the vipocc that wrote it",
        )
    try:
        return _report(_Document.model_validate(values))
    except ValidationError as error:
        first = error.errors()[0]
        place_of = ".".join(str(part) for part in first["loc"])
        what = f"the report is damaged ({place_of}: {first['msg'].lower()})"
        raise DataError(what, where=file, fix="run the evaluation again") from None
    except ValueError as error:
        raise DataError(f"the report is damaged ({error})", where=file, fix="run the evaluation again") from None


def _report(held: _Document) -> Report:
    if held.kind not in get_args(Subject):
        raise ValueError(f"it is about '{held.kind}', which is not known")
    truth = {one.frame(): one.digest for one in held.frames.ground_truth}
    rows = [one.row() for one in held.rows]
    used = [one.frame() for one in held.frames.every]
    if len(used) != held.frames.used:
        raise ValueError(f"it names {held.frames.used} frames and lists {len(used)}")
    unknown = {*truth, *(frame for row in rows for frame, _ in row.per_frame)}.difference(used)
    if unknown:
        raise ValueError(f"it has values of {len(unknown)} frames that it does not list")
    return Report(
        kind=held.kind,  # type: ignore[arg-type]  # looked up above
        dataset=held.dataset,
        split=held.split,
        protocol=held.protocol.model_dump(),
        metrics=tuple(held.metrics),
        rows=rows,
        used=used,
        skipped=[one.skipped() for one in held.frames.skipped],
        truth_digest=held.ground_truth_digest,
        truth_frames=truth,
        checkpoint=held.checkpoint,
        notes=held.notes,
        settings=held.settings,
        breakdowns={title: [one.row() for one in rows] for title, rows in held.breakdowns.items()},
        created=held.created,
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value
