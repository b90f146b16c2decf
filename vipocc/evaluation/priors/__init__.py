"""Priors against the truth: pseudo-depth as a depth map like any other, instances against the objects in the image."""

from vipocc.evaluation.priors.box_objects import BoxObjects, box_in_image
from vipocc.evaluation.priors.instances import ExactObjects, Found, Objects, class_figures, instance_tables, judge
from vipocc.evaluation.priors.matching import box_iou, detection_metrics, match, precision_recall_area
from vipocc.evaluation.priors.row_medians import RowMedians, row_medians

__all__ = [
    "BoxObjects",
    "ExactObjects",
    "Found",
    "Objects",
    "RowMedians",
    "box_in_image",
    "box_iou",
    "class_figures",
    "detection_metrics",
    "instance_tables",
    "judge",
    "match",
    "precision_recall_area",
    "row_medians",
]
