from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from vipocc.apps.doctor.workspace import next_step
from vipocc.cli import run
from vipocc.workspace import Workspace

Usage = namedtuple("Usage", "total used free")


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """Run `vipocc doctor --json` and return its code and its findings by name."""
    code = run(["doctor", "--json", *words])
    found = json.loads(capsys.readouterr().out)
    by_name = {one["name"]: one for one in found["findings"]}
    return code, {**found, "findings": by_name}


def test_without_a_workspace_the_machine_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "ok torch " in text
    assert "no vipocc workspace here" in text
    assert text.rstrip().endswith("next: vipocc init --dataset synthetic")
    code, found = told(capsys)
    assert (code, found["sound"]) == (0, True)
    assert {"python", "disk", "torch", "zarr", "opencv-python"} <= found["findings"].keys()
    assert "pytest" not in found["findings"], "what tests need is no fault of a user's machine"


def test_a_new_workspace_is_sound_and_says_what_is_to_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--dataset", "synthetic", "-C", str(tmp_path)]) == 0
    capsys.readouterr()
    code, found = told(capsys, "-C", str(tmp_path))
    assert (code, found["next"]) == (0, "vipocc priors depth --split train")
    assert "preset 'demo'" in found["findings"]["workspace"]["text"]
    assert {found["findings"][name]["text"] for name in ("stores", "runs", "reports")} == {"none yet"}


def test_what_comes_next_follows_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--dataset", "synthetic", "-C", str(tmp_path)]) == 0
    workspace = Workspace.open(tmp_path)
    steps = []
    for made in (
        "stores/synthetic/depth.zarr/zarr.json",
        "stores/synthetic/anchors.zarr/zarr.json",
        "runs/first/checkpoints/step_4/model.safetensors",
        "reports/1-occupancy-x/report.json",
    ):
        (tmp_path / made).parent.mkdir(parents=True)
        (tmp_path / made).touch()
        steps.append(next_step(workspace))
    assert steps == ["vipocc priors sam", "vipocc train", "vipocc eval occupancy", "vipocc view"]


def test_a_workspace_whose_dataset_is_gone_is_not_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    root.mkdir()
    assert run(["init", "--dataset", "kitti-360", "--root", str(root), "-C", str(tmp_path / "w")]) == 0
    capsys.readouterr()
    assert told(capsys, "-C", str(tmp_path / "w"))[1]["next"] == "vipocc data check"
    root.rmdir()
    code, found = told(capsys, "-C", str(tmp_path / "w"))
    assert (code, found["sound"]) == (2, False)
    assert "root is gone" in found["findings"]["dataset"]["text"]
    assert "vipocc.yaml" in found["next"]


def test_a_preset_that_is_gone_is_not_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("seed: 1\n")
    assert run(["init", "--dataset", "synthetic", "--preset", str(preset), "-C", str(tmp_path / "w")]) == 0
    preset.unlink()
    assert run(["doctor", "-C", str(tmp_path / "w")]) == 2
    assert "!! configuration" in (text := capsys.readouterr().out)
    assert "mine.yaml" in text


def test_weights_are_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, folder = tmp_path / "data", tmp_path / "w"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(bytes(2048))
    root.mkdir()
    words = ["-o", f"priors.depth.model={tmp_path / 'model'}"]
    assert run(["init", "--dataset", "kitti-360", "--root", str(root), "-C", str(folder), *words]) == 0
    capsys.readouterr()
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    _, found = told(capsys, "-C", str(folder))
    assert found["findings"]["depth"]["state"] == "good"
    assert "2.0 kB" in found["findings"]["depth"]["text"]
    assert found["findings"]["segmenter"]["state"] == "note"
    assert "hf download facebook/sam-vit-huge" in found["findings"]["segmenter"]["fix"]
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *a, **k: str(tmp_path / "model" / "model.safetensors")
    )
    _, found = told(capsys, "-C", str(folder))
    assert found["findings"]["segmenter"]["state"] == "good"


def test_a_package_that_is_absent_or_too_old_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    true = importlib.metadata.version

    def version(name: str) -> str:
        if name == "dask":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.0.1" if name == "zarr" else true(name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vipocc.apps.doctor.machine.importlib.metadata.version", version)
    code, found = told(capsys)
    assert code == 2
    assert [name for name, one in found["findings"].items() if one["state"] == "fault"] == ["zarr", "dask"]
    assert "zarr" not in found["findings"]["zarr"]["text"]
    assert ">=3.1.6" in found["findings"]["zarr"]["fix"]


def test_a_full_disk_and_a_damaged_store_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", "--dataset", "synthetic", "-C", str(tmp_path)]) == 0
    (tmp_path / "stores" / "synthetic" / "depth.zarr").mkdir(parents=True)
    (tmp_path / "stores" / "synthetic" / "depth.zarr" / "zarr.json").write_text("{")
    capsys.readouterr()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, 0, 1 << 20))
    code, found = told(capsys, "-C", str(tmp_path))
    assert found["findings"]["disk"]["state"] == "note"
    assert (code, found["findings"]["depth"]["state"]) == (2, "fault")
