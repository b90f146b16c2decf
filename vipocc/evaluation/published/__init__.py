"""Numbers that others published, as data, and which of them may stand beside a run. None is measured here."""

from vipocc.evaluation.published.beside import beside, comparable_tables, rows_beside
from vipocc.evaluation.published.tables import TABLES, PublishedTable, published_table

__all__ = ["TABLES", "PublishedTable", "beside", "comparable_tables", "published_table", "rows_beside"]
