"""Which density heads there are, by name.

Another package adds one through the entry-point group `vipocc.heads`: its name, and the class, a `DensityHead`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from vipocc.errors import ConfigError

if TYPE_CHECKING:
    from vipocc.model.config import ModelConfig
    from vipocc.model.heads.interface import DensityHead

GROUP = "vipocc.heads"
_BUILT_IN = {
    "mlp": "vipocc.model.field:MLPHead",
    "pixelnerf": "vipocc.model.heads.pixelnerf:PixelNeRFHead",
}


def head_kinds() -> tuple[str, ...]:
    """Return the names of all heads; loads none of them."""
    return (*_BUILT_IN, *(point.name for point in entry_points(group=GROUP) if point.name not in _BUILT_IN))


def head_class(kind: str) -> type[DensityHead]:
    """Return the class of a head; raises `ConfigError` for one that is not there."""
    if kind in _BUILT_IN:
        module, _, name = _BUILT_IN[kind].partition(":")
        built_in: type[DensityHead] = getattr(import_module(module), name)
        return built_in
    points = entry_points(group=GROUP, name=kind)
    if not points:
        raise ConfigError(
            f"there is no density head '{kind}'", fix=f"set -o model.head.kind to one of {', '.join(head_kinds())}"
        )
    found: type[DensityHead] = next(iter(points)).load()
    return found


def build_head(config: ModelConfig, channels: int) -> DensityHead:
    """Build the head that a model's configuration names, for features of so many channels."""
    return head_class(config.head.kind).from_config(config, channels)
