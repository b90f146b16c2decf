"""`vipocc priors` on several workers: parts of array jobs, a dask cluster, devices, signals."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from workspace_tree import command, successful

from vipocc.errors import DeviceError, UsageError
from vipocc.priors import devices
from vipocc.priors.devices import worker_device
from vipocc.priors.parts import part_of
from vipocc.stores import SHARD, StoreReader
from vipocc.workspace import Workspace

WORLD = [
    "data.world.train_drives=1", "data.world.train_frames=5", "data.world.val_frames=3", "data.world.test_frames=3",
    "data.world.scale=0.12", "data.world.lidar_points=640", "data.world.antialias=false", "data.world.shadows=false",
    "data.fisheye=false", "priors.depth.short_side=28",
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with prepared frames: three drives, the first with two cameras; four units."""
    folder = tmp_path_factory.mktemp("world") / "ws"
    overrides = [part for text in WORLD for part in ("-o", text)]
    successful("init", "--dataset", "synthetic", "-C", str(folder), *overrides)
    successful("data", "prepare", "--kinds", "frames", "--cameras", "perspective", "-C", str(folder))
    return folder


@pytest.fixture
def workspace(world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(world, tmp_path / "ws", copy_function=shutil.copy2))


def held(workspace: Path, kind: str, name: str | None = None) -> dict[str, list[int]]:
    reader = StoreReader(Workspace.open(workspace).store(kind, name))
    rows = {group: np.flatnonzero(reader.rows(group)).tolist() for group in reader.groups()}
    return {group: some for group, some in rows.items() if some}


