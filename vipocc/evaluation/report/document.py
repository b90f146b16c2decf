"""A report as the JSON values of `report.json`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vipocc import __version__
from vipocc.evaluation.report.content import FORMAT_VERSION, Frame, Report, Row


def document(report: Report) -> dict[str, Any]:
    """Return the report as JSON values; NaN becomes null."""
    values = {
        "format_version": FORMAT_VERSION,
        "vipocc": __version__,
        "created": dict(report.created),
        "kind": report.kind,
        "dataset": report.dataset,
        "split": report.split,
        "protocol": dict(report.protocol),
        "ground_truth_digest": report.truth_digest,
        "configuration_digest": None if report.configuration is None else digest_of(report.configuration),
        "checkpoint": None if report.checkpoint is None else dict(report.checkpoint),
        "settings": dict(report.settings),
        "frames": {
            "used": len(report.used),
            "digest": frames_digest(report.used),
            "list": [asdict(frame) for frame in report.used],
            "ground_truth": [{**asdict(frame), "digest": value} for frame, value in report.truth_frames.items()],
            "skipped": [{**asdict(one.frame), "reason": one.reason} for one in report.skipped],
        },
        "metrics": list(report.metrics),
        "rows": [_row(row) for row in report.rows],
        "breakdowns": {title: [_row(row) for row in rows] for title, rows in report.breakdowns.items()},
        "notes": list(report.notes),
    }
    cleaned: dict[str, Any] = without_nan(values)
    return cleaned


def digest_of(values: Mapping[str, Any]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of JSON values with sorted keys."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def frames_digest(frames: Sequence[Frame]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the frames, in their order."""
    text = "\n".join(f"{frame.sequence}/{frame.camera}/{frame.row}/{frame.frame_id}" for frame in frames)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_nan(value: Any) -> Any:
    """Return JSON values with null for every number that is not finite."""
    if isinstance(value, Mapping):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "note": row.note,
        "digits": row.digits,
        "apart": list(row.apart),
        "metrics": {name: asdict(value) for name, value in row.metrics.items()},
        "skipped": [{**asdict(one.frame), "reason": one.reason} for one in row.skipped],
        "per_frame": [{**asdict(frame), **values} for frame, values in row.per_frame],
    }
