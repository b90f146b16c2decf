"""Metric depth against ground truth."""

from vipocc.evaluation.depth.evaluate import METRICS, evaluate_depth, predict_depths
from vipocc.evaluation.depth.truth import TruthReader, exact_truth, lidar_truth

__all__ = ["METRICS", "TruthReader", "evaluate_depth", "exact_truth", "lidar_truth", "predict_depths"]
