"""Untrained embedded models of the full architectures, written as trained ones are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `depth`, `detector` and `segmenter`, as the package's own folder holds them."""
    from vipocc.apps.embedded.architectures import build
    from vipocc.apps.embedded.saving import save_model
    from vipocc.priors.embedded import MODELS

    folder = tmp_path_factory.mktemp("embedded")
    for name in MODELS:
        save_model(name, build(name, 0).eval(), folder / name, {"steps": 0, "metrics": {"abs_rel": 1.5}})
    return folder


@pytest.fixture
def packaged(untrained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in the place of the package's own."""
    monkeypatch.setattr("vipocc.priors.embedded.FOLDER", untrained)
    return untrained
