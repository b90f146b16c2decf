"""Which reports a user means: folders, files, names under `reports/`, and globs of all three."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vipocc.errors import MissingInputError, UsageError
from vipocc.evaluation.report.content import Report
from vipocc.evaluation.report.read import FILE, read_report


@dataclass(frozen=True)
class Named:
    """A report with the folder it is in and what to call it."""

    name: str
    folder: Path
    report: Report


def find_reports(texts: Sequence[str], reports: Path | None) -> list[Named]:
    """Return the reports that `texts` name, in that order, each once; those of one glob by name, so by time.

    A text is a folder, a `report.json`, a name under `reports` or a glob of any of these; `NAME=` before it says what
    to call the report, by default A, B, C in order.

    Raises:
        UsageError: two are called the same, or one name is given to several.
        MissingInputError: a text matches nothing.
        DataError: a report is damaged or of another format.
    """
    found: dict[Path, str | None] = {}
    for text in texts:
        called, place = _split(text)
        folders = _folders(place, reports)
        if called is not None and len(folders) > 1:
            raise UsageError(f"'{text}' names {len(folders)} reports", fix="give each its own name")
        for folder in folders:
            found.setdefault(folder, called)
    names = [called or _letter(number) for number, called in enumerate(found.values())]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"two reports are called '{min(twice)}'", fix="name them otherwise, as NAME=REPORT")
    return [Named(name, folder, read_report(folder)) for name, folder in zip(names, found, strict=True)]


def _split(text: str) -> tuple[str | None, str]:
    called, equals, place = text.partition("=")
    if not equals or "/" in called or Path(text).exists():
        return None, text
    if not called or not place:
        raise UsageError(f"'{text}' is not NAME=REPORT", fix="give both a name and a report")
    return called, place


def _folders(place: str, reports: Path | None) -> list[Path]:
    bases = [Path(), *([] if reports is None else [reports])]
    for base in bases:
        path = base / place
        if path.exists():
            return [_folder(path)]
    for base in bases:
        matches = (Path(match) for match in glob.glob(str(base / place)))
        folders = sorted({_folder(path) for path in matches if path.name == FILE or (path / FILE).is_file()})
        if folders:
            return folders
    known = (
        []
        if reports is None or not reports.is_dir()
        else sorted(path.parent.name for path in reports.glob(f"*/{FILE}"))
    )
    raise MissingInputError(
        f"there is no report '{place}'",
        where=reports,
        fix=f"the newest there are {', '.join(known[-3:])}" if known else "`vipocc eval occupancy` writes one",
    )


def _folder(path: Path) -> Path:
    return (path.parent if path.name == FILE else path).resolve()


def _letter(number: int) -> str:
    # A to Z, then AA, AB, ...
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(65 + rest) + text
    return text
