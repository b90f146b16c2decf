"""`--dry-run` of the prior commands: rows, units, bytes and time of each prior, nothing written."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_world import arguments, reader, tree

from vipocc.cli import run
from vipocc.priors.job import Recipe
from vipocc.priors.outlook import Left
from vipocc.workspace import Workspace

LINE = r"{kind}: {missing} of {rows} rows in {units}, (\d+(\.\d)?) [kM]?B, about .+ in 1 process; .+"


def told(capfd: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Return the lines of a dry run that has to succeed."""
    capfd.readouterr()
    code = run(arguments(*words, "--dry-run"))
    output = capfd.readouterr()
    assert code == 0, output.err
    return output.out.splitlines()


def matches(line: str, kind: str, missing: int, rows: int, units: str) -> bool:
    pattern = LINE.format(kind=re.escape(kind), missing=missing, rows=rows, units=units)
    return re.fullmatch(pattern, line) is not None


def test_depth_and_sam_and_anchors(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = tree(workspace)
    place = ("-C", str(workspace), "--split", "train")
    assert told(capfd, "priors", "depth", *place)[1:] == ["depth (simulated): nothing to do, all 10 rows are there"]
    depth = told(capfd, "priors", "depth", *place, "--store", "second")
    assert len(depth) == 2
    assert matches(depth[1], "depth (simulated)", 10, 10, "2 units"), depth
    sam = told(capfd, "priors", "sam", *place)
    assert matches(sam[1], "instances (simulated)", 10, 10, "2 units"), sam
    assert matches(sam[2], "anchors", 10, 10, "2 units"), sam
    assert told(capfd, "priors", "anchors", *place)[1] == sam[2]
    assert tree(workspace) == before


def test_with_networks(workspace: Path, tiny: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    before = tree(workspace)
    place = ("-C", str(workspace), "--split", "train", "--store", "net")
    lines = told(capfd, "priors", "depth", *place, "--model", str(tiny["depth"]))
    assert matches(lines[1], "depth", 10, 10, "2 units"), lines
    models = ("--detector", str(tiny["detector"]), "--segmenter", str(tiny["segmenter"]))
    lines = told(capfd, "priors", "sam", *place, *models)
    assert matches(lines[1], "instances", 10, 10, "2 units"), lines
    assert "detector (unknown) and segmenter (unknown)" in lines[1]
    assert matches(lines[2], "anchors", 10, 10, "2 units"), lines
    assert tree(workspace) == before


def test_frames_that_are_not_prepared_yet_count_too(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = ("-C", str(workspace), "--split", "train")
    assert run(arguments("priors", "sam", *place)) == 0
    before = tree(workspace)
    # Of 14 frames the 10 of the train drive are there, with all their priors.
    for command, kinds in (("depth", ["depth (simulated)"]), ("sam", ["instances (simulated)", "anchors (simulated)"])):
        lines = told(capfd, "priors", command, "-C", str(workspace))
        assert re.match(r"frames: 4 rows would be prepared first, about .+ on one core, ", lines[1]), lines
        for line, kind in zip(lines[2:], kinds, strict=True):
            assert matches(line, kind, 4, 14, "2 units"), lines
    assert tree(workspace) == before
    shutil.rmtree(workspace / "stores")
    before = tree(workspace)
    lines = told(capfd, "priors", "sam", "-C", str(workspace))
    assert lines[1].startswith("frames: 14 rows")
    assert matches(lines[2], "instances (simulated)", 14, 14, "4 units"), lines
    assert matches(lines[3], "anchors", 14, 14, "4 units"), lines
    assert tree(workspace) == before


def test_a_world_that_is_not_generated_yet_counts_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "ws"
    assert run(["init", "--dataset", "synthetic", "-C", str(folder)]) == 0
    before = tree(folder)
    lines = told(capfd, "priors", "sam", "-C", str(folder))
    assert "would be generated first: 11 frames" in lines[1]
    assert matches(lines[2], "instances (simulated)", 14, 14, "4 units"), lines
    assert matches(lines[3], "anchors", 14, 14, "4 units"), lines
    lines = told(capfd, "priors", "depth", "-C", str(folder), "--split", "train", "--limit", "7")
    assert matches(lines[2], "depth (simulated)", 7, 7, "2 units"), lines
    assert tree(folder) == before


def test_with_networks_before_anything_is_there(
    tmp_path: Path, tiny: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ws"
    assert run(["init", "--dataset", "synthetic", "-C", str(folder)]) == 0
    before = tree(folder)
    lines = told(capfd, "priors", "depth", "-C", str(folder), "--model", str(tiny["depth"]), "--source", "raw")
    assert "into stores/synthetic/depth-raw.zarr" in lines[0]
    assert matches(lines[2], "depth", 14, 14, "4 units"), lines
    models = ("--detector", str(tiny["detector"]), "--segmenter", str(tiny["segmenter"]))
    lines = told(capfd, "priors", "sam", "-C", str(folder), *models)
    assert matches(lines[2], "instances", 14, 14, "4 units"), lines
    assert tree(folder) == before


def test_for_a_cluster(
    workspace: Path, tiny: dict[str, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ("-C", str(workspace), "--split", "train", "--store", "net", "--scheduler", "tcp://127.0.0.1:1")
    lines = told(capfd, "priors", "depth", *place)
    assert re.search(r", about 1 s on one cpu, which the workers share; simulated", lines[1]), lines
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    # What only the workers can do is not refused here.
    lines = told(capfd, "priors", "depth", *place, "--model", str(tiny["depth"]), "--dtype", "bfloat16")
    assert "10 of 10 rows in 2 units" in lines[1]
    assert "the time not known: no GPU here to measure on; depth (unknown)" in lines[1]


@pytest.mark.parametrize(("asked", "seconds", "workers"), [(None, 5, 1), (None, 500, 3), (2, 500, 2), (7, 1, 7)])
def test_long_work_on_the_cpu_is_spread_over_the_cores(
    asked: int | None, seconds: float, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vipocc.data_manifests.stage.cores", lambda: 3)
    recipe = Recipe("depth", "m", None, (1, 1), 1.0, accelerated=False)  # type: ignore[arg-type]
    assert Left(recipe, 10, 10, 10).workers(asked, seconds) == workers
    assert Left(replace(recipe, accelerated=True), 10, 10, 10).workers(asked, seconds) == (asked or 1)


def test_a_part_tells_of_itself(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = ("-C", str(workspace), "--split", "train", "--store", "parts")
    for part in ("0/2", "1/2"):
        lines = told(capfd, "priors", "depth", *place, "--shard", part)
        assert matches(lines[1], "depth (simulated)", 5, 5, "1 unit"), lines
    assert "part 2/3 holds no unit" in told(capfd, "priors", "depth", *place, "--shard", "2/3")[1]


def test_another_model_is_refused_in_a_dry_run_too(
    workspace: Path, tiny: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    words = arguments("priors", "depth", "-C", str(workspace), "--split", "train", "--model", str(tiny["depth"]))
    assert run([*words, "--dry-run"]) == 2
    assert "--store NAME" in capfd.readouterr().err
    assert run([*words, "--dry-run", "--overwrite"]) == 0
    assert "10 of 10 rows" in capfd.readouterr().out


def test_what_was_told_is_what_is_done(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = ("-C", str(workspace), "--split", "train", "--limit", "7")
    lines = told(capfd, "priors", "sam", *place)
    assert run(arguments("priors", "sam", *place)) == 0
    done = capfd.readouterr().out.splitlines()
    assert lines[1] == done[1]
    instances = reader(workspace, "instances")
    assert sum(np.count_nonzero(instances.rows(group)) for group in instances.groups()) == 7


def test_the_bytes_told_are_about_those_stored(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = told(capfd, "priors", "depth", "-C", str(workspace), "--split", "train", "--store", "second")
    kilobytes = re.search(r", (\d+) kB,", lines[1])
    assert kilobytes is not None
    files = Workspace.open(workspace).store("depth").rglob("*")
    stored = sum(path.stat().st_size for path in files if path.is_file() and path.name != "zarr.json")
    assert 0.5 < 1000 * int(kilobytes[1]) / stored < 2
