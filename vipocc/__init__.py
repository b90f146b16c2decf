"""Single-image 3D occupancy from driving video: priors, training and evaluation of the ViPOcc method.

Public names load when they are first used, so `import vipocc` is cheap:

    model = vipocc.load("runs/…/checkpoints/step_1000")
    depth = model.depth("street.jpg")
    store = vipocc.open_store("stores/synthetic/depth.zarr")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vipocc.api import Model as Model
    from vipocc.api import Scene as Scene
    from vipocc.api import load as load
    from vipocc.api_stores import Sample as Sample
    from vipocc.api_stores import open_store as open_store
    from vipocc.api_stores import samples as samples
    from vipocc.data_manifests.manifest import Manifest as Manifest
    from vipocc.errors import VipoccError as VipoccError
    from vipocc.model.network import ViPOcc as ViPOcc
    from vipocc.stores.reader import StoreReader as StoreReader
    from vipocc.workspace import Workspace as Workspace

__version__ = "0.1.0"

_LAZY = {
    "Manifest": "vipocc.data_manifests.manifest",
    "Model": "vipocc.api",
    "Sample": "vipocc.api_stores",
    "Scene": "vipocc.api",
    "StoreReader": "vipocc.stores.reader",
    "ViPOcc": "vipocc.model.network",
    "VipoccError": "vipocc.errors",
    "Workspace": "vipocc.workspace",
    "load": "vipocc.api",
    "open_store": "vipocc.api_stores",
    "samples": "vipocc.api_stores",
}
__all__ = [
    "Manifest",
    "Model",
    "Sample",
    "Scene",
    "StoreReader",
    "ViPOcc",
    "VipoccError",
    "Workspace",
    "__version__",
    "load",
    "open_store",
    "samples",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'vipocc' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)
