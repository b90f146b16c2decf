"""`--devices all` and dask workers on CUDA: the bytes of one device, whatever overlaps."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import pytest
import torch
from workspace_tree import successful

from vipocc.workspace import Workspace

pytestmark = pytest.mark.gpu

WORLD = [
    "data.world.train_drives=2", "data.world.train_frames=70", "data.world.val_frames=3", "data.world.test_frames=3",
    "data.world.scale=0.12", "data.world.lidar_points=640", "data.world.antialias=false", "data.world.shadows=false",
    "data.fisheye=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared frames of two drives, two units a camera."""
    folder = tmp_path_factory.mktemp("world") / "ws"
    overrides = [part for text in WORLD for part in ("-o", text)]
    successful("init", "--dataset", "synthetic", "-C", str(folder), *overrides)
    successful("data", "prepare", "--kinds", "frames", "--cameras", "perspective", "-C", str(folder))
    return folder


def shards(workspace: Path, kind: str, name: str) -> dict[str, str]:
    store = Workspace.open(workspace).store(kind, name)
    files = sorted(path for path in store.rglob("*") if path.is_file() and "/c/" in path.as_posix())
    assert len(files) >= 8
    return {path.relative_to(store).as_posix(): blake2b(path.read_bytes()).hexdigest() for path in files}


def test_all_devices_and_dask_workers_give_the_bytes_of_one(
    workspace: Path, tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import LocalCluster

    depth = ("priors", "depth", "-C", str(workspace), "--model", str(tiny["depth"]), "--batch-size", "8")
    models = ("--detector", str(tiny["detector"]), "--segmenter", str(tiny["segmenter"]), "--batch-size", "8")
    sam = ("priors", "sam", "-C", str(workspace), *models)
    for command in (depth, sam):
        successful(*command, "--store", "one", "--device", "cuda:0")
        told = successful(*command, "--store", "all", "--devices", "all")
        for index in range(torch.cuda.device_count()):
            assert f"cuda:{index}" in told.out.splitlines()[0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # of the worker: this process knows its devices already
    with LocalCluster(n_workers=1, threads_per_worker=4, resources={"GPU": 1}, dashboard_address=None) as cluster:
        for command in (depth, sam):
            told = successful(*command, "--store", "dask", "--scheduler", cluster.scheduler_address)
            assert "dask: 1 workers with a GPU" in told.err
    for kind in ("depth", "instances", "anchors"):
        assert shards(workspace, kind, "one") == shards(workspace, kind, "all") == shards(workspace, kind, "dask")
