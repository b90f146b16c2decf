"""The demo from the outside, with few training steps: its stages, its table and its pictures."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from workspace_tree import command

from vipocc.apps.demo import summarise
from vipocc.evaluation.metrics import Aggregate
from vipocc.evaluation.report import Report, Row

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tour.ipynb"


def report(rows: dict[str, dict[str, float]]) -> Report:
    made = [
        Row(name, "measured", {key: Aggregate(value, value, value, 3) for key, value in figures.items()})
        for name, figures in rows.items()
    ]
    return Report("depth", "synthetic", "test", {"name": "exact", "digest": "0"}, [], made, [])


def test_the_summary_takes_each_figure_from_its_own_report() -> None:
    occupancy = {"trained": {"o_acc": 0.5, "balanced_accuracy": 0.6, "average_precision": 0.7}}
    said = summarise(
        {
            "depth": report(
                {
                    "prior": {"abs_rel": 0.61},
                    "branch": {"abs_rel": 0.21},
                    "prior, median-scaled": {"abs_rel": 0.12},
                    "branch, median-scaled": {"abs_rel": 0.11},
                }
            ),
            "depth, train": report({"branch": {"abs_rel": 0.14}}),
            "exact": report(occupancy),
            "lidar": report({"trained": {"o_acc": 0.8}}),
            "sampler": report({"random": {"n_v": 3890.0, "psi_v": 0.07}, "SNOG": {"n_v": 4096.0, "psi_v": 0.37}}),
        }
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line[:1] == "|"]
    assert ["prior (simulated)", "0.610", "0.120"] in rows
    assert ["refined by the depth branch", "0.210", "0.110"] in rows
    assert ["rendered from the density", "n/a", "n/a"] in rows
    assert ["trained", "0.500", "0.600", "0.700"] in rows
    assert ["trained", "0.800", "n/a", "n/a"] in rows
    assert ["SNOG", "4,096", "0.370"] in rows
    assert "Abs Rel 0.210 on the unseen street and 0.140 on streets of training: 1.50 times as much" in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_goes_through_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = command("demo", "--output", str(tmp_path), "--steps", "8")
    assert done.code == 0, done.err[-3000:]
    stages = ("init", "priors depth", "priors sam", "train", "eval occupancy", "eval depth", "eval sampler")
    places = [done.out.index(f"$ vipocc {stage}") for stage in stages]
    assert places == sorted(places)
    stores = tmp_path / "workspace" / "stores" / "synthetic"
    for kind in ("depth", "instances", "anchors"):
        # Four frames went through the real model classes, and their provenance says so.
        ledger = stores / f"{kind}-tiny.zarr.ledger"
        records = [json.loads(path.read_text()) for path in ledger.glob("*/*/0*.json")]
        assert sum(len(record["rows"]) for record in records) == 4
        network = "depth-anything-v2" if kind == "depth" else "grounded-sam"
        assert all(record["fingerprint"]["source"] == network for record in records)
    pictures = sorted((tmp_path / "pictures").glob("*.png"))
    assert len(pictures) == 5
    for path in pictures:
        picture = cv2.imread(str(path))
        assert picture is not None
        assert picture.shape[1] > 1000
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 500
    summary = (tmp_path / "summary.md").read_text()
    assert summary in done.out
    assert done.out.rstrip().endswith(f"Look at {tmp_path / 'report.html'}")
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/") >= 5, "the overview and figures of the priors, the sampler and the model"
    assert "refined by the depth branch" in page
    assert "webgl2" in (tmp_path / "scene.html").read_text()
    assert "untrained" in summary
    assert "everything free" in summary
    assert "n/a" not in summary

    # The notebook of the documentation runs on what the demo leaves, from top to bottom.
    monkeypatch.setenv("VIPOCC_WORKSPACE", str(tmp_path / "workspace"))
    names: dict[str, object] = {}
    for number, cell in enumerate(json.loads(NOTEBOOK.read_text())["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert names["scene"].depth.shape == names["model"].training_camera.size  # type: ignore[attr-defined]
    assert np.isfinite(names["density"]).all()  # type: ignore[call-overload]
