from __future__ import annotations

from pathlib import Path

import pytest

from vipocc.cli import run


def test_without_a_workspace_the_machine_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "torch " in told
    assert "CUDA" in told or "cuda:0" in told
    assert "no vipocc workspace here" in told


def test_a_new_workspace_is_sound_and_says_what_is_to_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--dataset", "synthetic", "-C", str(tmp_path)]) == 0
    assert run(["doctor", "-C", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "preset 'demo'" in told
    assert "none yet (vipocc train)" in told


def test_a_workspace_whose_dataset_is_gone_is_not_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    root.mkdir()
    assert run(["init", "--dataset", "kitti-360", "--root", str(root), "-C", str(tmp_path / "w")]) == 0
    root.rmdir()
    assert run(["doctor", "-C", str(tmp_path / "w")]) == 2
    assert "the dataset's root is gone" in capsys.readouterr().out


def test_a_preset_that_is_gone_is_not_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("seed: 1\n")
    assert run(["init", "--dataset", "synthetic", "--preset", str(preset), "-C", str(tmp_path / "w")]) == 0
    preset.unlink()
    assert run(["doctor", "-C", str(tmp_path / "w")]) == 2
    assert "mine.yaml" in capsys.readouterr().out
