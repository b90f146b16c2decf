"""The demo's closing tables: depth against the prior, occupancy against guesses, samplers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vipocc.evaluation.report import Report
from vipocc.priors.config import SYNTHETIC_PRIORS


class Table(NamedTuple):
    """A titled table of text."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> list[str]:
        """Return its lines."""
        widths = [max(len(line[column]) for line in (self.head, *self.rows)) for column in range(len(self.head))]
        shown = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
            for line in (self.head, *self.rows)
        ]
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        return [f"**{self.title}**", "", shown[0], rule, *shown[1:], ""]


def summarise(reports: dict[str, Report]) -> str:
    """Return all of it in Markdown."""
    depth, *others = tables(reports)
    lines = ["# What the demo measured, on held-out streets", "", *depth.markdown(), generalisation(reports), ""]
    return "\n".join([*lines, *(line for one in others for line in one.markdown())])


def tables(reports: dict[str, Report]) -> list[Table]:
    """Return the tables: depth, occupancy against the exact truth and against LiDAR's, samplers."""
    found = [
        Table(
            "Depth against the exact truth, Abs Rel (smaller is better)",
            ["", "as it is", "median-scaled"],
            [
                [name, _value(reports["depth"], row, "abs_rel"), _value(reports["depth"], scaled, "abs_rel")]
                for name, row, scaled in (
                    (f"prior ({SYNTHETIC_PRIORS})", "prior", "prior, median-scaled"),
                    ("refined by the depth branch", "branch", "branch, median-scaled"),
                    ("rendered from the density", "rendered", "rendered, median-scaled"),
                )
            ],
        )
    ]
    for key, title in (("exact", "the exact truth"), ("lidar", "ground truth from LiDAR sweeps")):
        found.append(
            Table(
                f"Occupancy against {title}",
                ["", "O_acc", "balanced acc., hidden cells", "avg. precision"],
                [
                    [row.name, *(_value(reports[key], row.name, metric) for metric in _OCCUPANCY)]
                    for row in reports[key].rows
                    if row.kind != "published"
                ],
            )
        )
    found.append(
        Table(
            "Ray samplers, 64 patches an image (Table 10)",
            ["", "distinct rays N_v", "on critical instances ψ_v"],
            [
                [name, *(_value(reports["sampler"], name, metric) for metric in ("n_v", "psi_v"))]
                for name in ("random", "SNOG")
            ],
        )
    )
    return found


def generalisation(reports: dict[str, Report]) -> str:
    """Return how much worse depth is on streets that training never saw, in one sentence."""
    unseen, seen = (_mean(reports[key], "branch", "abs_rel") for key in ("depth", "depth, train"))
    return (
        f"Refined depth has Abs Rel {unseen:.3f} on the unseen street and {seen:.3f} on streets of training: "
        f"{unseen / seen:.2f} times as much."
    )


_OCCUPANCY = ("o_acc", "balanced_accuracy", "average_precision")


def _value(report: Report, row: str, metric: str) -> str:
    value = _mean(report, row, metric)
    if np.isnan(value):
        return "n/a"
    return f"{value:,.0f}" if metric == "n_v" else f"{value:.3f}"


def _mean(report: Report, row: str, metric: str) -> float:
    found = next((one for one in report.rows if one.name == row), None)
    value = None if found is None else found.metrics.get(metric)
    return float("nan") if value is None else value.mean
