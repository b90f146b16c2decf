"""Which models priors come from: small classes by name, one table for each kind of prior.

Another package adds one through the entry-point groups `vipocc.priors.depth` and `vipocc.priors.instances`: its name,
and the class (docs/adding-a-prior.md). The package's own are entry points too, which only need no metadata.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vipocc.errors import ConfigError, UsageError
from vipocc.priors.config import PriorsConfig
from vipocc.priors.sources.base import (
    DepthSource,
    Images,
    InstanceSource,
    Kind,
    Source,
    fingerprint_models,
    options_section,
)
from vipocc.workspace import Workspace

__all__ = [
    "DepthSource",
    "Images",
    "InstanceSource",
    "Kind",
    "Source",
    "chosen",
    "default",
    "fingerprint_models",
    "make_source",
    "maker",
    "names",
    "network",
    "options_section",
    "source_class",
]

_GROUPS: dict[Kind, str] = {"depth": "vipocc.priors.depth", "instances": "vipocc.priors.instances"}
_OWN: dict[Kind, dict[str, str]] = {
    "depth": {
        "depth-anything-v2": "vipocc.priors.sources.depth_anything_v2:DepthAnythingV2",
        "simulated": "vipocc.priors.sources.simulated:SimulatedDepth",
    },
    "instances": {
        "grounded-sam": "vipocc.priors.sources.grounded_sam:GroundedSam",
        "simulated": "vipocc.priors.sources.simulated:SimulatedInstances",
    },
}


def names(kind: Kind) -> tuple[str, ...]:
    """Return the names of all sources of a kind, the package's own first; loads none of them."""
    return tuple(dict.fromkeys(point.name for point in _points(kind)))


def default(kind: Kind, dataset: str) -> str:
    """Return the source that `auto` means: the simulation for the synthetic world, else the published network."""
    return "simulated" if dataset == "synthetic" else network(kind)


def network(kind: Kind) -> str:
    """Return the source whose network the paper uses."""
    return next(iter(_OWN[kind]))


def chosen(kind: Kind, priors: PriorsConfig, dataset: str) -> str:
    """Return the name of the source that the configuration asks for; it need not exist."""
    asked: str = getattr(priors.kinds, kind)
    return default(kind, dataset) if asked == "auto" else asked


@cache
def source_class(kind: Kind, name: str) -> type[Source]:
    """Return the class of a source.

    Raises:
        UsageError: there is none of that name, two packages have one, it cannot be loaded, or is no source.
    """
    points = [point for point in _points(kind) if point.name == name]
    if not points:
        near = difflib.get_close_matches(name, names(kind), 1)
        meant = f"did you mean '{near[0]}'? " if near else ""
        raise UsageError(f"there is no source '{name}' of {kind}", fix=f"{meant}use one of {', '.join(names(kind))}")
    if len(points) > 1:
        places = " and ".join(point.value for point in points)
        raise UsageError(f"{len(points)} sources of {kind} are called '{name}': {places}", fix="uninstall one of them")
    point = points[0]
    base = DepthSource if kind == "depth" else InstanceSource
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"the source '{name}' of {kind} cannot be loaded ({type(error).__name__}: {error})",
            where=point.value,
            fix="install what it needs, or mend its entry point",
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)) or found.name != name:
        raise UsageError(
            f"the entry point '{name}' of {kind} leads to no {base.__name__} with name = '{name}'",
            where=point.value,
            fix="mend it as docs/adding-a-prior.md says",
        )
    return found


def maker(kind: Kind, fingerprint: Mapping[str, Any]) -> type[Source] | None:
    """Return the source that a record names, None where it is not installed or no record is there."""
    name = str(fingerprint.get("source", ""))
    return source_class(kind, name) if name in names(kind) else None


def make_source(kind: Kind, workspace: Workspace, config: Any) -> Source:
    """Return the source that the configuration asks for, its options checked; loads no weights.

    Args:
        kind: of prior.
        workspace: where frames lie.
        config: the resolved root configuration.

    Raises:
        UsageError: see `source_class`.
        ConfigError: an option that the source does not have, or options for a source that is not installed.
    """
    priors: PriorsConfig = config.priors
    installed = {name for each in _GROUPS for name in names(each)}
    for name in priors.options:
        if name not in installed:
            raise ConfigError(
                f"there are options for '{name}', and no source of that name is installed",
                where=f"priors.options.{name}",
                fix=f"install it, or use one of {', '.join(sorted(installed))}",
            )
    return source_class(kind, chosen(kind, priors, workspace.dataset))(workspace, config)


def _points(kind: Kind) -> list[EntryPoint]:
    group = _GROUPS[kind]
    own = [EntryPoint(name, value, group) for name, value in _OWN[kind].items()]
    return [*own, *entry_points(group=group)]
