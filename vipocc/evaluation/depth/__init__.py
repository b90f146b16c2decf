"""Metric depth against ground truth."""

from vipocc.evaluation.depth.evaluate import SCALINGS, Contender, KeepDepth, evaluate_depth, row_name
from vipocc.evaluation.depth.score import BINS, METRICS
from vipocc.evaluation.depth.truth import exact_truth, lidar_truth, sweep_truth
from vipocc.evaluation.depth.view import TruthReader, ViewPriors, ViewSource, rows_of_view, share_of_view

__all__ = [
    "BINS",
    "METRICS",
    "SCALINGS",
    "Contender",
    "KeepDepth",
    "TruthReader",
    "ViewPriors",
    "ViewSource",
    "evaluate_depth",
    "exact_truth",
    "lidar_truth",
    "row_name",
    "rows_of_view",
    "share_of_view",
    "sweep_truth",
]
