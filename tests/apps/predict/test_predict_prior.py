from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vipocc import config as configuration
from vipocc.apps.predict.prior import LivePrior
from vipocc.errors import CheckpointError, NonFiniteError, UsageError
from vipocc.priors import sources
from vipocc.priors.config import NetworkOptions
from vipocc.priors.sources.base import DepthModel, DepthSource, Images


class Plane(DepthSource):
    """Another package's source: a wall as far as the focal length says."""

    name = "plane"
    Options = NetworkOptions

    def identity(self) -> Mapping[str, Any]:
        return {"model": "plane", "revision": "1", "digest": "none", "licence": "none", "preprocessing": "1"}

    def load(self, device: str) -> DepthModel:
        def run(images: Images) -> np.ndarray:
            wall = np.full(images.rgb.shape[:3], images.intrinsics[0, 0] / 10.0)
            wall[images.rgb[..., 0] == 255] = np.nan
            return wall

        return run


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sources._OWN["depth"], "plane", f"{__name__}:Plane")
    return configuration.load("vipocc", overrides=["priors.options.plane.batch_size=2"])


def test_any_registered_source_gives_pseudo_depth_as_it_would_be_stored(config: Any, tmp_path: Path) -> None:
    prior = LivePrior("plane", config, "cpu", tmp_path)
    matrix = np.array([[123.45, 0, 5], [0, 100, 5], [0, 0, 1]])
    depth = prior(np.zeros((5, 8, 12, 3), np.uint8), matrix)
    assert depth.shape == (5, 8, 12)
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, np.float32(np.float16(12.345)))
    assert prior.fingerprint["source"] == "plane"


def test_depth_that_is_not_finite_is_told(config: Any, tmp_path: Path) -> None:
    prior = LivePrior("plane", config, "cpu", tmp_path)
    with pytest.raises(NonFiniteError, match="plane"):
        prior(np.full((1, 8, 12, 3), 255, np.uint8), np.eye(3))


def test_what_computes_no_depth_of_a_picture_is_refused(config: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="plane"):
        LivePrior("simulated", config, "cpu", tmp_path)
    with pytest.raises(CheckpointError, match="--depth-model"):
        LivePrior("no-such-folder", config, "cpu", tmp_path)
