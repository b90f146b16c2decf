"""Single-image 3D occupancy from driving video: priors, training and evaluation of the ViPOcc method.

Public names load when they are first used, so `import vipocc` is cheap:

    model = vipocc.ViPOcc.from_pretrained("runs/…/checkpoints/step_1000")
    store = vipocc.StoreReader("stores/synthetic/depth.zarr")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vipocc.data_manifests.manifest import Manifest as Manifest
    from vipocc.errors import VipoccError as VipoccError
    from vipocc.model.network import ViPOcc as ViPOcc
    from vipocc.stores.reader import StoreReader as StoreReader
    from vipocc.workspace import Workspace as Workspace

__version__ = "0.1.0"

_LAZY = {
    "Manifest": "vipocc.data_manifests.manifest",
    "StoreReader": "vipocc.stores.reader",
    "ViPOcc": "vipocc.model.network",
    "VipoccError": "vipocc.errors",
    "Workspace": "vipocc.workspace",
}
__all__ = ["Manifest", "StoreReader", "ViPOcc", "VipoccError", "Workspace", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'vipocc' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)
