"""The engines from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vipocc import cli
from vipocc.priors.tiny import make_tiny_sam

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str]:
        code = cli.run(list(arguments))
        return code, "".join(capfd.readouterr())

    return call


def test_convert_goes_both_ways_and_never_over_what_is_there(run: Run, tmp_path: Path) -> None:
    source = make_tiny_sam(tmp_path / "source")
    code, output = run("priors", "convert", str(source), str(tmp_path / "sam.pth"))
    assert code == 0, output
    assert output.startswith("SAM: ")
    code, output = run("priors", "convert", str(tmp_path / "sam.pth"), str(tmp_path / "folder"))
    assert code == 0, output
    assert {each.name for each in (tmp_path / "folder").iterdir()} >= {"config.json", "model.safetensors"}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "sam.pth", "source"]
    code, output = run("priors", "convert", str(tmp_path / "sam.pth"), str(tmp_path / "folder"))
    assert code == 2
    assert "exists already" in output


@pytest.mark.parametrize(("source", "target"), [("a.pth", "b.pth"), ("folder", "other")])
def test_convert_wants_two_layouts(run: Run, tmp_path: Path, source: str, target: str) -> None:
    code, output = run("priors", "convert", str(tmp_path / source), str(tmp_path / target))
    assert code == 2
    assert ".pth" in output


def test_convert_refuses_what_is_neither(run: Run, tmp_path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    code, output = run("priors", "convert", str(tmp_path / "other.pth"), str(tmp_path / "folder"))
    assert code == 2
    assert "neither a Grounding DINO nor a SAM" in output
    assert not (tmp_path / "folder").exists()
