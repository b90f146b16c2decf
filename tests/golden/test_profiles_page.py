"""docs/profiles.md says what is so: options with their two values, tests that exist, functions that can be called."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vipocc import config

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "profiles.md").read_text(encoding="utf-8")
PROFILES = REPOSITORY / "vipocc" / "presets" / "profiles"


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its first two lines."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def resolved(profile: str, option: str) -> Any:
    value = config.load("vipocc", profile=profile)
    for part in option.split("."):
        value = getattr(value, part)
    return value


SIDE_BY_SIDE = rows("Side by side")
ALIKE = rows("Options that the released code has and both profiles set alike")
FUNCTIONS = rows("Functions on plain tensors")


def test_every_option_of_the_profiles_has_a_row() -> None:
    written = {key for name in ("paper", "official") for key, _ in flat(config.read(PROFILES / f"{name}.yaml"))}
    assert {quoted(row[0])[0] for row in SIDE_BY_SIDE} == written
    assert len(SIDE_BY_SIDE) == len(written) >= 20


@pytest.mark.parametrize("row", SIDE_BY_SIDE, ids=lambda row: row[0])
def test_the_two_values_are_those_of_the_profiles(row: list[str]) -> None:
    (option,) = quoted(row[0])
    for profile, cell in zip(("paper", "official"), row[1:3], strict=True):
        (text,) = quoted(cell)
        assert resolved(profile, option) == yaml.safe_load(text)
        given = dict(flat(config.read(PROFILES / f"{profile}.yaml")))
        assert given.get(option, resolved(profile, option)) == yaml.safe_load(text)
    assert row[3], "why they differ"


@pytest.mark.parametrize("row", ALIKE, ids=lambda row: row[0])
def test_options_that_are_alike_have_the_value_of_the_schema(row: list[str]) -> None:
    ((option,), (text,)) = quoted(row[0]), quoted(row[1])
    assert resolved("paper", option) == resolved("official", option) == yaml.safe_load(text)


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[^`]+)`", PAGE)
    for name in named:
        path, _, function = name.partition("::")
        source = (REPOSITORY / path).read_text(encoding="utf-8")
        assert not function or re.search(rf"^def {re.escape(function)}\(", source, re.MULTILINE), name
    for row in SIDE_BY_SIDE + ALIKE:
        assert quoted(row[-1]), f"no test holds {row[0]}"
    assert len(set(named)) > 25


@pytest.mark.parametrize("row", FUNCTIONS, ids=lambda row: row[0])
def test_every_function_that_is_named_can_be_called(row: list[str]) -> None:
    names = quoted(row[1])
    assert names
    for name in names:
        parts = name.split(".")
        # The longest prefix that is a module; what follows are attributes.
        for length in range(len(parts) - 1, 0, -1):
            try:
                found: Any = importlib.import_module(".".join(parts[:length]))
            except ModuleNotFoundError:
                continue
            break
        for part in parts[length:]:
            found = getattr(found, part)
        assert callable(found), name
        assert found.__doc__, name


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    lines = PAGE.split("\n    import torch\n")[1].splitlines()
    block = "\n".join(["import torch", *(line.removeprefix("    ") for line in lines)])
    exec(compile(block, "docs/profiles.md", "exec"), {})
    assert "tensor(0." in capsys.readouterr().out
