from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import yaml

from vipocc.cli import COMMANDS, cli, run


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom vipocc.cli import run\nassert run(['--help']) == 0\n"
        "heavy = {'torch', 'zarr', 'transformers', 'cv2', 'numpy'} & set(sys.modules)\nassert not heavy, heavy"
    )
    best = 9.0
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        best = min(best, time.perf_counter() - start)
    assert best < 0.5


def test_every_command_loads_and_has_help() -> None:
    context = click.Context(cli)
    stack = [(name, cli.get_command(context, name)) for name in cli.list_commands(context)]
    assert len(stack) == len(COMMANDS)
    while stack:
        name, command = stack.pop()
        assert command is not None
        assert command.help, f"{name} has no help"
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts[-1]} has no help"
        if isinstance(command, click.Group):
            stack += [(f"{name} {key}", value) for key, value in command.commands.items()]


def test_no_workspace_is_one_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["config", "show"]) == 2
    assert "no vipocc workspace here" in (error := capsys.readouterr().err)
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_a_traceback_only_with_vv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-C", str(tmp_path), "config", "show", "-vv"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_unknown_command_is_the_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trian"]) == 2
    assert run(["data", "check", "--nonsense"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("vipocc: error: No such command 'trian'")
    assert first.endswith("see `vipocc --help`")
    assert second.startswith("vipocc: error: No such option")
    assert second.endswith("see `vipocc data check --help`")


def test_a_fault_of_ours_exits_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_args: object, **_named: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(cli, "main", broken)
    assert run([]) == 1
    assert "a fault in vipocc (RuntimeError: boom)" in capsys.readouterr().err


def test_init_writes_a_workspace_and_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-C", str(tmp_path / "w"), "init", "--dataset", "synthetic"]) == 0
    assert "vipocc priors depth --split train" in capsys.readouterr().out
    assert run(["init", "--dataset", "synthetic", "-C", str(tmp_path / "v"), "--preset", "nonsense"]) == 2
    assert not (tmp_path / "v").exists()


def test_overrides_are_checked_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-C", str(tmp_path), "init", "--dataset", "synthetic"]) == 0
    for command in (["priors", "depth"], ["train"], ["eval", "occupancy"], ["data", "prepare"]):
        assert run([*command, "-C", str(tmp_path), "-o", "training.btch_size=2"]) == 2
        assert "did you mean 'training.batch_size'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["vipocc.yaml"]


def test_init_refuses_a_dataset_that_cannot_be_read_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--dataset", "nuscenes", "--root", str(tmp_path), "-C", str(tmp_path / "w")]) == 2
    assert "use one of kitti-360, " in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_what_init_was_given_holds_for_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ["-C", str(tmp_path)]
    options = ["--scale", "1", "--full-fisheye", "-o", "training.batch_size=3", "--profile", "official"]
    assert run(["init", "--dataset", "synthetic", *options, *here]) == 0
    capsys.readouterr()
    assert run(["config", "show", "-o", "seed=4", *here]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["data"]["world"]["scale"], shown["data"]["world"]["full_fisheye"]) == (1.0, True)
    assert (shown["training"]["batch_size"], shown["seed"], shown["data"]["convention"]) == (3, 4, "official")
    assert run(["config", "show", "--profile", "paper", *here]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["profile"], shown["data"]["convention"], shown["training"]["batch_size"]) == ("paper", "centre", 3)


def test_init_refuses_a_wrong_key_before_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--dataset", "synthetic", "-o", "data.wrld.scale=1", "-C", str(tmp_path / "w")]) == 2
    assert "did you mean 'data.world'" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()
