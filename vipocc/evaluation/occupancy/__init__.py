"""Scene and object occupancy against ground truth."""

from vipocc.evaluation.occupancy.cells import Cells, plane_cells
from vipocc.evaluation.occupancy.evaluate import evaluate_occupancy
from vipocc.evaluation.occupancy.judging import THRESHOLD, frame_metrics_reference
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
    "OBJECT_LABELS",
    "THRESHOLD",
    "Cells",
    "SliceTruth",
    "TruthReader",
    "evaluate_occupancy",
    "exact_truth",
    "frame_metrics_reference",
    "lidar_truth",
    "plane_cells",
    "predict_density",
    "published_truth",
    "slice_points",
]
