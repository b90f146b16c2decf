from __future__ import annotations

from pathlib import Path

import pytest
from kitti_tree import DRIVE, Tree, make_tree

from vipocc.data_manifests.config import DataConfig


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A tree that no test may change."""
    return make_tree(tmp_path_factory.mktemp("kitti360") / "root")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A small tree of one drive that a test may spoil."""
    return make_tree(tmp_path / "root", (DRIVE,), 16)


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Lists that fit the tree: train frames 1-3 from both cameras, val frame 6, test frame 12."""
    folder = tmp_path / "lists"
    folder.mkdir()
    train = [f"{DRIVE} {frame:010d} {side}" for frame in (1, 2, 3) for side in "lr"]
    (folder / "train_files.txt").write_text("\n".join(train))
    (folder / "val_files.txt").write_text(f"{DRIVE} {6:010d} l")
    (folder / "test_files.txt").write_text(f"{DRIVE} {12:010d} l")
    return folder


@pytest.fixture
def config(lists: Path) -> DataConfig:
    return DataConfig(image_size=(32, 96), split=str(lists))
