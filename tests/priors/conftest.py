from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small checkpoints of the three real architectures, made once."""
    from vipocc.priors.tiny import make_tiny_depth, make_tiny_grounding_dino, make_tiny_sam

    folder = tmp_path_factory.mktemp("tiny")
    return {
        "depth": make_tiny_depth(folder / "depth"),
        "detector": make_tiny_grounding_dino(folder / "detector"),
        "segmenter": make_tiny_sam(folder / "segmenter"),
    }


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a generated world, its train frames prepared and their depth simulated; tests copy it."""
    from small_world import arguments

    from vipocc.cli import run

    folder = tmp_path_factory.mktemp("world") / "ws"
    assert run(["init", "--dataset", "synthetic", "-C", str(folder)]) == 0
    assert run(arguments("priors", "depth", "-C", str(folder), "--split", "train")) == 0
    return folder


@pytest.fixture
def workspace(world: Path, tmp_path: Path) -> Path:
    """A copy of that workspace, to be changed."""
    return Path(shutil.copytree(world, tmp_path / "ws", copy_function=shutil.copy2))


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Three street-like pictures uint8 [3, 96, 320, 3]: sky above, ground below, coloured blocks, grain."""
    rng = np.random.default_rng(7)
    batch = np.empty((3, 96, 320, 3), np.uint8)
    for picture in batch:
        picture[:40], picture[40:] = (150, 180, 230), (90, 90, 95)
        for _ in range(12):
            x, y = int(rng.integers(0, 290)), int(rng.integers(25, 70))
            w, h = int(rng.integers(8, 50)), int(rng.integers(8, 25))
            cv2.rectangle(picture, (x, y), (x + w, y + h), [int(c) for c in rng.integers(0, 255, 3)], -1)
        picture += rng.integers(0, 12, picture.shape, np.uint8)
    return batch
