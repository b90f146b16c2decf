"""Reports: what was measured how, on which frames, with which result, as `report.json`, a table and a page."""

from vipocc.evaluation.report.columns import COLUMNS, Column, column
from vipocc.evaluation.report.content import FORMAT_VERSION, Figure, Frame, Kind, Report, Row, Skipped
from vipocc.evaluation.report.digest import TruthDigest
from vipocc.evaluation.report.read import read_report

__all__ = [
    "COLUMNS",
    "FORMAT_VERSION",
    "Column",
    "Figure",
    "Frame",
    "Kind",
    "Report",
    "Row",
    "Skipped",
    "TruthDigest",
    "column",
    "read_report",
]
