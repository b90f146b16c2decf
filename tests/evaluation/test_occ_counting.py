"""Every figure of a frame follows from its counts, and equals the released formulas written down once more."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipocc.data_manifests.manifest import FrameKey
from vipocc.evaluation.metrics import OBJECT, average_precision, judged_rows, object_cells
from vipocc.evaluation.occupancy import SliceTruth, frame_metrics_reference, plane_cells
from vipocc.evaluation.occupancy.counting import (
    cell_codes,
    count,
    count_reference,
    figures,
    ranked_precision,
)
from vipocc.evaluation.occupancy.judging import PARTS, Judge, near_cells, thresholds
from vipocc.evaluation.occupancy.tables import pooled
from vipocc.evaluation.predictors.constant import ConstantOccupancy
from vipocc.evaluation.protocols import CUBOID, slice_protocol

KEY = FrameKey("drive", "image_00", 0)


class Said(ConstantOccupancy):
    """A name and a unit for values that a test makes up."""

    unit = "density"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__("said", 0)


def frame(seed: int) -> tuple[np.ndarray, SliceTruth, np.ndarray]:
    """A density, ground truth and an object map, with whatever may be missing missing for some seeds."""
    rng = np.random.default_rng(seed)
    shape = (160, 80)
    density = rng.gamma(0.5, 2.0, shape).astype(np.float32)
    density[rng.random(shape) < 0.3] = 0.0
    occupied = rng.random(shape) < rng.uniform(0, 1)
    visible = rng.random(shape) < rng.uniform(0, 0.3)
    visible[: rng.integers(0, 150)] = False
    if not visible.any():
        visible[-1, 0] = True
    objects = np.zeros(shape, np.uint8)
    for number in range(1, int(rng.integers(1, 5))):
        row, column = rng.integers(0, 150), rng.integers(0, 70)
        objects[row : row + rng.integers(1, 20), column : column + rng.integers(1, 15)] = number
    if seed % 3:
        objects[(objects == 0) & occupied] = 255
    return density, SliceTruth(occupied, visible, object_cells(objects)), objects


def released(density: np.ndarray, occupied: np.ndarray, visible: np.ndarray, objects: np.ndarray) -> list[float]:
    """published_system.md 7.1, steps 3 and 5 to 8, from the text alone, in float64 means as tensors would give them."""

    def formulas(p: np.ndarray, g: np.ndarray, v: np.ndarray) -> list[float]:
        agree = (p == g).astype(np.float64)
        empty = (~p).astype(np.float64)
        hidden, free = ~v, ~v & ~g
        return [float(values.mean()) if values.size else math.nan for values in (agree, agree[hidden], empty[free])]

    p = density > 0.5
    g = occupied & ~visible
    first = int(np.nonzero(visible.any(axis=1))[0][0])
    keep = slice(max(0, first - 20), None)
    scene = formulas(p[keep], g[keep], visible[keep])
    mask = np.zeros(objects.shape, bool)
    for number in np.sort(np.unique(objects))[1:-1]:
        where = np.argwhere(objects == number)
        (r0, c0), (r1, c1) = where.min(0), where.max(0)
        mask[max(r0 - 20, 0) : min(r1 + 20, 160), max(c0 - 5, 0) : min(c1 + 5, 80)] = True
    return scene + formulas(p[mask], g[mask], visible[mask])


def frame_values(counts: np.ndarray, precision: float) -> dict[str, float]:
    """All figures of a frame from its counts: of the scene, and around objects."""
    found = figures(counts)
    values = {name: float(both[PARTS.index("scene")]) for name, both in found.items()}
    values |= {name: float(found[name.removeprefix("object_")][PARTS.index("objects")]) for name in OBJECT}
    return values | {"average_precision": precision}


@pytest.mark.parametrize("seed", range(12))
def test_a_judged_frame_has_the_released_figures(seed: int) -> None:
    density, truth, objects = frame(seed)
    protocol = slice_protocol()
    judge = Judge(protocol, plane_cells(protocol), [Said()], lambda key: truth)
    scored = judge([KEY], {"said": density.reshape(1, -1)})[0].scored["said"]
    assert scored.counts is not None
    values = frame_values(scored.counts[0], scored.precision)
    names = ("o_acc", "ie_acc", "ie_rec", *OBJECT)
    expected = released(density, truth.occupied, truth.visible, objects)
    np.testing.assert_allclose([values[name] for name in names], expected, rtol=0, atol=1e-6, equal_nan=True)
    twin = frame_metrics_reference(density, truth)
    for name, value in twin.items():
        np.testing.assert_allclose(values[name], value, rtol=0, atol=1e-12, equal_nan=True)
    # By opacity the same figures at another threshold: 1 - exp(-0.1 d) > 0.5.
    dense = frame_metrics_reference(np.where(1 - np.exp(-0.1 * density.astype(np.float64)) > 0.5, 1.0, 0.0), truth)
    by_opacity = frame_values(scored.counts[1], scored.precision)
    for name in names:
        np.testing.assert_allclose(by_opacity[name], dense[name], rtol=0, atol=1e-12, equal_nan=True)


@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_counts_of_all_parts_at_once(seed: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 9)), int(rng.integers(1, 9)))
    masks = [rng.random(shape) < 0.5 for _ in range(parts)]
    occupied, visible, called = (rng.random(shape) < share for share in (0.3, 0.4, 0.5))
    counts = count(cell_codes(masks, occupied, visible), called, parts)
    np.testing.assert_array_equal(counts, count_reference(masks, occupied, visible, called))
    np.testing.assert_array_equal(counts.sum(axis=(1, 2, 3)), [mask.sum() for mask in masks])


@given(st.integers(0, 2**32 - 1))
def test_precision_of_packed_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.choice(np.float32([-2.5, -0.0, 0.0, 1e-30, 0.5, 3.0, 1e30]), int(rng.integers(1, 60)))
    positive = rng.random(len(scores)) < rng.uniform(0, 1)
    np.testing.assert_allclose(
        ranked_precision(scores, positive), average_precision(scores, positive), rtol=1e-12, equal_nan=True
    )


def test_figures_of_known_counts() -> None:
    counts = np.zeros((2, 2, 2, 2), np.int64)
    # visible free: 5 right, 1 wrong; hidden free: 3 right, 1 wrong; hidden occupied: 4 found, 2 missed
    counts[0, 1, 0], counts[0, 0, 0], counts[0, 0, 1] = (5, 1), (3, 1), (2, 4)
    found = figures(counts)
    expected = {
        "o_acc": 12 / 16, "ie_acc": 7 / 10, "ie_rec": 3 / 4, "balanced_accuracy": (3 / 4 + 4 / 6) / 2,
        "precision": 4 / 6, "recall": 4 / 6, "iou": 4 / 8, "ie_precision": 3 / 5,
    }  # fmt: skip
    assert {name: values[0] for name, values in found.items()} == expected
    assert all(np.isnan(values[1]) for values in found.values())


def test_pooled_values_sum_counts_over_frames() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 50, (30, 2, 2, 2))
    found = pooled(counts, ("iou", "o_acc"), 2000, 0.9)
    whole = counts.sum(axis=(0, 1))
    assert found["iou"].mean == whole[1, 1] / (whole[1].sum() + whole[0, 1])
    assert found["iou"].low < found["iou"].mean < found["iou"].high
    assert found["iou"].frames == 30
    means = np.nanmean(figures(counts)["iou"])
    assert found["iou"].mean != pytest.approx(means, abs=1e-6)
    # The interval is that of the ratio of sums over resampled frames.
    draws = rng.integers(0, 30, (4000, 30))
    ratios = figures(counts[draws].sum(axis=1))["iou"]
    np.testing.assert_allclose([found["iou"].low, found["iou"].high], np.quantile(ratios, [0.05, 0.95]), atol=0.004)


def test_rows_of_a_volume_are_cut_in_all_layers_alike() -> None:
    visible = np.zeros((4, 160, 80), np.bool_)
    visible[2, 60, 7] = visible[0, 90, 0] = True
    near = near_cells(visible, 20)
    assert near.shape == visible.shape
    assert not near[:, :40].any()
    assert near[:, 40:].all()
    plane = visible.any(axis=0)
    rows = judged_rows(plane)
    assert rows is not None
    np.testing.assert_array_equal(np.flatnonzero(near_cells(plane, 20)[:, 0]), range(rows.start, rows.stop))
    assert not near_cells(np.zeros_like(visible), 20).any()


def test_thresholds_of_units() -> None:
    assert thresholds("density", 0.1) == (0.5, pytest.approx(6.931, abs=1e-3))
    assert thresholds("opacity", 0.1) == (pytest.approx(1 - math.exp(-0.05)), 0.5)
    assert thresholds("probability", 0.1) == thresholds("occupancy", 0.1) == (0.5, 0.5)


def test_why_a_prediction_or_a_frame_is_not_judged() -> None:
    density, truth, _ = frame(1)
    protocol = slice_protocol()
    cells = plane_cells(protocol)

    def judged(values: np.ndarray, of: SliceTruth | str) -> tuple[str, str]:
        verdict = Judge(protocol, cells, [Said()], lambda key: of)([KEY], {"said": values.reshape(1, -1)})[0]
        return verdict.reason, verdict.scored["said"].reason if verdict.scored else ""

    broken, negative = density.copy(), density.copy()
    broken[3, 4], negative[3, 4] = np.nan, -1.0
    assert judged(density, truth) == ("", "")
    assert judged(broken, truth) == ("", "prediction not finite")
    assert judged(negative, truth) == ("", "prediction negative")
    assert judged(density, "no LiDAR ground truth") == ("no LiDAR ground truth", "")
    unseen = truth._replace(visible=np.zeros_like(truth.visible))
    assert judged(density, unseen) == ("no visible cell", "")
    other = SliceTruth(np.zeros(CUBOID.shape, np.bool_), np.ones(CUBOID.shape, np.bool_))
    assert judged(density, other) == ("ground truth of another protocol: [4, 160, 80] cells", "")


def test_rings_part_the_judged_cells() -> None:
    density, truth, _ = frame(5)
    protocol = slice_protocol()
    judge = Judge(protocol, plane_cells(protocol), [Said()], lambda key: truth)
    counts = judge([KEY], {"said": density.reshape(1, -1)})[0].scored["said"].counts
    assert counts is not None
    assert counts[0].shape[0] == len(PARTS) + 3
    np.testing.assert_array_equal(counts[0][len(PARTS) :].sum(axis=0), counts[0][0])
    z = plane_cells(protocol).rings[2]
    assert [int(ring.sum()) for ring in plane_cells(protocol).rings] == [40 * 80, 40 * 80, 80 * 80]
    assert z[0].all()
