"""`vipocc eval figures` on a tiny synthetic world: what is there is drawn, what is missing is said with its command."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vipocc import cli
from vipocc.evaluation.figures.depths import Distributions
from vipocc.evaluation.figures.pictured import DISTRIBUTIONS, Pictured
from vipocc.evaluation.figures.voxels import VOLUME
from vipocc.evaluation.report import Frame
from vipocc.workspace import Workspace

WORLD = (
    "data.world={train_drives: 1, train_frames: 2, val_drives: 0, test_drives: 1, test_frames: 3, scale: 0.25, "
    "lidar_points: 640, shadows: false}"
)
OPTIONS = ("-o", WORLD, "-o", "data.fisheye=false")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    place = tmp_path_factory.mktemp("figures")
    assert cli.run(["init", "--dataset", "synthetic", "--preset", "demo", *OPTIONS, "-C", str(place)]) == 0
    assert cli.run(["priors", "sam", "--split", "test", "-C", str(place)]) == 0
    assert cli.run(["data", "prepare", "--split", "train", "--kinds", "frames", "-C", str(place)]) == 0
    return Workspace.open(place)


def drawn(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> tuple[Path, dict[int, str]]:
    capsys.readouterr()
    assert cli.run(["eval", "figures", "-C", str(workspace.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line.removeprefix("Figure ").partition(",") for line in lines if line.startswith("Figure ")]
    return Path(lines[-1].removeprefix("figures: ")).parent, {int(number): text for number, _, text in told}


def keep(folder: Path, count: int, depth: bool) -> None:
    """Write what an evaluation keeps of its pictured frames."""
    rng = np.random.default_rng(0)
    held = Distributions()
    for number in range(count):
        one = Pictured(Frame("drive", "image_00", number, number), np.full((96, 320, 3), 90, np.uint8))
        truth = np.full((96, 320), 10.0)
        if depth:
            one.depths, one.true_depth = {"branch": truth + number}, truth
            held.add(one.depths, truth)
        else:
            one.volumes = {"trained": rng.random(VOLUME.shape) > 0.99}
        path = folder / one.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.content())
    if depth:
        (folder / DISTRIBUTIONS).write_bytes(held.content())


@pytest.mark.slow
def test_figures_are_drawn_as_far_as_there_are_inputs(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    folder, told = drawn(workspace, capsys)
    assert sorted(told) == [1, 3, 4, 5, 6, 7, 8, 9, 10]
    assert all(told[number].endswith(": drawn") for number in (3, 7, 8))
    assert all("vipocc eval occupancy" in told[number] for number in (1, 4, 9))
    assert all("vipocc eval depth" in told[number] for number in (5, 6, 10))
    assert sorted(path.name for path in folder.iterdir()) == [
        "figure-03.png", "figure-07.png", "figure-08.png", "index.html",
    ]  # fmt: skip
    again, _ = drawn(workspace, capsys)
    for name in ("figure-03.png", "figure-07.png", "figure-08.png", "index.html"):
        assert (folder / name).read_bytes() == (again / name).read_bytes()

    keep(workspace.reports / "20260101-000000-occupancy-slice-24-test", 4, depth=False)
    keep(workspace.reports / "20260101-000001-depth-lidar-test", 4, depth=True)
    folder, told = drawn(workspace, capsys)
    assert all(text.endswith(": drawn") for text in told.values())
    assert len(list(folder.glob("figure-*.png"))) == 10  # two scenes of Figure 1
    for path in folder.glob("*.png"):
        picture = cv2.imread(str(path))
        assert picture is not None
        assert picture.shape[1] > 300


@pytest.mark.slow
def test_a_damaged_picture_is_one_sentence(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    folder = workspace.reports / "20270101-000000-depth-lidar-test"
    keep(folder, 1, depth=True)
    next((folder / "pictured").glob("drive*")).write_bytes(b"PK")
    assert cli.run(["eval", "figures", "-C", str(workspace.path)]) == 2
    said = capsys.readouterr().err
    assert "damaged" in said
    assert "evaluate again" in said
    assert "Traceback" not in said


def test_no_world_and_no_report_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Workspace.create(tmp_path / "ws", "synthetic")
    assert cli.run(["eval", "figures", "-C", str(made.path)]) == 2
    assert "vipocc" in capsys.readouterr().err
    assert cli.run(["eval", "figures", "nothing", "-C", str(made.path)]) == 2
    assert "nothing" in capsys.readouterr().err
    assert not made.reports.exists() or not list(made.reports.iterdir())
