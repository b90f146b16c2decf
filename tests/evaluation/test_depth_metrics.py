from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vipocc.errors import DataError, UsageError
from vipocc.evaluation.metrics import DEPTH, depth_metrics, lower_median, nearest_resize


def plain(predicted: np.ndarray, truth: np.ndarray, scaling: str) -> dict[str, float]:
    """published_system.md 7.4 with torch, pixel by pixel."""
    size = truth.shape
    p = torch.nn.functional.interpolate(torch.from_numpy(predicted)[None, None].double(), size, mode="nearest")[0, 0]
    g = torch.from_numpy(truth).double()
    mask = g != 0
    if scaling == "median":
        p = p * (g[mask].median() / p[mask].median())
    elif scaling == "least-squares":
        a = torch.stack([p[mask], torch.ones_like(p[mask])], 1)
        scale, shift = torch.linalg.lstsq(a, g[mask][:, None]).solution[:, 0]
        p = p * scale + shift
    pairs = [(float(x), min(max(float(y), 1e-3), 80.0)) for x, y in zip(g[mask], p[mask], strict=True)]
    n = len(pairs)
    result = {
        "abs_rel": sum(abs(x - y) / x for x, y in pairs) / n,
        "sq_rel": sum((x - y) ** 2 / x for x, y in pairs) / n,
        "rmse": math.sqrt(sum((x - y) ** 2 for x, y in pairs) / n),
        "rmse_log": math.sqrt(sum((math.log(x) - math.log(y)) ** 2 for x, y in pairs) / n),
    }
    for i in (1, 2, 3):
        result[f"a{i}"] = sum(max(x / y, y / x) < 1.25**i for x, y in pairs) / n
    return result


@pytest.mark.parametrize("scaling", ["none", "median", "least-squares"])
@pytest.mark.parametrize("seed", range(4))
def test_metrics_are_the_published_formulas(seed: int, scaling: str) -> None:
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(0.5, 100, (48, 160)).astype(np.float32)
    sizes = [(48, 160), (60, 97), (31, 201), (47, 155)]
    truth = rng.uniform(1, 90, sizes[seed]).astype(np.float32)
    truth[rng.random(truth.shape) < 0.8] = 0
    got, wanted = depth_metrics(predicted, truth, scaling), plain(predicted, truth, scaling)
    for name in DEPTH:
        assert got[name] == pytest.approx(wanted[name], rel=1e-6, abs=1e-9)
    assert got["covered"] == 1.0


@pytest.mark.parametrize("size", [(7, 9), (64, 200), (375, 1242), (192, 640)])
def test_nearest_is_torchs(size: tuple[int, int]) -> None:
    values = np.arange(192 * 640, dtype=np.float64).reshape(192, 640)
    wanted = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], size, mode="nearest")[0, 0]
    np.testing.assert_array_equal(nearest_resize(values, size), wanted.numpy())


def test_lower_median_is_torchs() -> None:
    for n in (1, 2, 5, 8):
        values = np.random.default_rng(n).random(n)
        assert lower_median(values) == float(torch.from_numpy(values).median())


def test_a_perfect_map_up_to_scale() -> None:
    truth = np.random.default_rng(0).uniform(2, 60, (20, 30))
    assert depth_metrics(truth * 1.6, truth, "median")["abs_rel"] == pytest.approx(0, abs=1e-12)
    assert depth_metrics(truth * 1.6 + 2, truth, "least-squares")["rmse"] == pytest.approx(0, abs=1e-9)
    assert depth_metrics(truth * 1.6, truth)["abs_rel"] == pytest.approx(0.6, abs=0.1)


def test_missing_truth_missing_predictions_and_caps() -> None:
    truth = np.full((4, 4), 10.0)
    assert all(math.isnan(v) for v in depth_metrics(truth, truth * math.nan).values())
    holes = truth.copy()
    holes[:2] = math.nan
    found = depth_metrics(holes, truth)
    assert found["covered"] == 0.5
    assert found["abs_rel"] == 0
    none = depth_metrics(truth * math.nan, truth)
    assert none["covered"] == 0
    assert math.isnan(none["rmse"])
    far = truth.copy()
    far[0] = np.inf
    far[1] = 90.0
    assert depth_metrics(truth, far, cap=80.0)["rmse"] == 0
    assert depth_metrics(truth, far)["rmse"] > 0


def test_broken_predictions_and_unknown_scalings_are_refused() -> None:
    truth = np.full((4, 4), 10.0)
    for bad in (-1.0, np.inf):
        with pytest.raises(DataError, match="infinite or negative"):
            depth_metrics(np.full((4, 4), bad), truth)
    with pytest.raises(UsageError, match="no scaling"):
        depth_metrics(truth, truth, "mean")  # type: ignore[arg-type]
