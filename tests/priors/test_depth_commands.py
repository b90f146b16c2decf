"""`vipocc priors depth` with a network and its options, on a small synthetic world."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vipocc.cli import run
from vipocc.priors.config import DepthConfig
from vipocc.priors.depth.depth_anything import DepthAnything
from vipocc.stores import StoreReader
from vipocc.workspace import Workspace

WORLD = [
    "data.world.train_drives=1", "data.world.train_frames=4", "data.world.val_frames=3", "data.world.test_frames=3",
    "data.world.scale=0.12", "data.world.lidar_points=640", "data.world.antialias=false", "data.world.shadows=false",
    "data.fisheye=false", "priors.depth.short_side=28",
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with prepared frames, not to be changed: tests copy it."""
    folder = tmp_path_factory.mktemp("world") / "ws"
    assert run(["init", "--dataset", "synthetic", "-C", str(folder)]) == 0
    assert depth(folder) == 0
    return folder


@pytest.fixture
def workspace(world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(world, tmp_path / "ws", copy_function=shutil.copy2))


def depth(folder: Path, *more: str) -> int:
    overrides = [part for text in WORLD for part in ("-o", text)]
    return run(["priors", "depth", "-C", str(folder), "--split", "train", *overrides, *more])


def reader(folder: Path, kind: str, name: str | None = None) -> StoreReader:
    return StoreReader(Workspace.open(folder).store(kind, name))


def test_depth_of_raw_images_goes_into_a_store_of_its_own(
    workspace: Path, tiny: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    given = ("--model", str(tiny["depth"]), "--source", "raw", "--dtype-stored", "float32", "--batch-size", "3")
    assert depth(workspace, *given) == 0
    out = capfd.readouterr().out
    assert "raw images, short side 28" in out.splitlines()[0]
    assert "into stores/synthetic/depth-raw.zarr" in out.splitlines()[0]
    found = reader(workspace, "depth", "raw")
    group = found.groups()[0]
    row = int(np.flatnonzero(found.rows(group))[0])
    identity = found.fingerprint(group)
    assert identity is not None
    assert (identity["images"], identity["stored"], identity["licence"]) == ("raw", "float32", "unknown")
    record = json.loads(next((found.path.parent / "depth-raw.zarr.ledger" / group).glob("[0-9]*.json")).read_text())
    image = Workspace.open(workspace).root / record["rows"][str(row)]["inputs"][0]["path"]
    raw = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
    assert raw.shape[:2] != (96, 320)
    model = DepthAnything(DepthConfig(model=str(tiny["depth"]), short_side=28, stored="float32"))
    stored = found.read(group, row)
    assert stored.dtype == np.float32
    np.testing.assert_allclose(stored, model(raw[None], (96, 320))[0], rtol=2e-4)
    assert record["notes"] == {"batch_size": 3}

    assert depth(workspace, *given) == 0
    assert "nothing to do" in capfd.readouterr().out
    os.utime(image, ns=(1, 1))
    assert depth(workspace, *given) == 0
    assert "1 of" in capfd.readouterr().out


def test_an_original_checkpoint_runs_from_the_command_line(
    workspace: Path, tmp_path: Path, tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from vipocc.priors.depth import official

    monkeypatch.setattr(official, "ENCODERS", (official.Encoder(24, 4, 2, (0, 1, 2, 3)),))
    file = tmp_path / "mine.pth"
    torch.save(official.to_official(load_file(tiny["depth"] / "model.safetensors")), file)
    assert depth(workspace, "--model", str(file), "--store", "pth") == 2
    assert "--max-depth" in capfd.readouterr().err
    assert depth(workspace, "--model", str(file), "--store", "pth", "--max-depth", "60") == 0
    found = reader(workspace, "depth", "pth")
    group = found.groups()[0]
    identity = found.fingerprint(group)
    assert identity is not None
    assert (identity["model"], identity["max_depth"]) == ("mine.pth", 60.0)
    assert found.read_many(group, np.flatnonzero(found.rows(group))).max() < 60


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("--batch-size", "0"), "neither a number from 1 nor 'auto'"),
        (("--batch-size", "many"), "neither a number from 1 nor 'auto'"),
        (("--preprocessing", "hub", "--input-size", "native"), "contradict"),
        (("--preprocessing", "hub"), "image processor"),
        (("--max-depth", "20"), "contradicts the model"),
        (("--compile",), "leave out --compile"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    world: Path, tiny: dict[str, Path], given: tuple[str, ...], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert depth(world, "--model", str(tiny["depth"]), "--store", "x", "--device", "cpu", *given) == 2
    assert expected in capfd.readouterr().err
    assert not Workspace.open(world).store("depth", "x").exists()


def test_auto_is_taken_and_other_ways_in_are_other_stores(
    workspace: Path, tiny: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    given = ("--model", str(tiny["depth"]), "--store", "net", "--batch-size", "auto")
    assert depth(workspace, *given) == 0
    assert depth(workspace, *given, "--batch-size", "2") == 0
    assert "nothing to do" in capfd.readouterr().out
    assert depth(workspace, *given, "--input-size", "native") == 2
    assert "--store NAME" in capfd.readouterr().err
