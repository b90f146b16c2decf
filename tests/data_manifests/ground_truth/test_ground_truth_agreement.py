from __future__ import annotations

import numpy as np
import pytest

from vipocc.data_manifests.ground_truth.agreement import agreement
from vipocc.data_manifests.ground_truth.occupancy import OccupancyTruth
from vipocc.errors import UsageError


def maps() -> tuple[OccupancyTruth, OccupancyTruth]:
    """A wall in row 2 of 10 x 6 cells, seen from below; LiDAR takes three visible cells for occupied."""
    occupied, visible = np.zeros((2, 10, 6), np.bool_)
    occupied[2], visible[3:] = True, True
    built = OccupancyTruth(occupied.copy(), visible.copy())
    for row, column in ((9, 0), (9, 5), (4, 3)):
        built.occupied[row, column], built.visible[row, column] = True, False
    return built, OccupancyTruth(occupied, visible)


def test_every_disagreeing_visible_cell_is_counted_once() -> None:
    built, exact = maps()
    first, second = np.zeros((2, 10, 6), np.bool_)
    first[9, 0], second[9, 0] = True, True
    found = agreement(built, exact, {"first": first, "second": second})
    assert found["cells"] == 60
    assert found["agree"] == 57
    assert (found["visible_cells"], found["visible_agree"]) == (42, 39)
    assert (found["hidden_cells"], found["hidden_agree"]) == (18, 18)
    assert found["visibility_agree"] == 57
    assert found["causes"] == {"first": 1, "second": 0, "edge": 1, "unexplained": 1}


def test_a_visible_cell_counts_as_free_whatever_the_map_says() -> None:
    built, exact = maps()
    built.visible[:] = True
    found = agreement(built, exact)
    assert found["visible_agree"] == found["visible_cells"]
    assert found["hidden_cells"] - found["hidden_agree"] == 6, "the wall itself"


def test_maps_of_another_kind_are_refused() -> None:
    built, exact = maps()
    with pytest.raises(UsageError, match="boolean maps of one shape"):
        agreement(built, exact, {"first": np.zeros((10, 6), np.uint8)})  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="boolean maps of one shape"):
        agreement(OccupancyTruth(built.occupied[1:], built.visible[1:]), exact)
