"""Depth Anything on CUDA: the same numbers as on paper, whatever makes it fast."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vipocc.priors.config import DepthConfig
from vipocc.priors.depth.depth_anything import DepthAnything
from vipocc.priors.depth.official import ENCODERS, to_official
from vipocc.priors.depth.preprocessing import Preprocessor, preprocess_reference
from vipocc.priors.depth.random_weights import make_random_depth
from vipocc.priors.depth.reference import depth_reference

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ViT-S with random weights."""
    return make_random_depth(tmp_path_factory.mktemp("small"), "s")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    noise = np.random.default_rng(3).integers(0, 256, (20, 6, 20, 3), np.uint8)
    return np.stack([cv2.resize(one, (640, 192), interpolation=cv2.INTER_CUBIC) for one in noise])


def depth(folder: Path, pictures: np.ndarray, **changes: object) -> np.ndarray:
    given = {"model": str(folder), "stored": "float32", **changes}
    return np.asarray(DepthAnything(DepthConfig(**given), "cuda")(pictures))  # type: ignore[arg-type]


def test_preprocessing_on_the_gpu_equals_cv2(pictures: np.ndarray) -> None:
    fast = Preprocessor((192, 640), (518, 1722), torch.device("cuda"))(torch.from_numpy(pictures[:2]).cuda())
    plain = preprocess_reference(pictures[:2], (518, 1722))
    np.testing.assert_allclose(fast.cpu().numpy(), plain.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_float32_equals_the_published_arithmetic(small: Path, pictures: np.ndarray, batch_size: object) -> None:
    state = to_official(load_file(small / "model.safetensors"))
    plain = depth_reference(state, pictures[4], heads=ENCODERS[0].heads, taps=ENCODERS[0].taps, max_depth=80)
    found = depth(small, pictures[:5], batch_size=batch_size)
    np.testing.assert_allclose(found[4], plain, rtol=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_bfloat16_differs_by_less_than_half_a_percent(small: Path, pictures: np.ndarray, compiled: bool) -> None:
    full = depth(small, pictures)
    half = depth(small, pictures, dtype="bfloat16", compiled=compiled, batch_size=8)
    off = np.median(np.abs(half / full - 1))
    assert off < 0.0025, f"the median is {off:.3%}; .5 % is promised"
