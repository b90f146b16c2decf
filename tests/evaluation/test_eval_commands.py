from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import click
import pytest

from vipocc import cli, config
from vipocc.errors import CheckpointError, DeviceError, MissingInputError, UsageError
from vipocc.evaluation.commands import COMMANDS, eval_
from vipocc.evaluation.inputs import choose_checkpoint, choose_device
from vipocc.model.network import ViPOcc
from vipocc.workspace import Workspace


def tree(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "ws", "synthetic")


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [
        (["occupancy"], "vipocc train"),
        (["depth"], "vipocc train"),
        (["occupancy", "--run", "none"], "vipocc train"),
        (["occupancy", "--protocol", "voxel"], "--protocol slice-300"),
        (["occupancy", "--protocol", "slice-300-published"], "--truth-folder belong together"),
        (["occupancy", "--protocol", "slice-300", "--truth-folder", "here"], "--truth-folder belong together"),
        (["occupancy", "--truth-folder", "nowhere"], "give the folder that holds GT_Occ"),
        (["depth", "--protocol", "garg"], "--protocol lidar or exact"),
        (["occupancy", "--split", "train"], "--split test or val"),
        (["occupancy", "-o", "evaluation.batch=3"], "evaluation.batch_size"),
        (["sampler"], "vipocc"),
    ],
)
def test_what_is_missing_or_wrong_is_one_sentence(
    workspace: Workspace, arguments: list[str], way_out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(workspace.path)
    assert cli.run(["eval", *arguments, "-C", str(workspace.path)]) == 2
    said = capsys.readouterr().err.strip()
    assert way_out in said
    assert "\n" not in said
    assert "Traceback" not in said
    assert tree(workspace.path) == before


def test_exact_needs_the_synthetic_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    made = Workspace.create(tmp_path / "ws", "kitti-360", tmp_path / "data")
    assert cli.run(["eval", "occupancy", "--protocol", "exact", "-C", str(made.path)]) == 2
    assert "no exact truth" in capsys.readouterr().err


def test_the_checkpoint_s_configuration_wins(workspace: Workspace) -> None:
    trained = config.load("demo", overrides=["seed=5", "data.sweeps=30"])
    step = workspace.runs / "20260101-demo" / "checkpoints" / "step_7"
    ViPOcc(trained.model, trained.data.convention).save_pretrained(step, config.as_dict(trained))
    with pytest.raises(MissingInputError):  # never validated: none is the best
        choose_checkpoint(workspace, config.load("demo"), path=None, run=None)
    (step.parent / "best").write_text("step_7")
    found = choose_checkpoint(workspace, config.load("vipocc"), path=None, run=None, overrides=["data.sweeps=40"])
    assert found.path == step
    assert (found.config.seed, found.config.data.sweeps, found.config.preset) == (5, 40, "demo")
    assert found.describe(workspace)["path"] == "runs/20260101-demo/checkpoints/step_7"

    alone = workspace.path / "exported"
    ViPOcc(trained.model, trained.data.convention).save_pretrained(alone)
    found = choose_checkpoint(workspace, config.load("demo"), path=alone, run=None)
    assert found.config.model == trained.model
    assert found.config.data.image_size == config.load("demo").data.image_size
    assert found.named
    with pytest.raises(CheckpointError):
        choose_checkpoint(workspace, config.load("demo"), path=workspace.path, run=None)


def test_devices_that_are_not_there_are_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(DeviceError):
        choose_device("cuda:63")
    with pytest.raises(UsageError, match="'abacus' is not a device"):
        choose_device("abacus")


def test_every_listed_command_is_there_and_none_is_loaded_to_list_them() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, vipocc.evaluation.commands; print('torch' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"
    for name in COMMANDS:
        command = eval_.get_command(click.Context(eval_), name)
        assert command is not None
        assert command.name == name
