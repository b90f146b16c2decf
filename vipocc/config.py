"""Typed configuration: presets, profiles and `-o key=value` overrides, checked as a whole before any stage runs.

A component's schema lives beside the component (`<package>/config.py`) and its values in `presets/*.yaml`; this module
only puts them together. Layers, later ones winning: schema defaults, the profile's values
(`presets/profiles/*.yaml`), the preset that a preset stands on (`base: NAME`), the preset, what it says for the profile
alone (`profiles: {NAME: …}`), a run's own saved file, overrides.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from vipocc.errors import ConfigError

PRESETS = Path(__file__).parent / "presets"

#: Top-level sections and where their schemas live. Schema modules import neither torch nor zarr.
SECTIONS: dict[str, str] = {
    "data": "vipocc.data_manifests.config:DataConfig",
    "priors": "vipocc.priors.config:PriorsConfig",
    "model": "vipocc.model.config:ModelConfig",
    "training": "vipocc.training.config:TrainingConfig",
    "evaluation": "vipocc.evaluation.config:EvaluationConfig",
}


class Schema(BaseModel):
    """Base of every configuration schema: frozen, unknown keys refused, each field described by its docstring."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TrainedCamera(Schema):
    """The left camera of the images that a model was trained with, for those who bring it other pictures."""

    dataset: str
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    """In pixels; (0, 0) is the centre of the top-left one."""
    cy: float
    tilt: float
    """Degrees that it looks down against the road."""


class _Root(Schema):
    preset: str = "vipocc"
    profile: str = "paper"
    seed: int = 0
    camera: TrainedCamera | None = None
    """Written by `vipocc train` into what it saves; nobody sets it."""


@cache
def root_schema() -> type[Any]:
    """Return the schema of a whole configuration: preset, profile, seed and one field per entry of `SECTIONS`."""
    fields: dict[str, Any] = {}
    for name, address in SECTIONS.items():
        module, _, attribute = address.partition(":")
        schema = getattr(importlib.import_module(module), attribute)
        fields[name] = (schema, schema())
    return create_model("Config", __base__=_Root, **fields)


def available(kind: str = "preset") -> list[str]:
    """Return the names of the packaged presets, or with `kind="profile"` of the profiles."""
    if kind == "profile":
        return sorted(path.stem for path in (PRESETS / "profiles").glob("*.yaml"))
    found = (path.relative_to(PRESETS).with_suffix("") for path in PRESETS.rglob("*.yaml"))
    return sorted(path.as_posix() for path in found if path.parts[0] != "profiles")


def summaries() -> str:
    """Return the packaged presets, one line each: name and what it is."""
    names = available()
    width = max(len(name) for name in names)
    return "\n".join(f"  {name:<{width}}  {read(PRESETS / f'{name}.yaml').get('summary', '')}" for name in names)


def load(
    preset: str | None = None,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
) -> Any:
    """Return the resolved, validated, frozen configuration.

    Args:
        preset: a packaged name or a path to a YAML file; by default the one `base` names, else `vipocc`.
        profile: `paper` or `official`; by default what the preset says.
        overrides: `section.key=value` strings, the value read as YAML.
        base: a saved configuration (that of a checkpoint) to start from instead of profile and preset.

    Raises:
        ConfigError: an unknown preset, profile or key (the nearest known name is suggested) or a value out of range.
    """
    written = _written(overrides)
    if base is not None and preset is None and profile is None:
        values = dict(base)
    else:
        values = {**_preset(preset or "vipocc"), "preset": preset or "vipocc"}
        chosen = profile or written.get("profile") or values.get("profile", "paper")
        # A profile that was asked for by name wins over one among the overrides, with all that it stands for.
        written["profile"] = chosen
        own = values.pop("profiles", {})
        values = _merge(_merge(_profile(str(chosen)), values), own.get(chosen, {}))
    return validate(_merge(values, written))


def validate(values: Mapping[str, Any], schema: Any = None) -> Any:
    """Return `values` as an instance of `schema` (the root by default), mistakes as one `ConfigError`."""
    schema = schema or root_schema()
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise _explain(error, schema) from None


def as_dict(config: BaseModel) -> dict[str, Any]:
    """Return a configuration as plain YAML-able values."""
    return config.model_dump(mode="json")


def save(config: BaseModel, path: Path) -> None:
    """Write a resolved configuration as YAML."""
    path.write_text(yaml.safe_dump(as_dict(config), sort_keys=False), encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; raises `ConfigError` where there is none."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            "cannot read the configuration", where=path, fix=f"check the path ({error.strerror})"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("not valid YAML", where=path, fix=str(error).replace("\n", " ")) from None
    if not isinstance(values, dict):
        raise ConfigError("not a configuration: a mapping of sections is expected", where=path, fix="see `vipocc init`")
    return values


def _preset(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    path = Path(name) if name.endswith((".yaml", ".yml")) else PRESETS / f"{name}.yaml"
    if not path.is_file() and name.endswith((".yaml", ".yml")):
        raise ConfigError(
            "the preset's file is not there", where=name, fix="correct --preset, or preset: in vipocc.yaml"
        )
    if not path.is_file():
        near = difflib.get_close_matches(name, available(), n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigError(
            f"there is no preset '{name}'", fix=f"{hint}use --preset with a .yaml file or one of these\n{summaries()}"
        )
    values = read(path)
    values.pop("summary", None)
    base = values.pop("base", None)
    if base is None:
        return values
    if base in seen or not isinstance(base, str):
        raise ConfigError(f"a preset cannot stand on '{base}'", where=path, fix="name another preset as its base")
    return _merge(_preset(base, (*seen, base)), values)


def _profile(name: str) -> dict[str, Any]:
    path = PRESETS / "profiles" / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"there is no profile '{name}'", fix=f"use --profile with one of {', '.join(available('profile'))}"
        )
    return read(path)


def _written(overrides: Iterable[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in overrides:
        key, found, value = text.partition("=")
        if not found or not key.strip():
            raise ConfigError(f"'{text}' is not an override", fix="write -o section.key=value")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(
                f"the value of '{text}' is not valid YAML", fix="quote it, as in -o 'key=\"a: b\"'"
            ) from None
        nested: Any = parsed
        for part in reversed(key.strip().split(".")):
            nested = {part: nested}
        values = _merge(values, nested)
    return values


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _explain(error: ValidationError, schema: Any) -> ConfigError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = _keys(schema)
        above, _, leaf = key.rpartition(".")
        siblings = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == above}
        near = [siblings[name] for name in difflib.get_close_matches(leaf, siblings, n=1)]
        near = near or [name for name in known if name.rpartition(".")[2] == leaf][:1]
        near = near or difflib.get_close_matches(key, known, n=1, cutoff=0.85)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys here: {', '.join(list(siblings.values())[:12])}"
        return ConfigError(f"unknown configuration key '{key}'", fix=hint)
    return ConfigError(
        f"configuration key '{key}' cannot be {first.get('input')!r}",
        fix=f"{first['msg'].lower()}; set it with -o {key}=…",
    )


def _keys(schema: Any, prefix: str = "") -> list[str]:
    names = []
    for name, field in schema.model_fields.items():
        names.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _keys(field.annotation, f"{prefix}{name}.")
    return names
