"""Our formulas against torchmetrics', where it has the same metric.

It is a reference here and no dependency of the package: it has two of the seven depth metrics, on tensors without
masks, and importing it takes seconds, which is why this is slow.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vipocc.evaluation.metrics import average_precision, depth_metrics, mean_where

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(3))
def test_depth_metrics(seed: int) -> None:
    from torchmetrics.functional import mean_absolute_percentage_error, mean_squared_error

    rng = np.random.default_rng(seed)
    truth, predicted = rng.uniform(1, 79, (30, 40)), rng.uniform(1, 79, (30, 40))
    truth[rng.random(truth.shape) < 0.6] = 0
    mask = truth > 0
    p, g = torch.from_numpy(predicted[mask]), torch.from_numpy(truth[mask])
    ours = depth_metrics(predicted, truth)
    assert ours["abs_rel"] == pytest.approx(float(mean_absolute_percentage_error(p, g)), rel=1e-6)
    assert ours["rmse"] == pytest.approx(float(mean_squared_error(p, g, squared=False)), rel=1e-6)
    assert ours["rmse_log"] == pytest.approx(float(mean_squared_error(p.log(), g.log(), squared=False)), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_binary_metrics(seed: int) -> None:
    from torchmetrics.functional.classification import binary_accuracy, binary_average_precision, binary_recall

    rng = np.random.default_rng(seed)
    positive, scores = rng.random(500) < 0.3, rng.integers(0, 40, 500) / 40.0
    t, s = torch.from_numpy(positive), torch.from_numpy(scores)
    assert average_precision(scores, positive) == pytest.approx(float(binary_average_precision(s, t.int())), rel=1e-6)
    called = scores > 0.5
    everywhere = np.ones(500, bool)
    assert mean_where(called == positive, everywhere) == pytest.approx(
        float(binary_accuracy(torch.from_numpy(called).int(), t.int())), rel=1e-6
    )
    # IE_rec is the recall of free cells.
    free = torch.from_numpy(~called).int()
    assert mean_where(~called, ~positive) == pytest.approx(float(binary_recall(free, (~t).int())), rel=1e-6)
