"""What a new synthetic workspace takes its priors from is one constant, and never what files happen to lie there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vipocc import cli
from vipocc.priors.embedded import MODELS, OVERRIDES
from vipocc.workspace import Workspace


def init(folder: Path, *more: str) -> dict[str, object]:
    assert cli.run(["init", "--dataset", "synthetic", "-C", str(folder), *more]) == 0
    return dict(yaml.safe_load((folder / "vipocc.yaml").read_text()))


def test_simulated_is_said_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], packaged: Path
) -> None:
    monkeypatch.setattr("vipocc.priors.config.SYNTHETIC_PRIORS", "simulated")
    assert init(tmp_path)["overrides"] == []
    assert "simulated from the exact truth" in "".join(capfd.readouterr())


def test_embedded_is_written_into_the_workspace_and_options_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vipocc.priors.config.SYNTHETIC_PRIORS", "embedded")
    own = "priors.kinds.depth=simulated"
    assert init(tmp_path, "-o", own)["overrides"] == [*OVERRIDES, own]
    assert "own small networks" in "".join(capfd.readouterr())
    from vipocc import config

    priors = config.load(overrides=Workspace.open(tmp_path).overrides).priors
    assert priors.kinds.depth == "simulated"
    assert priors.kinds.instances == "grounded-sam"
    assert {priors.depth.model, priors.sam.detector, priors.sam.segmenter} == {f"embedded:{name}" for name in MODELS}


def test_absent_weights_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vipocc.priors.config.SYNTHETIC_PRIORS", "embedded")
    monkeypatch.setattr("vipocc.priors.embedded.FOLDER", tmp_path / "nothing")
    init(tmp_path / "ws", "--world", "tiny")
    capfd.readouterr()
    assert cli.run(["priors", "depth", "-C", str(tmp_path / "ws"), "--dry-run"]) == 2
    assert "without the weights of 'embedded:depth'" in "".join(capfd.readouterr())
    assert not (tmp_path / "ws" / "stores").exists()


@pytest.mark.slow
def test_priors_of_a_world_by_the_embedded_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], packaged: Path
) -> None:
    """The path from pictures to depth, boxes, masks and anchors, with nothing simulated."""
    from vipocc.stores import StoreReader

    monkeypatch.setattr("vipocc.priors.config.SYNTHETIC_PRIORS", "embedded")
    place = tmp_path / "ws"
    init(place, "--world", "tiny")
    for command in ("depth", "sam"):
        assert cli.run(["priors", command, "-C", str(place), "--split", "test", "--limit", "2"]) == 0
    said = "".join(capfd.readouterr())
    assert "embedded:depth" in said
    assert "196x644" in said
    workspace = Workspace.open(place)
    depth = StoreReader(workspace.store("depth"))
    assert depth.groups()
    for kind in ("instances", "anchors"):
        assert StoreReader(workspace.store(kind)).groups()
    assert cli.run(["priors", "depth", "-C", str(place), "--split", "test", "--limit", "2"]) == 0
    assert "simulated" not in "".join(capfd.readouterr())
