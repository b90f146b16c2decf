"""`vipocc config show|diff|presets` and `vipocc completion`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vipocc.cli import run


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["init", "--dataset", "synthetic", "-C", str(tmp_path / "ws"), "-o", "seed=7"]) == 0
    capsys.readouterr()
    return str(tmp_path / "ws")


def test_json_and_yaml_show_the_same(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "-C", place]) == 0
    text = capsys.readouterr().out
    assert run(["config", "show", "-C", place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == yaml.safe_load(text)
    assert yaml.safe_load(text)["seed"] == 7


def test_the_workspace_against_its_preset_another_one_and_a_file(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def differences(*words: str) -> dict[str, list[object]]:
        assert run(["config", "diff", "--json", "-C", place, *words]) == 0
        found: dict[str, list[object]] = json.loads(capsys.readouterr().out)["differences"]
        return found

    assert differences() == {"seed": [7, 0]}
    assert differences("-o", "training.batch_size=3")["training.batch_size"][0] == 3
    both = differences("vipocc", "bts")
    assert both["training.sampler"] == ["snog", "uniform"]
    assert both["model.depth_branch.kind"] == ["inverse_residual", "none"]
    assert differences("bts", "vipocc") == {key: [b, a] for key, (a, b) in both.items()}
    assert differences("demo", "demo") == {}
    assert run(["config", "show", "-C", place, "-o", "training.patches=5"]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    assert list(differences(str(tmp_path / "mine.yaml"))) == ["training.patches"]
    run_folder = Path(place) / "runs" / "first"
    run_folder.mkdir(parents=True)
    (run_folder / "config.yaml").write_text((tmp_path / "mine.yaml").read_text())
    assert list(differences("first")) == ["training.patches"]
    assert run(["config", "diff", "-C", place, "first"]) == 0
    assert "training.patches" in capsys.readouterr().out


def test_what_is_no_configuration_is_one_sentence(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "diff", "-C", place, "nothing"]) == 2
    assert "'nothing' is no preset, run, checkpoint or YAML file" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_vipocc(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert f"_VIPOCC_COMPLETE={shell}_complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "position", "expected"),
    [
        ("vipocc pri", 1, "priors"),
        ("vipocc eval depth --sc", 3, "--scaling"),
        ("vipocc eval depth --split t", 4, "train"),
    ],
)
def test_a_shell_completes(words: str, position: int, expected: str) -> None:
    import os

    environment = {**os.environ, "_VIPOCC_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    done = subprocess.run(
        [sys.executable, "-m", "vipocc"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert f"plain,{expected}" in done.stdout.split()
