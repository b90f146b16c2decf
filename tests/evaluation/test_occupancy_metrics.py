from __future__ import annotations

import math

import numpy as np
import pytest

from vipocc.errors import UsageError
from vipocc.evaluation.metrics import (
    OBJECT,
    SCENE,
    aggregate,
    average_precision,
    density_precision,
    object_cells,
    object_metrics,
    occupancy_metrics,
)


def plain_scene(predicted: np.ndarray, occupied: np.ndarray, visible: np.ndarray) -> dict[str, float]:
    """published_system.md 7.1, steps 5 to 7, cell by cell."""
    rows, columns = visible.shape
    first = next((r for r in range(rows) if any(visible[r])), None)
    if first is None:
        return dict.fromkeys((*SCENE, "balanced_accuracy"), math.nan)
    right = total = hidden_right = hidden = free_right = free = full_right = full = 0
    for r in range(max(0, first - 20), rows):
        for c in range(columns):
            p, v = bool(predicted[r, c]), bool(visible[r, c])
            g = bool(occupied[r, c]) and not v
            total += 1
            right += p == g
            if not v:
                hidden += 1
                hidden_right += p == g
                if g:
                    full += 1
                    full_right += p
                else:
                    free += 1
                    free_right += not p

    def share(part: int, whole: int) -> float:
        return part / whole if whole else math.nan

    ie_rec = share(free_right, free)
    return {
        "o_acc": share(right, total),
        "ie_acc": share(hidden_right, hidden),
        "ie_rec": ie_rec,
        "balanced_accuracy": (ie_rec + share(full_right, full)) / 2,
    }


def plain_objects(predicted: np.ndarray, occupied: np.ndarray, visible: np.ndarray, objects: np.ndarray) -> list[float]:
    """published_system.md 7.1, step 8."""
    ids = sorted(set(objects.reshape(-1).tolist()))[1:-1]
    cells = set()
    for number in ids:
        places = [(r, c) for r in range(objects.shape[0]) for c in range(objects.shape[1]) if objects[r, c] == number]
        top, bottom = min(r for r, _ in places) - 20, max(r for r, _ in places) + 20
        left, right = min(c for _, c in places) - 5, max(c for _, c in places) + 5
        cells |= {(r, c) for r in range(max(top, 0), min(bottom, objects.shape[0]))
                  for c in range(max(left, 0), min(right, objects.shape[1]))}  # fmt: skip
    rights, hidden_rights, free_rights = [], [], []
    for r, c in cells:
        p, v = bool(predicted[r, c]), bool(visible[r, c])
        g = bool(occupied[r, c]) and not v
        rights.append(p == g)
        if not v:
            hidden_rights.append(p == g)
            if not g:
                free_rights.append(not p)
    return [sum(values) / len(values) if values else math.nan for values in (rights, hidden_rights, free_rights)]


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (160, 80)
    occupied = rng.random(shape) < rng.random()
    visible = rng.random(shape) < rng.random() * 0.8
    visible[: rng.integers(0, 120)] = False
    objects = np.zeros(shape, dtype=np.uint8)
    objects[occupied] = 255
    for number in range(1, int(rng.integers(1, 5))):
        r, c = int(rng.integers(0, 150)), int(rng.integers(0, 75))
        objects[r : r + 8, c : c + 4] = number
    return rng.random(shape) * 2, occupied, visible, objects


@pytest.mark.parametrize("seed", range(12))
def test_scene_metrics_are_the_published_formulas(seed: int) -> None:
    density, occupied, visible, _ = scene(seed)
    got = occupancy_metrics(density > 0.5, occupied, visible)
    wanted = plain_scene(density > 0.5, occupied, visible)
    assert got.keys() == wanted.keys()
    for name in wanted:
        assert got[name] == pytest.approx(wanted[name], abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("seed", range(6))
def test_object_metrics_are_the_published_formulas(seed: int) -> None:
    density, occupied, visible, objects = scene(seed)
    if seed == 3:
        objects[objects == 255] = 0  # without static cells the last object is dropped, as published
    got = object_metrics(density > 0.5, occupied, visible, object_cells(objects))
    wanted = plain_objects(density > 0.5, occupied, visible, objects)
    assert list(got) == list(OBJECT)
    np.testing.assert_allclose(list(got.values()), wanted, atol=1e-9, equal_nan=True)


def test_objects_without_a_map_are_not_averaged() -> None:
    density, occupied, visible, _ = scene(1)
    empty = object_cells(np.zeros((160, 80), dtype=np.uint8))
    assert not empty.any()
    assert all(math.isnan(v) for v in object_metrics(density > 0.5, occupied, visible, empty).values())
    ids = np.zeros((160, 80), dtype=np.int32)
    ids[50:52, 40:42] = 7
    assert np.count_nonzero(object_cells(ids, [7])) == (2 + 39) * (2 + 9)


def test_no_visible_cell_skips_the_frame() -> None:
    density, occupied, _, _ = scene(2)
    nothing = np.zeros((160, 80), dtype=bool)
    assert all(math.isnan(v) for v in occupancy_metrics(density > 0.5, occupied, nothing).values())
    assert math.isnan(density_precision(density, occupied, nothing))


def test_constant_guesses_fool_the_published_metrics_but_not_ours() -> None:
    _, occupied, visible, _ = scene(4)
    free = occupancy_metrics(np.zeros_like(occupied), occupied, visible)
    full = occupancy_metrics(np.ones_like(occupied), occupied, visible)
    assert free["ie_rec"] == 1.0
    assert full["ie_rec"] == 0.0
    assert free["balanced_accuracy"] == full["balanced_accuracy"] == 0.5
    first = int(np.flatnonzero(visible.any(1))[0])
    prevalence = (occupied & ~visible)[max(0, first - 20) :].mean()
    for constant in (0.0, 1.0):
        precision = density_precision(np.full(occupied.shape, constant), occupied, visible)
        assert precision == pytest.approx(prevalence, abs=1e-12)
    truth = occupancy_metrics(occupied & ~visible, occupied, visible)
    assert set(truth.values()) == {1.0}


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_by_thresholds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, positive = np.round(rng.random(200), 1 + seed % 2), rng.random(200) < 0.3
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        now = np.count_nonzero(chosen & positive) / np.count_nonzero(positive)
        area += (now - recall) * np.count_nonzero(chosen & positive) / np.count_nonzero(chosen)
        recall = now
    assert average_precision(scores, positive) == pytest.approx(area, abs=1e-12)
    assert average_precision(positive.astype(float), positive) == 1.0
    assert math.isnan(average_precision(scores, np.zeros(200, dtype=bool)))


def test_maps_that_do_not_fit_are_refused() -> None:
    maps = np.zeros((4, 5), dtype=bool)
    with pytest.raises(UsageError, match="boolean maps"):
        occupancy_metrics(maps, maps, maps.T)
    with pytest.raises(UsageError, match="boolean maps"):
        occupancy_metrics(maps.astype(np.uint8), maps, maps)


def test_aggregate_drops_nan_and_brackets_the_mean() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.7, 0.1, 300).tolist()
    found = aggregate([*values, math.nan, math.nan])
    assert found.frames == 300
    assert found.mean == pytest.approx(np.mean(values))
    assert found.low < found.mean < found.high
    # The percentile interval of a mean of 300 is close to the normal one.
    assert (found.high - found.low) == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(300), rel=0.15)
    assert found == aggregate([*values, math.nan])
    assert math.isnan(aggregate([math.nan]).mean)
