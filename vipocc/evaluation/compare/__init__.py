"""Reports side by side: the same frames, paired differences, and a refusal where the measurements differ."""

from vipocc.evaluation.compare.comparison import Comparison, Line, Run, compare
from vipocc.evaluation.compare.find import Named, find_reports
from vipocc.evaluation.compare.paired import Difference, paired_difference

__all__ = ["Comparison", "Difference", "Line", "Named", "Run", "compare", "find_reports", "paired_difference"]
