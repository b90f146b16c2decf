from __future__ import annotations

import pytest
import torch

from vipocc import config
from vipocc.data_manifests.manifest import FrameKey
from vipocc.errors import DeviceError
from vipocc.evaluation.inputs import untrained_model
from vipocc.evaluation.occupancy import slice_points
from vipocc.evaluation.occupancy.counting import ranked_precision
from vipocc.evaluation.predictors import network as module
from vipocc.evaluation.predictors.interface import Batch
from vipocc.evaluation.predictors.network import NetworkOccupancy
from vipocc.evaluation.report import Frame
from vipocc.evaluation.speed.uses import example


def batch(count: int, device: str = "cpu", seed: int = 0) -> Batch:
    given = example(count, (96, 320), torch.device(device))
    keys = [FrameKey("drive", "image_00", seed * 100 + row) for row in range(count)]
    frames = [Frame(*key, key.row) for key in keys]
    return Batch(keys, frames, (given.images + 0.1 * seed).clamp(0, 1), given.intrinsics)


def test_what_is_replayed_is_what_is_called() -> None:
    model = untrained_model(config.load("demo"), torch.device("cpu"))
    network, given = NetworkOccupancy("n", "measured", model), batch(2)
    points = torch.from_numpy(slice_points())
    with torch.no_grad():
        graphed = network._density(given.images, given.intrinsics_ndc, points)
    assert torch.equal(graphed, network.occupancy(given, points))


def test_a_network_that_cannot_be_recorded_is_called_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = untrained_model(config.load("demo"), torch.device("cpu"))
    network, points = NetworkOccupancy("n", "measured", model), torch.from_numpy(slice_points())[:50]
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)

    def refuse(*tensors: torch.Tensor) -> torch.Tensor:
        raise DeviceError("it asks the host")

    network._replayed = refuse  # type: ignore[assignment]
    monkeypatch.setattr(network, "_features", lambda batch: None)
    monkeypatch.setattr(model, "density", lambda features, points, k: points[..., 0])
    given = batch(1)
    first = network.occupancy(given, points)
    assert capsys.readouterr().err == ""  # the first batch of a shape is never recorded
    assert torch.equal(network.occupancy(given, points), first)
    assert torch.equal(network.occupancy(given, points), first)
    assert capsys.readouterr().err.count("more slowly than it could be: it asks the host") == 1


def test_a_constant_score_ranks_nothing() -> None:
    scores = torch.full((200,), 0.3).numpy()
    positive = (torch.arange(200) % 7 == 0).numpy()
    scores_apart = scores.copy()
    scores_apart[0] += 1e-6
    assert ranked_precision(scores, positive) == pytest.approx(positive.mean(), abs=1e-15)
    assert ranked_precision(scores_apart, positive) == pytest.approx(positive.mean(), abs=0.04)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [1, 16])
def test_on_cuda_graphs_give_what_calls_give(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained_model(config.load("demo"), torch.device("cuda"))
    points = torch.from_numpy(slice_points()).cuda()
    batches = [batch(size, "cuda", seed) for seed in range(4)] + [batch(max(1, size // 2), "cuda", 5)]
    replaying = NetworkOccupancy("n", "measured", model)
    found = [replaying.occupancy(one, points) for one in batches]
    assert replaying._replayed is not None
    assert len(replaying._replayed._recorded) == 1
    monkeypatch.setattr(module, "MOST_REPLAYED", 0)
    calling = NetworkOccupancy("n", "measured", model)
    for one, values in zip(batches, found, strict=True):
        torch.testing.assert_close(values, calling.occupancy(one, points), rtol=1e-4, atol=1e-5)