# Parts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 40])
def test_parts_are_disjoint_whole_units_and_everything(parts: int) -> None:
    rows = {
        ("b", "left"): np.array([3, 64, 65, 200, 300]),
        ("a", "right"): np.arange(150),
        ("a", "left"): np.arange(70, 500, 3),
    }
    seen: list[tuple[str, str, int]] = []
    for index in range(parts):
        part = part_of(rows, f"{index}/{parts}")
        units = {(*key, int(row) // SHARD) for key, some in part.items() for row in some}
        for key, some in part.items():
            whole = rows[key][np.isin(rows[key] // SHARD, np.unique(some // SHARD))]
            np.testing.assert_array_equal(some, whole)
        assert part == {} or list(map(list, part_of(dict(reversed(rows.items())), f"{index}/{parts}").values()))
        seen += [(*key, int(row)) for key, some in part.items() for row in some]
        assert abs(len(units) - 14 / parts) < 1
    assert sorted(seen) == sorted((*key, int(row)) for key, some in rows.items() for row in some)
    with pytest.raises(UsageError, match="is not a part of the work"):
        part_of(rows, f"{parts}/{parts}")


def test_a_part_holds_the_instances_of_its_anchors(workspace: Path) -> None:
    """Whichever parts are done already: a part of what happens to be there would be another one at each time."""
    for part in ("1/2", "0/2"):
        successful("priors", "sam", "--shard", part, "-C", str(workspace))
        anchors, instances = held(workspace, "anchors"), held(workspace, "instances")
        assert anchors == instances
        assert len(anchors) == (2 if part == "1/2" else 4)


# Devices --------------------------------------------------------------------------------------------------------------


def test_the_device_of_a_dask_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    there = 0
    monkeypatch.setattr(devices, "_cuda_devices", lambda: there)
    assert worker_device() == "cpu"
    with pytest.raises(DeviceError, match="no CUDA device"):
        worker_device("cuda")
    there = 1
    assert worker_device() == "cuda:0"
    there = 8
    with pytest.raises(DeviceError, match=r"sees 8 CUDA devices.*CUDA_VISIBLE_DEVICES"):
        worker_device()
    assert worker_device("cuda:5") == "cuda:5"
    assert worker_device("cpu") == "cpu"

    def refuses(device: str) -> None:
        raise DeviceError(f"not on {device}")

    with pytest.raises(DeviceError, match="not on cpu"):
        worker_device("cpu", refuses)


def test_all_devices_or_a_cluster(workspace: Path) -> None:
    told = command("priors", "depth", "-C", str(workspace), "--devices", "all", "--scheduler", "tcp://127.0.0.1:9")
    assert told.code == 2
    assert "--devices all and --scheduler contradict each other" in told.err


# A cluster ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A cluster in this process: a worker with a GPU, as it says, and one without."""
    from distributed import Scheduler, SpecCluster, Worker

    workers = {
        "gpu": {"cls": Worker, "options": {"nthreads": 4, "resources": {"GPU": 1}}},
        "plain": {"cls": Worker, "options": {"nthreads": 1}},
    }
    of_scheduler = {"cls": Scheduler, "options": {"port": 0, "host": "127.0.0.1", "dashboard": False}}
    with SpecCluster(workers=workers, scheduler=of_scheduler) as cluster:
        yield cluster.scheduler_address


def test_networks_on_a_cluster(workspace: Path, scheduler: str, tiny: dict[str, Path], tmp_path: Path) -> None:
    given = ("-C", str(workspace), "--model", str(tiny["depth"]), "--split", "train", "--batch-size", "4")
    successful("priors", "depth", *given, "--store", "here", "--device", "cpu")
    told = successful("priors", "depth", *given, "--store", "there", "--scheduler", scheduler)
    assert "dask: 1 workers with a GPU; 1 without are left to other work" in told.err
    assert f"on {scheduler}" in told.out
    assert held(workspace, "depth", "there") == held(workspace, "depth", "here")
    here, there = (StoreReader(Workspace.open(workspace).store("depth", name)) for name in ("here", "there"))
    for group, rows in held(workspace, "depth", "here").items():
        np.testing.assert_array_equal(there.read_many(group, rows), here.read_many(group, rows))


def test_other_work_on_a_cluster_by_parts(workspace: Path, scheduler: str) -> None:
    told = successful("priors", "sam", "-C", str(workspace), "--scheduler", scheduler, "--shard", "0/2")
    assert told.err.count("dask: 1 workers; 1 with a GPU are left to networks") == 2
    assert len(held(workspace, "instances")) == len(held(workspace, "anchors")) == 2
    successful("priors", "sam", "-C", str(workspace), "--scheduler", scheduler)
    assert held(workspace, "anchors") == held(workspace, "frames")


def test_preparation_on_a_cluster(workspace: Path, scheduler: str, tmp_path: Path) -> None:
    other = Path(shutil.copytree(workspace, tmp_path / "other", copy_function=shutil.copy2))
    successful("data", "prepare", "--kinds", "lidar", "-C", str(other))
    told = successful("data", "prepare", "--kinds", "lidar", "-C", str(workspace), "--scheduler", scheduler)
    assert "dask: 1 workers; 1 with a GPU are left to networks" in told.err
    assert held(workspace, "lidar") == held(other, "lidar") != {}


def test_a_report_on_a_cluster(workspace: Path, scheduler: str) -> None:
    successful("priors", "sam", "-C", str(workspace), "--split", "train")
    here = successful("priors", "report", "--json", "-C", str(workspace))
    there = successful("priors", "report", "--json", "-C", str(workspace), "--scheduler", scheduler)
    assert here.out == there.out
    verified = successful("stores", "verify", "-C", str(workspace), "--scheduler", scheduler)
    assert verified.out.count(": sound") == 3


def test_sigterm_finishes_the_unit_and_leaves_with_143(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vipocc.priors.anchors import AnchorsComputer

    compute = AnchorsComputer.compute

    def stopped(self: AnchorsComputer, *given: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return compute(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(AnchorsComputer, "compute", stopped)
    with pytest.raises(SystemExit) as left:
        command("priors", "sam", "-C", str(workspace))
    assert left.value.code == 143
    assert (len(held(workspace, "instances")), len(held(workspace, "anchors"))) == (4, 1)
