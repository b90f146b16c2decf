"""What is known of each metric: its title, which way is better, its digits, its unit, what it says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", ""]
_ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}


@dataclass(frozen=True)
class Column:
    """A metric as a column of tables."""

    title: str
    better: Better = ""
    """Which way is better; empty where neither is (a count, a share that describes)."""
    digits: int = 3
    """After the point."""
    unit: str = ""
    meaning: str = ""

    @property
    def heading(self) -> str:
        """Title with unit and an arrow towards better."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.title}{unit}{_ARROWS[self.better]}"

    def text(self, value: float, digits: int | None = None) -> str:
        """A value with the column's digits, or fewer; empty where there is none."""
        shown = self.digits if digits is None else min(digits, self.digits)
        return "" if math.isnan(value) else f"{value:,.{shown}f}"

    def best(self, values: Sequence[float]) -> float:
        """The best of values, NaN ones left out; NaN if no way is better or fewer than two are known."""
        known = [value for value in values if not math.isnan(value)]
        if not self.better or len(known) < 2:
            return math.nan
        return max(known) if self.better == "higher" else min(known)


COLUMNS: dict[str, Column] = {
    "o_acc": Column("O_acc", "higher", meaning="share of cells judged right"),
    "ie_acc": Column("IE_acc", "higher", meaning="the same over cells that are not visible"),
    "ie_rec": Column("IE_rec", "higher", meaning="free cells found free, of those that are not visible"),
    "ie_precision": Column("IE_prec", "higher", meaning="free cells among invisible ones that are called free"),
    "object_o_acc": Column("object O_acc", "higher", meaning="O_acc around objects"),
    "object_ie_acc": Column("object IE_acc", "higher", meaning="IE_acc around objects"),
    "object_ie_rec": Column("object IE_rec", "higher", meaning="IE_rec around objects"),
    "balanced_accuracy": Column(
        "balanced acc.", "higher", meaning="mean of the recalls of free and of occupied invisible cells"
    ),
    "average_precision": Column("avg. precision", "higher", meaning="of the score, at no threshold"),
    "precision": Column("precision", "higher", meaning="occupied cells among those called occupied"),
    "recall": Column("recall", "higher", meaning="occupied cells that were found"),
    "iou": Column("IoU", "higher", meaning="of occupied cells"),
    "abs_rel": Column("Abs Rel", "lower", meaning="mean of |g - p| / g"),
    "sq_rel": Column("Sq Rel", "lower", unit="m", meaning="mean of (g - p)² / g"),
    "rmse": Column("RMSE", "lower", unit="m", meaning="root of the mean of (g - p)²"),
    "rmse_log": Column("RMSE log", "lower", meaning="the same of natural logarithms"),
    "a1": Column("δ<1.25", "higher", meaning="share of pixels with max(g/p, p/g) < 1.25"),
    "a2": Column("δ<1.25²", "higher", meaning="likewise 1.25²"),
    "a3": Column("δ<1.25³", "higher", meaning="likewise 1.25³"),
    "covered": Column("covered", meaning="share of the truth's pixels that have a prediction"),
    "pixels": Column("pixels", "", 0, meaning="with true depth, an image"),
    "detections": Column("instances", "", 1, meaning="an image"),
    "empty": Column("without", meaning="share of images that have none"),
    "area_share": Column("area", meaning="share of the image that they cover"),
    "ap50": Column("AP50", "higher", meaning="average precision, boxes overlapping by half"),
    "recall50": Column("recall50", "higher", meaning="share of the objects that were found"),
    "mask_iou": Column("mask IoU", "higher", meaning="of matched pairs"),
    "n_v": Column("N_v", "higher", 1, meaning="distinct rays a draw (Eq. A.5)"),
    "n_vc": Column("N_vc", "higher", 1, meaning="distinct rays on critical instances a draw (Eq. A.5)"),
    "psi_v": Column("ψ_v", "higher", meaning="share of distinct rays on critical instances (Eq. A.6)"),
    "ray_share": Column("share of rays", meaning="distinct rays on instances of the class, mean over draws"),
    "parameters": Column("parameters", "lower", 2, "M", "millions of weights that are used"),
    "parameters_total": Column("held", "", 2, "M", "millions of weights in the model"),
    "parameters_trained": Column("trained", "", 2, "M", "millions of weights that are used and that training changes"),
    "occupancy_fps": Column("occupancy", "higher", 2, "images/s", "one slice of densities an image"),
    "depth_fps": Column("depth", "higher", 2, "images/s", "one depth map an image"),
}
"""By the names that reports use; `column` answers for others, too."""


def column(name: str) -> Column:
    """Return what is known of a metric; one that is not in the table has its name for a title and no better way."""
    return COLUMNS.get(name, Column(name))
