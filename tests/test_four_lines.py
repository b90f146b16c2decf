"""The user's four lines as a shell script, and a stage that is killed in the middle: `vipocc` as its own processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workspace_tree import tree_digests

SCRIPT = """
set -e
vipocc init --dataset synthetic
vipocc priors depth --split train >depth.txt
vipocc priors sam >sam.txt
vipocc train >train.txt
vipocc eval occupancy >occupancy.txt
"""

#: A world that is made in seconds; the stage on it takes a few seconds more.
WORLD = (
    "data.world.train_drives=2", "data.world.train_frames=20", "data.world.val_frames=2", "data.world.test_frames=2",
    "data.world.scale=0.12", "data.world.lidar_points=640", "data.world.antialias=false", "data.world.shadows=false",
    "data.fisheye=false",
)  # fmt: skip
DEPTH = ("vipocc", "priors", "depth", "--split", "train", *(word for text in WORLD for word in ("-o", text)))

pytestmark = pytest.mark.slow


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a user who has activated the virtual environment that runs these tests."""
    ours = ("VIPOCC_", "PYTEST_", "OMP_")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**variables, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.timeout(1500)
def test_the_four_lines_in_an_empty_folder(tmp_path: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(["bash", "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "error" not in done.stderr
    first = {
        name: (tmp_path / f"{name}.txt").read_text().splitlines()[0] for name in ("depth", "sam", "train", "occupancy")
    }
    assert first["depth"].startswith("depth simulated from the synthetic world's exact truth (no network runs)")
    assert "synthetic, split train, 96x320, on cpu, into stores/synthetic/depth.zarr" in first["depth"]
    assert first["sam"].startswith("instances simulated from the synthetic world's exact truth")
    assert "split all" in first["sam"]
    assert first["train"].startswith("training: preset 'demo', profile paper, synthetic train split with")
    assert first["occupancy"].startswith("occupancy under slice-")
    assert "the newest run" in first["occupancy"]
    # The first line that generates the world says how long it takes and how much room.
    assert "generating a synthetic world of" in done.stderr
    (path,) = tmp_path.glob("reports/*/report.json")
    report = json.loads(path.read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert {"trained", "untrained", "everything free", "everything occupied"} <= rows.keys()
    for name in ("o_acc", "balanced_accuracy", "average_precision"):
        assert 0 <= rows["trained"]["metrics"][name]["mean"] <= 1
    assert rows["trained"]["metrics"]["o_acc"]["frames"] >= 10
    assert "trained" in (path.parent / "table.md").read_text()

    before = tree_digests(tmp_path)
    start = time.monotonic()
    again = subprocess.run(
        ["vipocc", "priors", "depth", "--split", "train"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    seconds = time.monotonic() - start
    assert again.returncode == 0, again.stderr
    assert "nothing to do, all" in again.stdout
    assert tree_digests(tmp_path) == before
    assert seconds < 20


def started(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    # A session of its own, so that the kill takes its worker processes too, as a machine that goes down would.
    return subprocess.Popen(
        DEPTH, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def completed(folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(DEPTH, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def depth_store(folder: Path) -> dict[str, str]:
    """Return the arrays of the store's shards by their place in it."""
    store = folder / "stores" / "synthetic" / "depth.zarr"
    return {Path(path).relative_to(store).as_posix(): digest for path, digest in tree_digests(store).items()}


@pytest.mark.timeout(900)
def test_priors_killed_in_the_middle_go_on_to_the_same_bytes(tmp_path: Path, environment: dict[str, str]) -> None:
    folders = {name: tmp_path / name for name in ("undisturbed", "killed")}
    for folder in folders.values():
        folder.mkdir()
        subprocess.run(
            ["vipocc", "init", "--dataset", "synthetic"], cwd=folder, env=environment, check=True, capture_output=True
        )
    start = time.monotonic()
    completed(folders["undisturbed"], environment)
    whole = time.monotonic() - start
    wanted = depth_store(folders["undisturbed"])
    assert sum(digest != "folder" for digest in wanted.values()) >= 4

    rng = random.Random(0)
    interrupted = 0
    # From the start of the world's generation to the last rows of the store: each kill comes later than the last one,
    # counted from where that had got to.
    for share in (0.3, 0.5, 0.5, 0.7, 0.7, 0.7):
        process = started(folders["killed"], environment)
        try:
            process.wait(timeout=share * whole * rng.uniform(0.8, 1.2))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            interrupted += 1
        if process.returncode == 0:
            break
    assert interrupted >= 1
    completed(folders["killed"], environment)
    assert depth_store(folders["killed"]) == wanted
    assert tree_digests_of_world(folders["killed"]) == tree_digests_of_world(folders["undisturbed"])
    assert "nothing to do, all" in completed(folders["killed"], environment)


@pytest.mark.timeout(900)
def test_a_kill_while_the_store_is_written(tmp_path: Path, environment: dict[str, str]) -> None:
    """The world is there already; kills fall on the stage itself as soon as it has written something."""
    subprocess.run(
        ["vipocc", "init", "--dataset", "synthetic"], cwd=tmp_path, env=environment, check=True, capture_output=True
    )
    completed(tmp_path, environment)
    wanted = depth_store(tmp_path)
    store = tmp_path / "stores" / "synthetic" / "depth.zarr"
    for delay in (0.0, 0.1, 0.25):
        for path in (store, store.with_name("depth.zarr.ledger")):
            path.rename(path.with_name(f"{path.name}-{delay}"))
        process = started(tmp_path, environment)
        limit = time.monotonic() + 120
        while not store.is_dir() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.002)
        assert store.is_dir()
        time.sleep(delay)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        completed(tmp_path, environment)
        assert depth_store(tmp_path) == wanted


def tree_digests_of_world(folder: Path) -> dict[str, str]:
    world = folder / "synthetic"
    return {Path(path).relative_to(world).as_posix(): digest for path, digest in tree_digests(world).items()}
