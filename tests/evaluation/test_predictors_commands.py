"""Predictions and baselines through the commands, on a tiny synthetic world; the documented way is run as is."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vipocc import cli
from vipocc import config as configuration
from vipocc.data_manifests.stage import ensure_indexed, ensure_prepared
from vipocc.data_manifests.synthetic.exact import ExactTruth
from vipocc.evaluation.metrics import occupancy_metrics
from vipocc.evaluation.report import read_report
from vipocc.model.network import ViPOcc
from vipocc.workspace import Workspace

PAGE = Path(__file__).parents[2] / "docs" / "evaluating-your-method.md"
OVERRIDES = (
    "data.world={train_drives: 1, train_frames: 2, val_drives: 0, test_drives: 1, test_frames: 6, scale: 0.25}",
    "data.world.lidar_points=640",
    "data.world.shadows=false",
    "data.image_size=[64,96]",
    "evaluation.resamples=20",
    "evaluation.pictures=0",
    "evaluation.untrained=false",
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace.create(tmp_path_factory.mktemp("eval"), "synthetic", overrides=OVERRIDES)
    config = configured()
    ensure_indexed(made, config)
    ensure_prepared(made, config, "test", ("frames",), "perspective")
    return made


def configured(preset: str = "demo", *more: str) -> Any:
    return configuration.load(preset, overrides=[*OVERRIDES, *more])


@pytest.fixture
def here(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, the workspace being found by its variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIPOCC_WORKSPACE", str(workspace.path))
    return tmp_path


def run(*arguments: str, code: int = 0) -> None:
    assert cli.run(["eval", *arguments]) == code


def newest(workspace: Workspace) -> dict[str, Any]:
    folder = max(workspace.reports.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    values: dict[str, Any] = json.loads((folder / "report.json").read_text())
    read_report(folder)
    return values


def rows(report: dict[str, Any], *kinds: str) -> dict[str, dict[str, float]]:
    """Means by row, those of published rows left out."""
    return {
        row["name"]: {name: value["mean"] for name, value in row["metrics"].items()}
        for row in report["rows"]
        if row["kind"] in (kinds or ("measured", "baseline", "constant", "prior"))
    }


def fill(asked: Any, folder: Path, values: Any, **changes: Any) -> None:
    """Write a prediction for each frame: `values(sequence, camera, frame_id)`."""
    folder.mkdir()
    (folder / "meta.json").write_text(json.dumps({**json.loads(str(asked["meta"])), **changes}))
    for name, *frame in zip(*(asked[key] for key in ("prediction", "sequence", "camera", "frame_id")), strict=True):
        path = folder / str(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values(str(frame[0]), str(frame[1]), int(frame[2])))


def test_the_documented_way_works_as_it_is_written(here: Path, workspace: Workspace) -> None:
    steps = re.findall(r"^    (vipocc [^\n]*)$|^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(steps) == 8
    for command, script in steps:
        if script:
            exec(compile(script, str(PAGE), "exec"), {})
        else:
            assert cli.run(command.split()[1:]) == 0, command
    limited = newest(workspace)
    assert limited["checkpoint"] is None
    assert list(rows(limited, "measured")) == ["a wall at 10 m"]
    both = sorted(workspace.reports.iterdir(), key=lambda path: path.stat().st_mtime_ns)[-2]
    found = rows(json.loads((both / "report.json").read_text()), "measured")
    assert list(found) == ["ten metres", "ten metres+4m", "a wall at 10 m"]
    # A wall of points beyond 10 m is what depth of 10 m says.
    assert found["ten metres"] == pytest.approx(found["a wall at 10 m"])
    assert found["ten metres+4m"]["ie_rec"] > found["ten metres"]["ie_rec"]


def test_the_truth_itself_is_right_everywhere(here: Path, workspace: Workspace) -> None:
    truth = ExactTruth(workspace.root)
    run("points", "--protocol", "exact", "--output", "points.npz")
    run("points", "--protocol", "exact", "--for", "depth", "--output", "frames.npz")
    asked, frames = np.load("points.npz"), np.load("frames.npz")
    assert asked["points"].shape == (12_800, 3)
    assert (workspace.root / str(asked["image"][0])).is_file()
    assert set(frames.files) == set(asked.files) - {"points", "grid", "points_frame"}
    # Beyond the last visible row nothing is judged, and what is visible counts as free.
    fill(
        asked,
        Path("oracle"),
        lambda sequence, _, number: (
            truth.occupancy(sequence, number).occupied & ~truth.occupancy(sequence, number).visible
        ),
        unit="occupancy",
    )
    run("occupancy", "--protocol", "exact", "--predictions", "oracle", "--fail-under", "oracle:o_acc=1", code=2)
    run("occupancy", "--protocol", "exact", "--predictions", "oracle=oracle", "--fail-under", "oracle:o_acc=1")
    found = rows(newest(workspace))["oracle"]
    assert all(found[name] == 1 for name in ("o_acc", "ie_acc", "ie_rec", "balanced_accuracy", "average_precision"))

    def true_depth(*frame: Any) -> Any:
        depth = truth.depth(*frame)
        return np.where(np.isfinite(depth), depth, np.nan)

    fill(frames, Path("depth"), true_depth, holes=True)
    run(
        "depth",
        "--protocol",
        "exact",
        "--predictions",
        "d=depth",
        "--fail-over",
        "abs_rel=0.0001",
        "--fail-under",
        "a1=1",
    )
    assert rows(newest(workspace))["d"]["rmse"] == pytest.approx(0, abs=1e-4)
    # All that true depth calls occupied is what cannot be seen, but for cells at edges; a shell calls less so.
    run("occupancy", "--protocol", "exact", "--predictions", "d=depth")
    guesses, expected = rows(newest(workspace)), []
    for sequence, number in zip(asked["sequence"], asked["frame_id"], strict=True):
        held = truth.occupancy(str(sequence), int(number))
        expected.append(occupancy_metrics(~held.visible, held.occupied, held.visible)["o_acc"])
    assert guesses["d"]["o_acc"] == pytest.approx(np.mean(expected), abs=0.02)
    assert guesses["d"]["ie_rec"] < 0.1 < guesses["d+4m"]["ie_rec"] < 1


def test_faulty_frames_are_counted_by_reason_and_the_others_scored(here: Path, workspace: Workspace) -> None:
    run("points", "--protocol", "exact", "--output", "points.npz")
    asked = np.load("points.npz")
    good = np.ones(12_800, np.float32)
    faults = iter([good * np.nan, good[:5], good, -good])
    assert len(asked["prediction"]) >= 4
    fill(asked, Path("theirs"), lambda *_: next(faults, good), name="theirs")
    run("occupancy", "--protocol", "exact", "--predictions", "theirs")
    text = json.dumps(newest(workspace))
    for reason in ("density is NaN or infinite", "density has shape (5,), not (12800,)", "density is negative"):
        assert reason in text
    counted = rows(newest(workspace))
    (Path("theirs") / str(asked["prediction"][2])).unlink()
    run("occupancy", "--protocol", "exact", "--predictions", "theirs")
    report = newest(workspace)
    assert "no prediction" in json.dumps(report)
    frames = {row["name"]: row["metrics"]["o_acc"]["frames"] for row in report["rows"] if row["kind"] != "published"}
    assert frames["everything free"] - frames["theirs"] == 4
    assert counted["everything free"] == rows(report)["everything free"]


def test_mistakes_are_one_sentence_before_anything_is_computed(
    here: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    run("points", "--protocol", "exact-cuboid", "--output", "cuboid.npz")
    fill(np.load("cuboid.npz"), Path("cuboid"), lambda *_: np.zeros(51_200, np.float32), name="cuboid")
    before = len(list(workspace.reports.iterdir())) if workspace.reports.is_dir() else 0
    for arguments, said in (
        (
            ["occupancy", "--protocol", "exact", "--predictions", "cuboid"],
            "at other points (those of protocol exact-cuboid",
        ),
        (["occupancy", "--predictions", "nowhere"], "no such folder of predictions: nowhere"),
        (["depth", "--protocol", "exact", "--predictions", "cuboid"], "use `vipocc eval occupancy`"),
        (["occupancy", "--protocol", "exact", "--baseline", "lidar"], "use --baseline prior, rendered, branch"),
        (
            ["occupancy", "--protocol", "exact", "--predictions", "cuboid", "--fail-under", "abs_rel=1"],
            "no metric 'abs_rel'",
        ),
        (["occupancy", "--save-predictions", "cuboid"], "new --save-predictions folder"),
        (["points", "--output", "points.txt"], "in .npz"),
        (["points", "--output", "nowhere/points.npz"], "no such folder: nowhere"),
        (["points", "--protocol", "voxel", "--output", "x.npz"], "voxel"),
    ):
        capsys.readouterr()
        run(*arguments, code=2)
        told = capsys.readouterr().err.strip()
        assert said in told, arguments
        assert "\n" not in told
    assert (len(list(workspace.reports.iterdir())) if workspace.reports.is_dir() else 0) == before


def checkpoint(folder: Path, preset: str, *more: str) -> str:
    config = configured(preset, *more)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = ViPOcc(config.model, config.data.convention, initialise=False)
    model.save_pretrained(folder, configuration.as_dict(config))
    return str(folder)


def test_our_predictions_read_back_score_the_same(
    here: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = checkpoint(here / "ours", "demo")
    common = ("--protocol", "exact", "--limit", "2")
    run("occupancy", *common, "--checkpoint", ours, "--save-predictions", "saved", "--baseline", "rendered+4m")
    first = rows(newest(workspace))
    assert list(first)[:2] == ["trained", "rendered+4m"]
    run("occupancy", *common, "--predictions", "saved/trained")
    assert rows(newest(workspace))["trained"] == first["trained"]
    capsys.readouterr()
    run("occupancy", *common, "--predictions", "saved/trained", "--checkpoint", ours, code=2)
    assert "two rows have one name" in capsys.readouterr().err
    run(
        "occupancy",
        *common,
        "--predictions",
        "again=saved/trained",
        "--checkpoint",
        ours,
        "--fail-under",
        "o_acc=1.5",
        code=3,
    )
    told = capsys.readouterr().err
    assert "limit: trained has o_acc" in told
    assert "limit: again has o_acc" in told

    run("depth", *common, "--checkpoint", ours, "--save-predictions", "depths")
    first = rows(newest(workspace))
    run("depth", *common, "--predictions", "depths/rendered")
    assert rows(newest(workspace))["rendered"] == pytest.approx(first["rendered"])


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["bts", "pixelnerf"])
def test_other_methods_presets_go_through_the_same_harness(here: Path, workspace: Workspace, preset: str) -> None:
    theirs = checkpoint(here / "theirs", preset)
    run("occupancy", "--protocol", "exact", "--limit", "1", "--checkpoint", theirs, "--baseline", "none")
    found = rows(newest(workspace))
    assert set(found) == {"trained", "everything free", "everything occupied"}
    assert all(0 <= found["trained"][name] <= 1 for name in ("o_acc", "ie_acc", "average_precision"))


@pytest.mark.slow
def test_the_prior_enters_unasked_where_it_is(
    here: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("points", "--protocol", "exact", "--output", "points.npz")
    fill(np.load("points.npz"), Path("theirs"), lambda *_: np.ones(12_800, np.float32), name="theirs")
    asked = ("occupancy", "--protocol", "exact", "--predictions", "theirs")
    capsys.readouterr()
    run(*asked, "--baseline", "prior", code=2)
    assert "run `vipocc priors depth --split test`" in capsys.readouterr().err

    shutil.copytree(workspace.path, here / "copy", ignore=shutil.ignore_patterns("synthetic", "reports"))
    copy = Workspace.find(here / "copy")
    monkeypatch.setenv("VIPOCC_WORKSPACE", str(copy.path))
    assert cli.run(["priors", "depth", "--split", "test"]) == 0
    run(*asked)
    report = newest(copy)
    assert list(rows(report, "baseline")) == ["prior", "prior+4m"]
    notes = {row["name"]: row["note"] for row in report["rows"]}
    assert notes["prior"] == "occupied where z >= depth; simulated prior"
    assert notes["prior+4m"] == "occupied where depth <= z < depth + 4 m; simulated prior"
    run(*asked, "--baseline", "none")
    assert list(rows(newest(copy), "baseline")) == []
    capsys.readouterr()
    run(*asked, "--baseline", "rendered", code=2)
    assert "run `vipocc train`" in capsys.readouterr().err
