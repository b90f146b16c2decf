"""The torch version gives the cells of the plain loop: on the CPU here, on a GPU where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ground_truth_occupancy import drive, wall_scene

from vipocc.data_manifests.ground_truth.occupancy import (
    OccupancyTruth,
    Rule,
    SliceGrid,
    occupancy_ground_truth_reference,
)
from vipocc.data_manifests.ground_truth.occupancy_torch import DeviceSweep, occupancy_ground_truth_torch
from vipocc.errors import DataError, UsageError


def on(device: str, sweeps: list[np.ndarray]) -> list[DeviceSweep]:
    together = DeviceSweep.load_all(sweeps, device)
    for one, sweep in zip(together, sweeps, strict=True):
        alone = DeviceSweep.load(sweep, device)
        assert torch.equal(one.counts, alone.counts)
        assert torch.equal(one.points.double(), alone.points.double())
    return together


def differing(got: OccupancyTruth, expected: OccupancyTruth) -> int:
    return sum(int((a != b).sum()) for a, b in zip(got, expected, strict=True))


@settings(deadline=None, max_examples=12)
@given(
    st.integers(0, 10_000),
    st.integers(3, 12),
    st.sampled_from([400, 700, 3000]),
    st.sampled_from([0.0, 1.0, 6.0]),
    st.sampled_from(["official", "paper"]),
    st.sampled_from([1, 30_000, 10**9]),
)
def test_the_cells_of_the_plain_loop(
    seed: int, count: int, points: int, spacing: float, rule: Rule, chunk: int
) -> None:
    """Sparse sweeps leave bins empty, also the first; chunks of one sweep, of a few, of all."""
    sweeps, transforms = drive(seed, count, points, spacing)
    expected = occupancy_ground_truth_reference(sweeps, transforms, rule=rule)
    got = occupancy_ground_truth_torch(on("cpu", sweeps), transforms, rule=rule, chunk_points=chunk)
    assert differing(got, expected) == 0


def test_bins_before_the_first_point_take_its_range() -> None:
    """Points only in front: every bin behind takes the range of the smallest angle, not of its bin's nearest point."""
    rng = np.random.default_rng(2)
    angle = np.sort(rng.uniform(-0.9, 0.9, 4000))
    angle[1:40] = angle[0] + 1e-4 * np.arange(1, 40)
    planar = rng.uniform(6.0, 14.0, 4000)
    planar[:2] = 17.0, 12.0
    points = np.stack([planar * np.cos(angle), planar * np.sin(angle), np.full(4000, -0.5)], -1).astype(np.float32)
    sweeps, transforms = wall_scene(10.0, 4)
    # A sensor beyond the slice that looks away from it: all the cells lie behind. What it sees is `visible`.
    transforms[0, 2, 3] = 27.0
    sweeps[0] = points
    expected = occupancy_ground_truth_reference(sweeps, transforms)
    assert differing(occupancy_ground_truth_torch(on("cpu", sweeps), transforms), expected) == 0
    sweeps[0] = points[1:]
    assert differing(occupancy_ground_truth_torch(on("cpu", sweeps), transforms), expected) > 0


def test_another_grid() -> None:
    grid = SliceGrid(z_range=(50.0, 4.0), rows=460)
    sweeps, transforms = drive(5, 5, 2000, 2.0)
    expected = occupancy_ground_truth_reference(sweeps, transforms, grid)
    assert differing(occupancy_ground_truth_torch(on("cpu", sweeps), transforms, grid), expected) == 0


def test_what_is_refused() -> None:
    sweeps, transforms = wall_scene(10.0, 4)
    loaded = on("cpu", sweeps)
    with pytest.raises(UsageError, match="4 sweeps for 3 transforms"):
        occupancy_ground_truth_torch(loaded, transforms[:3])
    with pytest.raises(DataError, match="too few"):
        occupancy_ground_truth_torch(loaded[:2], transforms[:2])
    with pytest.raises(DataError, match="too sparse"):
        DeviceSweep.load(sweeps[0][:300], "cpu")
    loaded[2] = DeviceSweep.load(0.2 * sweeps[0] + [0.0, 0.0, 5.0], "cpu")
    with pytest.raises(DataError, match="sweep 2 of the frame has no point"):
        occupancy_ground_truth_torch(loaded, transforms)
    occupancy_ground_truth_torch(loaded, transforms, rule="paper")


@pytest.mark.gpu
@pytest.mark.parametrize("rule", ["official", "paper"])
def test_the_same_cells_on_a_gpu(rule: Rule) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for seed, points in ((0, 700), (1, 3000), (2, 20_000)):
        sweeps, transforms = drive(seed, 12, points, 2.0)
        expected = occupancy_ground_truth_reference(sweeps, transforms, rule=rule)
        got = occupancy_ground_truth_torch(on("cuda", sweeps), transforms, rule=rule, chunk_points=60_000)
        assert differing(got, expected) == 0, "an arctangent may differ by an ulp; look whether it is one cell"
