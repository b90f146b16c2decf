"""`vipocc checkpoints ...`, and an imported checkpoint in an evaluation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from model_cases import SMALL
from released_twin import Twin

from vipocc import cli
from vipocc import config as configuration
from vipocc.model.network import ViPOcc

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("released") / "KITTI-360.pt"
    torch.save({"trainer": {"iteration": 200, "epoch_length": 100}, "model": Twin(bts=True).state_dict()}, path)
    return path


def test_import_export_and_show(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["checkpoints", "import", str(released)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "BTS, 200 iterations; 32,695,105 parameters taken over, 2,196,648 left out" in said[0]
    assert said[-1] == "next: vipocc eval occupancy --checkpoint KITTI-360"

    assert cli.run(["checkpoints", "show", "KITTI-360"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("checkpoint of vipocc, imported from BTS\n")
    for part, count in (("encoder", "23,508,032"), ("decoder", "9,180,352"), ("head", "6,721")):
        assert re.search(rf"^  {part} +{count}$", shown, re.MULTILINE)
    assert "192x640, official pixel convention" in shown
    assert "whose authors' terms hold" in shown

    assert cli.run(["checkpoints", "export", "KITTI-360", "back.pt"]) == 0
    assert "356 entries of BTS's layout, 34,891,753 parameters; 2,196,648 parameters" in capsys.readouterr().out
    assert cli.run(["checkpoints", "export", "KITTI-360", "back.pt"]) == 2
    assert "--overwrite" in capsys.readouterr().err

    assert cli.run(["checkpoints", "show", "back.pt", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["kind"] == "released checkpoint of BTS"
    assert values["parameters"] == {"total": 34_891_753, "unused": 2_196_648}
    assert values["parts"]["encoder"] == 25_557_032
    assert cli.run(["checkpoints", "show", str(released)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("released checkpoint of BTS (training checkpoint)\n")
    assert "34,891,753, 2,196,648 of them in no prediction" in shown


def test_show_of_runs_and_steps(tmp_path: Path, capsys: Said) -> None:
    steps = tmp_path / "runs" / "20260101-demo" / "checkpoints"
    values = configuration.as_dict(configuration.load("demo"))
    model = ViPOcc(SMALL)
    for step in (9, 1000):
        model.save_pretrained(steps / f"step_{step}", {**values, "model": SMALL.model_dump(mode="json")})
    assert cli.run(["checkpoints", "show", str(steps.parent), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["best"], found["steps"]) == (1000, False, [9, 1000])
    (steps / "best").write_text("step_9\n")
    assert cli.run(["checkpoints", "show", str(steps)]) == 0
    shown = capsys.readouterr().out
    assert "9, the best of its run" in shown
    assert "steps kept" in shown
    assert f"{sum(parameter.numel() for parameter in model.parameters()):,}" in shown
    assert "Depth-Anything-V2" in shown
    assert cli.run(["checkpoints", "show", str(steps / "step_1000")]) == 0
    assert "best" not in capsys.readouterr().out


@pytest.mark.parametrize("what", ["absent", "a/b", "file", "folder", "no weights", "damaged", "alien"])
def test_what_cannot_be_shown_is_one_sentence(tmp_path: Path, capsys: Said, what: str) -> None:
    path = tmp_path / "x"
    if what == "file":
        path.write_text("text")
    elif what == "folder":
        path.mkdir()
    elif what not in ("absent", "a/b"):
        ViPOcc(SMALL).save_pretrained(path)
        if what == "no weights":
            (path / "model.safetensors").unlink()
        elif what == "damaged":
            (path / "model.safetensors").write_bytes(b"1234567890")
        else:
            (path / "config.yaml").write_text("model: [1]\n")
    assert cli.run(["checkpoints", "show", what if what == "a/b" else str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("vipocc: error: ")
    assert said.count("\n") == 1


#: A world that is made in seconds.
WORLD = (
    "data.world.train_drives=1", "data.world.train_frames=4", "data.world.val_frames=2", "data.world.test_frames=2",
    "data.world.scale=0.12", "data.world.lidar_points=640", "data.world.antialias=false", "data.world.shadows=false",
    "data.fisheye=false",
)  # fmt: skip


@pytest.mark.slow
def test_an_imported_checkpoint_is_evaluated_at_once(released: Path, tmp_path: Path, capsys: Said) -> None:
    assert cli.run(["checkpoints", "import", str(released), "--output", str(tmp_path / "bts")]) == 0
    workspace = ["-C", str(tmp_path / "workspace")]
    changes = [word for text in WORLD for word in ("-o", text)]
    assert cli.run(["init", "--dataset", "synthetic", *workspace, *changes]) == 0
    evaluate = [
        "eval",
        "occupancy",
        "--protocol",
        "exact",
        "--checkpoint",
        str(tmp_path / "bts"),
        "--limit",
        "1",
        "--json",
    ]
    capsys.readouterr()
    assert cli.run([*evaluate, *workspace]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["settings"]["profile"] == "official"
    assert report["settings"]["preset"] == "bts"
    assert cli.run(["eval", "depth", *evaluate[2:], *workspace]) == 0
    assert "rendered" in capsys.readouterr().out
