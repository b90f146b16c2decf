from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stores_helpers import spec

from vipocc.stores import Store


@pytest.fixture
def new_store(tmp_path: Path) -> Callable[..., Store]:
    """Make (or open) the store `depth.zarr` with one group of 100 rows."""

    def make(name: str = "depth", n: int = 100) -> Store:
        store = Store.create_or_open(tmp_path / f"{name}.zarr", spec(), tmp_path)
        store.ensure_group("drive/image_00", np.arange(n) * 3)
        return store

    return make
