"""Scene and object occupancy against ground truth."""

from vipocc.evaluation.occupancy.evaluate import (
    METRICS,
    THRESHOLD,
    evaluate_occupancy,
    frame_metrics,
)
from vipocc.evaluation.occupancy.slices import predict_density, slice_points
from vipocc.evaluation.occupancy.truth import (
    OBJECT_LABELS,
    SliceTruth,
    TruthReader,
    exact_truth,
    lidar_truth,
    published_truth,
)

__all__ = [
    "METRICS",
    "OBJECT_LABELS",
    "THRESHOLD",
    "SliceTruth",
    "TruthReader",
    "evaluate_occupancy",
    "exact_truth",
    "frame_metrics",
    "lidar_truth",
    "predict_density",
    "published_truth",
    "slice_points",
]
