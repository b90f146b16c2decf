from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_world import TinyWorld, make_world

from vipocc.training.session import start_training
from vipocc.workspace import Workspace


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """A world that tests only read, each run in a folder of its own."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(tmp_path: Path, shared_world: TinyWorld) -> TinyWorld:
    """A world of the test's own."""
    shutil.copytree(shared_world.workspace.path, tmp_path / "workspace", ignore=shutil.ignore_patterns("runs"))
    return TinyWorld(Workspace.open(tmp_path / "workspace"), shared_world.config)


@pytest.fixture(scope="session")
def undisturbed(shared_world: TinyWorld) -> Path:
    """A run of six steps, with what it said beside it."""
    said: list[str] = []
    start_training(shared_world.workspace, shared_world.config, name="undisturbed", say=said.append)
    (shared_world.workspace.runs / "said.txt").write_text("\n".join(said))
    return shared_world.workspace.runs / "undisturbed"


@pytest.fixture
def quiet() -> Callable[[str], None]:
    return lambda text: None
