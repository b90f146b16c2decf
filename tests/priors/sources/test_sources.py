"""Sources by name: what is found, what is refused and how it is told."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed_sources import forget, install

from vipocc import config as configuration
from vipocc.cli import run
from vipocc.errors import ConfigError, UsageError
from vipocc.priors.sources import (
    DepthSource,
    InstanceSource,
    chosen,
    make_source,
    maker,
    names,
    options_section,
    source_class,
)
from vipocc.workspace import Workspace

MODULE = '''
from typing import Literal

from vipocc.config import Schema
from vipocc.priors.sources import DepthSource, InstanceSource

WEIGHTS = {"model": "m", "revision": None, "digest": "d", "licence": "mit"}


class Options(Schema):
    """Options."""

    sharp: bool = False
    """Sharper."""
    of: Literal["a", "b"] = "a"
    """Which."""


class Good(DepthSource):
    name = "good"
    Options = Options

    def identity(self):
        return {**WEIGHTS, "preprocessing": "1", **self.options.model_dump()}


class Silent(DepthSource):
    name = "silent"
    Options = Options

    def identity(self):
        return {"model": "m", "digest": "d", "revision": None}


class Unspeakable(DepthSource):
    name = "unspeakable"
    Options = Options

    def identity(self):
        return {**WEIGHTS, "preprocessing": "1", "what": {1, 2}}


class Elsewhere(InstanceSource):
    name = "elsewhere"
    Options = Options

    def identity(self):
        return {"preprocessing": "1", "one": WEIGHTS, "two": {**WEIGHTS, "model": "n"}}
'''
POINTS = {
    "vipocc.priors.depth": {
        "good": "extra:Good", "silent": "extra:Silent", "unspeakable": "extra:Unspeakable", "absent": "nowhere:Good",
        "missing": "extra:Missing", "elsewhere": "extra:Elsewhere", "misnamed": "extra:Good",
    },
    "vipocc.priors.instances": {"elsewhere": "extra:Elsewhere"},
}  # fmt: skip


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install(tmp_path / "site", monkeypatch, {"extra": MODULE}, POINTS, "extra")
    yield
    forget({"extra": MODULE})


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "ws", "synthetic")


def config(*overrides: str) -> object:
    return configuration.load("demo", overrides=overrides)


def test_the_packages_own_come_through_the_same_door() -> None:
    assert names("depth")[:2] == ("depth-anything-v2", "simulated")
    assert names("instances")[:2] == ("grounded-sam", "simulated")
    for kind, base in (("depth", DepthSource), ("instances", InstanceSource)):
        for name in names(kind):  # type: ignore[arg-type]
            found = source_class(kind, name)  # type: ignore[arg-type]
            assert issubclass(found, base)
            assert (found.name, found.kind) == (name, kind)


@pytest.mark.parametrize(
    ("dataset", "overrides", "depth", "instances"),
    [
        ("synthetic", (), "simulated", "simulated"),
        ("kitti-360", (), "depth-anything-v2", "grounded-sam"),
        ("synthetic", ("priors.kinds.depth=depth-anything-v2",), "depth-anything-v2", "simulated"),
        ("kitti-360", ("priors.kinds.instances=other",), "depth-anything-v2", "other"),
    ],
)
def test_auto_goes_by_the_dataset(dataset: str, overrides: tuple[str, ...], depth: str, instances: str) -> None:
    priors = config(*overrides).priors  # type: ignore[attr-defined]
    assert (chosen("depth", priors, dataset), chosen("instances", priors, dataset)) == (depth, instances)


def test_options_of_another_package_are_checked_by_its_schema(installed: None, place: Workspace) -> None:
    there = ("priors.kinds.depth=good", "priors.options.good.sharp=true")
    source = make_source("depth", place, config(*there))
    assert source.fingerprint() == {
        "source": "good", "model": "m", "revision": None, "digest": "d", "licence": "mit", "preprocessing": "1",
        "sharp": True, "of": "a", "stored": "float16",
    }  # fmt: skip
    assert options_section(type(source)) == "priors.options.good"
    assert source.summary() == "by m"
    again = pickle.loads(pickle.dumps(source))
    assert again.fingerprint() == source.fingerprint()
    with pytest.raises(ConfigError, match=r"unknown configuration key 'priors.options.good.sharq'.*sharp"):
        make_source("depth", place, config(*there, "priors.options.good.sharq=1"))
    with pytest.raises(ConfigError, match=r"'priors.options.good.of' cannot be 'c'"):
        make_source("depth", place, config(*there, "priors.options.good.of=c"))
    with pytest.raises(ConfigError, match=r"options for 'goof', and no source of that name is installed"):
        make_source("depth", place, config(*there, "priors.options.goof.of=a"))


def test_several_models_stand_under_names_of_their_own(installed: None, place: Workspace) -> None:
    source = make_source("instances", place, config("priors.kinds.instances=elsewhere"))
    assert source.summary() == "by m and n"
    assert maker("instances", source.fingerprint()) is type(source)
    assert maker("instances", {"source": "gone"}) is None
    assert maker("instances", {}) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("god", r"no source 'god' of depth; did you mean 'good'"),
        ("absent", r"'absent' of depth cannot be loaded \(ModuleNotFoundError: No module named 'nowhere'"),
        ("missing", r"'missing' of depth cannot be loaded \(AttributeError"),
        ("elsewhere", r"leads to no DepthSource with name = 'elsewhere'"),
        ("misnamed", r"leads to no DepthSource with name = 'misnamed'"),
    ],
)
def test_what_cannot_be_used_is_told_when_it_is_asked_for(installed: None, name: str, expected: str) -> None:
    assert source_class("depth", "depth-anything-v2").name == "depth-anything-v2"
    with pytest.raises(UsageError, match=expected):
        source_class("depth", name)


def test_two_packages_with_one_name(
    installed: None, place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"vipocc.priors.depth": {"good": "second:Good", "simulated": "second:Good"}}
    install(tmp_path / "second", monkeypatch, {"second": MODULE}, points, "second")
    for name, places in (("good", "(second|extra):Good and (second|extra):Good"), ("simulated", ".* and second:Good")):
        with pytest.raises(UsageError, match=f"2 sources of depth are called '{name}': {places}"):
            source_class("depth", name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("silent", r"the source 'silent' does not say licence, preprocessing"),
        ("unspeakable", r"what identifies the source 'unspeakable' cannot be recorded"),
    ],
)
def test_a_source_has_to_say_what_it_is(installed: None, place: Workspace, name: str, expected: str) -> None:
    source = make_source("depth", place, config(f"priors.kinds.depth={name}"))
    with pytest.raises(ConfigError, match=expected):
        source.fingerprint()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--prior", "god"), "'god' is no source of depth; use one of auto, depth-anything-v2, simulated"),
        (
            ("--prior", "good", "--compile"),
            "the source 'good' has no option for --compile; it has -o priors.options.good.sharp",
        ),
        (("--prior", "simulated", "--batch-size", "2"), "the source 'simulated' has no option for --batch-size"),
        (("-o", "priors.kinds.depth=god"), "did you mean 'good'"),
        (("-o", "priors.source=simulated"), "known keys here: priors.kinds, "),
    ],
)
def test_on_the_command_line(
    installed: None, place: Workspace, words: tuple[str, ...], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["priors", "depth", "-C", str(place.path), *words]) == 2
    said = capfd.readouterr().err
    assert expected in said
    assert len(said.splitlines()) == 1


def test_help_lists_what_is_installed(installed: None, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["priors", "depth", "--help"]) == 0
    said = "".join(capfd.readouterr().out.split())
    assert "[auto|depth-anything-v2|simulated|good|" in said
    assert "|misnamed]" in said


@pytest.mark.parametrize("name", ["depth-anything-v2", "simulated", "grounded-sam"])
def test_workers_of_a_cluster_can_be_handed_a_source(place: Workspace, name: str) -> None:
    for kind in ("depth", "instances"):
        if name in names(kind):  # type: ignore[arg-type]
            source = make_source(kind, place, config(f"priors.kinds.{kind}={name}"))  # type: ignore[arg-type]
            check = pickle.loads(pickle.dumps(source.check_device))
            assert check("cpu") is None
            assert type(check.__self__) is type(source)
