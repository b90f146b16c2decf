"""The wheel and the sdist: complete, and working where the repository is not."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def tracked() -> set[str]:
    """Files of the package that git knows."""
    listed = subprocess.run(["git", "ls-files", "vipocc"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built from a copy of what git knows."""
    copy, there = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "build", "--wheel", "--sdist", "--outdir", str(there), str(copy)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return there


@pytest.mark.slow
def test_nothing_of_the_package_is_left_out(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if name.startswith("vipocc/")}
    assert inside == tracked()
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert tracked() | {"README.md", "LICENSE", "pyproject.toml"} <= names


@pytest.mark.slow
def test_the_wheel_works_outside_the_repository(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def vipocc(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "vipocc", *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import vipocc; print(vipocc.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(site)), "the wheel's own files are what runs"
    world = (
        "data.world.train_drives=1",
        "data.world.train_frames=5",
        "data.world.val_frames=3",
        "data.world.scale=0.12",
    )
    small = (
        "data.world.test_frames=3",
        "data.world.lidar_points=640",
        "data.fisheye=false",
        "data.world.antialias=false",
    )
    words = [part for text in (*world, *small) for part in ("-o", text)]
    vipocc("init", "--dataset", "synthetic", "-C", "ws", *words)
    vipocc("priors", "depth", "-C", "ws", "--split", "train")
    vipocc("priors", "sam", "-C", "ws", "--split", "train")
    assert "ablations/full" in vipocc("config", "presets")
    page = tmp_path / "view.html"
    vipocc("view", "-C", "ws", "--split", "train", "--html", str(page), "--frames", "1", "--cell", "0.5")
    assert "webgl2" in page.read_text(encoding="utf-8")
