from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from vipocc.evaluation import bootstrap
from vipocc.evaluation.bootstrap import resampled_means, resampled_means_reference
from vipocc.evaluation.metrics import aggregate, aggregate_all


@pytest.mark.parametrize("frames", [1, 2, 7, 446])
@pytest.mark.parametrize("at_once", [1, 1000, 1 << 20])
def test_means_are_those_of_the_plain_loop(frames: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", at_once)
    values = np.random.default_rng(1).normal(size=(frames, 3))
    fast, plain = resampled_means(values, 50, 7), resampled_means_reference(values, 50, 7)
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-13)
    if frames > 2:
        assert np.abs(fast - resampled_means(values, 50, 8)).max() > 1e-3


def test_an_interval_is_read_from_the_means() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=200)
    means = resampled_means_reference(values[:, None], 1000)[:, 0]
    found = aggregate(values)
    assert found.mean == values.mean()
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-13)
    # The mean of n normal values has a standard error of 1/sqrt(n).
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.15)


def test_metrics_together_are_metrics_alone_whatever_frames_they_lack() -> None:
    rng = np.random.default_rng(0)
    frames = [{"a": rng.random(), "b": rng.random(), "c": rng.random(), "none": np.nan} for _ in range(60)]
    for at in range(0, 60, 7):
        frames[at]["b"] = np.nan
    for at in range(1, 60, 7):
        frames[at]["c"] = np.nan
    together = aggregate_all(frames, 100)
    for name in ("a", "b", "c"):
        alone = aggregate((frame[name] for frame in frames), 100)
        assert together[name].frames == alone.frames
        assert (together[name].low, together[name].high) == pytest.approx((alone.low, alone.high), abs=1e-13)
    assert together["a"].frames == 60
    assert together["b"].frames == 51
    assert together["none"].frames == 0
    assert np.isnan(together["none"].mean)
    assert aggregate([]).frames == 0
    assert aggregate_all([]) == {}


def test_memory_does_not_grow_with_the_resamples() -> None:
    values = np.zeros((5000, 4))
    peaks = []
    for resamples in (300, 900):
        tracemalloc.start()
        resampled_means(values, resamples)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 60e6
