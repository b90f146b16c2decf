"""The worked example of docs/datasets/adding.md, installed as another package and used by the commands."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from workspace_tree import command, successful

from vipocc.data_manifests.datasets import adapter, names
from vipocc.data_manifests.manifest import Manifest
from vipocc.stores import StoreReader

PAGE = Path(__file__).parents[2] / "docs/datasets/adding.md"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's module and its entry point, as a package that is installed beside vipocc."""
    page = PAGE.read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    points = re.findall(
        r'^       (\[project\.entry-points\."vipocc\.datasets"\])\n       (\w+) = "([\w:]+)"$', page, re.M
    )
    assert len(blocks) == len(points) == 1
    _, name, target = points[0]
    site = tmp_path / "site"
    information = site / "walks_dataset-1.0.dist-info"
    information.mkdir(parents=True)
    (site / f"{target.partition(':')[0]}.py").write_text(blocks[0])
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: walks-dataset\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[vipocc.datasets]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(site)
    adapter.cache_clear()
    yield
    adapter.cache_clear()
    sys.modules.pop("walks_dataset", None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "walks"
    rng = np.random.default_rng(0)
    (root / "lists").mkdir(parents=True)
    (root / "camera.txt").write_text("fx: 92\nfy: 92\ncx: 78.5\ncy: 22.5\nwidth: 160\nheight: 48\n")
    for walk in ("pond", "wood"):
        for folder in ("images", "sweeps"):
            (root / walk / folder).mkdir(parents=True)
        poses = [f"{k} 1 0 0 0 0 1 0 0 0 0 1 {k * 0.5}" for k in range(6)]
        (root / walk / "poses.txt").write_text("\n".join(poses) + "\n")
        for k in range(7):
            image = rng.integers(0, 256, (48, 160, 3), dtype=np.uint8)
            assert cv2.imwrite(str(root / walk / f"images/{k:010d}.png"), image)
            points = np.column_stack([rng.uniform(-3, 3, (500, 2)), rng.uniform(2, 20, (500, 2))])
            points.astype("<f4").tofile(root / walk / f"sweeps/{k:010d}.bin")
    (root / "pond/sweeps/0000000002.bin").unlink()
    for split, lines in {
        "train": ["wood 0 l", "wood 1 l"],
        "val": ["pond 1 l"],
        "test": ["pond 2 l", "pond 3 l"],
    }.items():
        (root / f"lists/{split}_files.txt").write_text("\n".join(lines) + "\n")
    return root


def test_the_example_works_from_init_to_prepared(installed: None, root: Path, tmp_path: Path) -> None:
    assert "walks" in names()
    options = ["-C", str(tmp_path / "workspace"), "-o", "data.image_size=[32,96]"]
    successful("init", "--dataset", "walks", "--root", str(root), *options)
    report = json.loads(successful("data", "check", "--deep", "--json", *options).out)
    assert report["sound"]
    assert report["licence"] == "CC BY 4.0"
    assert report["notes"] == ["The poses of Walks come from its own LiDAR"]
    assert [drive["cameras"]["camera"] for drive in report["drives"]] == [{"images": 6, "unposed": 1}] * 2
    jobs = {job["job"]: job for job in report["jobs"]}
    assert jobs["train"]["state"] == "complete"
    assert jobs["eval-depth"]["state"] == "complete"
    assert jobs["eval-depth"]["unpublished"] == {"LiDAR sweeps": 1}
    assert "eval-occupancy" not in jobs
    successful("data", "prepare", "--kinds", "frames,lidar", "--jobs", "1", *options)
    manifest = Manifest.load(tmp_path / "workspace/manifests/walks.parquet", dataset="walks", root=root)
    frames = StoreReader(tmp_path / "workspace/stores/walks/frames.zarr")
    assert np.flatnonzero(frames.rows("wood/camera")).tolist() == [0, 1, 2], "keys and their t+1"
    assert [key.row for key in manifest.keys("test")] == [2, 3]
    depth = StoreReader(tmp_path / "workspace/stores/walks/lidar.zarr").read("pond/camera", 3, "depth")
    assert 50 < np.isfinite(depth).sum() < 500


def test_its_bad_input_is_one_sentence(installed: None, root: Path, tmp_path: Path) -> None:
    options = ["-C", str(tmp_path / "workspace"), "-o", "data.image_size=[32,96]"]
    successful("init", "--dataset", "walks", "--root", str(root), *options)
    path = root / "pond/poses.txt"
    path.write_text(path.read_text().replace("4 1 0 0", "4 2 0 0"))
    for words in (("data", "check"), ("data", "index"), ("data", "prepare", "--kinds", "frames")):
        done = command(*words, *options)
        assert done.code == 2
        assert len(done.err.splitlines()) == 1
        assert f"frame 4 of {path}" in done.err
    assert not (tmp_path / "workspace/manifests").exists()
