"""What two configurations differ in."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vipocc import config
from vipocc.cli import App
from vipocc.errors import ConfigError, VipoccError


class Named(NamedTuple):
    """A configuration and what it is called."""

    name: str
    values: dict[str, Any]


def named(what: str | None, app: App) -> Named:
    """Return the configuration of a preset, a run, a checkpoint's folder or a YAML file; None: of the workspace.

    Raises:
        ConfigError: it is none of these.
    """
    if what is None:
        return Named("this workspace", config.as_dict(app.config))
    if what in config.available():
        return Named(f"preset {what}", config.as_dict(config.load(what, profile=app.profile)))
    places = [Path(what), Path(what) / "config.yaml"]
    with contextlib.suppress(VipoccError):  # without a workspace there are no runs
        places.append(app.workspace.runs / what / "config.yaml")
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise ConfigError(
            f"'{what}' is no preset, run, checkpoint or YAML file",
            fix="see `vipocc config presets`, or name a folder of runs/",
        )
    return Named(what, config.as_dict(config.load(base=config.read(found))))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return for each key that differs, dotted, its value here and there; a key that is absent has None."""
    first, second = dict(_flat(one)), dict(_flat(other))
    keys = dict.fromkeys((*first, *second))
    return {key: [first.get(key), second.get(key)] for key in keys if first.get(key) != second.get(key)}


def as_text(one: str, other: str, found: Mapping[str, list[Any]]) -> str:
    """Return the differences, one line a key."""
    if not found:
        return f"{one} and {other} are the same"
    width = max(map(len, found))
    lines = [f"{key:<{width}}  {here!r} -> {there!r}" for key, (here, there) in found.items()]
    return "\n".join([f"{one} -> {other}", *lines])


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found
