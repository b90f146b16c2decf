"""`vipocc priors …` on a small synthetic world, through the command line's own entry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_world import TINY, WORLD, arguments, reader, tree

from vipocc import config as configuration
from vipocc.cli import run
from vipocc.priors.anchors import draw, read_instances
from vipocc.workspace import Workspace


def test_one_command_generates_prepares_and_simulates(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    depth = reader(world, "depth")
    fingerprint = depth.fingerprint(depth.groups()[0])
    assert fingerprint is not None
    assert fingerprint["source"] == "simulated"
    rows = {group: np.flatnonzero(depth.rows(group)).tolist() for group in depth.groups()}
    # The train drive alone, both cameras, keys and their t+1.
    assert len(rows) == 2
    assert len(set(map(tuple, rows.values()))) == 1
    values = np.concatenate([depth.read_many(group, some) for group, some in rows.items()])
    assert values.dtype == np.float16
    assert values.shape[1:] == (96, 320)
    assert np.isfinite(values).all()
    assert values.max() == 80


def test_the_first_line_says_what_was_assumed(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(arguments("priors", "sam", "-C", str(workspace), "--split", "train")) == 0
    first = capfd.readouterr().out.splitlines()[0]
    assert first.startswith("instances simulated from the synthetic world's exact truth (no network runs)")
    assert "split train, 96x320, on cpu, into stores/synthetic/instances.zarr" in first


def test_sam_ends_with_anchors_and_a_second_run_does_nothing(
    workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = arguments("priors", "sam", "-C", str(workspace), "--split", "train")
    assert run(command) == 0
    before = tree(workspace)
    capfd.readouterr()
    assert run(command) == 0
    told = capfd.readouterr().out
    assert "instances (simulated): nothing to do" in told
    assert "anchors (simulated): nothing to do" in told
    assert tree(workspace) == before
    instances, anchors = reader(workspace, "instances"), reader(workspace, "anchors")
    for group in anchors.groups():
        assert anchors.rows(group).tolist() == instances.rows(group).tolist()


def test_stored_anchors_are_what_the_online_sampler_draws(workspace: Path) -> None:
    assert run(arguments("priors", "sam", "-C", str(workspace), "--split", "train")) == 0
    root = configuration.load("demo", overrides=(*WORLD, *TINY))
    instances, anchors = reader(workspace, "instances"), reader(workspace, "anchors")
    group = anchors.groups()[0]
    row = int(np.flatnonzero(anchors.rows(group))[0])
    stored = anchors.read(group, row)
    assert stored.shape == (25, 64, 2)
    assert stored.dtype == np.uint16
    online = draw(read_instances(instances, group, row), root.priors.snog, root.seed, group, row, 3)
    np.testing.assert_array_equal(stored[:3], online)
    assert not np.array_equal(stored[0], stored[1])
    x, y = stored[..., 0].astype(int), stored[..., 1].astype(int)
    assert x.min() >= 4
    assert x.max() <= 320 - 4
    assert y.min() >= 4
    assert y.max() <= 96 - 4
    gaps = (x[:, :, None] - x[:, None]) ** 2 + (y[:, :, None] - y[:, None]) ** 2
    gaps[:, np.arange(64), np.arange(64)] = 10**6
    assert gaps.min() >= 128


def test_more_of_a_split_extends_the_stores(workspace: Path) -> None:
    before = reader(workspace, "depth")
    group = before.groups()[0]
    old = {row: before.row_digest(group, row) for row in np.flatnonzero(before.rows(group)).tolist()}
    assert run(arguments("priors", "depth", "-C", str(workspace))) == 0
    after = reader(workspace, "depth")
    assert len(after.groups()) > len(before.groups()[:2])
    assert {row: after.row_digest(group, row) for row in old} == old


def test_networks_run_through_the_same_commands(
    workspace: Path, tiny: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    place = ["-C", str(workspace), "--split", "train", "--store", "tiny"]
    assert run(arguments("priors", "depth", *place, "--model", str(tiny["depth"]), "--batch-size", "3")) == 0
    models = ["--detector", str(tiny["detector"]), "--segmenter", str(tiny["segmenter"])]
    assert run(arguments("priors", "sam", *place, *models)) == 0
    assert "simulated" not in capfd.readouterr().out
    depth, instances, anchors = (reader(workspace, kind, "tiny") for kind in ("depth", "instances", "anchors"))
    group = depth.groups()[0]
    rows = np.flatnonzero(depth.rows(group))
    assert depth.read_many(group, rows).astype(np.float32).std() > 2
    assert instances.read_many(group, rows, "count").min() >= 3
    assert anchors.rows(group).sum() == len(rows)
    provenance = [store.fingerprint(group) or {} for store in (depth, instances, anchors)]
    assert [entry["source"] for entry in provenance] == ["depth-anything-v2", "grounded-sam", "grounded-sam"]
    assert provenance[0]["digest"]
    assert provenance[1]["detector"]["model"] == "detector"


def test_another_model_under_the_same_name_is_refused(
    workspace: Path, tiny: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    before = tree(workspace)
    command = arguments("priors", "depth", "-C", str(workspace), "--split", "train", "--model", str(tiny["depth"]))
    assert run(command) == 2
    message = capfd.readouterr().err
    assert "the store holds depth simulated from the exact truth, not by depth (weights" in message
    assert "--store NAME" in message
    assert tree(workspace) == before
    assert run([*command, "--overwrite"]) == 0


def test_parts_of_an_array_job_are_disjoint_and_whole(workspace: Path) -> None:
    counts = []
    for part in ("0/2", "1/2"):
        name = f"part{part[0]}"
        command = arguments("priors", "depth", "-C", str(workspace), "--split", "train", "--store", name)
        assert run([*command, "--shard", part]) == 0
        store = reader(workspace, "depth", name)
        counts.append({(group, int(row)) for group in store.groups() for row in np.flatnonzero(store.rows(group))})
    whole = reader(workspace, "depth")
    assert not counts[0] & counts[1]
    assert counts[0] | counts[1] == {
        (group, int(row)) for group in whole.groups() for row in np.flatnonzero(whole.rows(group))
    }


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--device", "cuda"], "no CUDA device"),
        (["--device", "gpu"], "is not a device"),
        (["--model", "nobody/no-such-model"], "hf download nobody/no-such-model"),
        (["--model", "./absent"], "there is no model folder"),
        (["--prior", "depth-anything-v2", "--dtype", "bfloat16", "--model", "DEPTH"], "bfloat16 needs a CUDA device"),
        (["--shard", "2/2"], "is not a part of the work"),
        (["-o", "priors.depth.shortside=3"], "did you mean 'priors.depth.short_side'"),
        (["-o", "priors.depth.batch_size=0"], "priors.depth.batch_size"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    workspace: Path,
    tiny: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    more: list[str],
    expected: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = tree(workspace)
    more = [str(tiny["depth"]) if text == "DEPTH" else text for text in more]
    assert run(arguments("priors", "depth", "-C", str(workspace), "--split", "val", *more)) == 2
    said = capfd.readouterr().err.strip()
    assert expected in said
    assert "\n" not in said
    assert tree(workspace) == before


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["-o", "data.image_size=[48, 160]"], "too small for 64 patches"),
        (["--cameras", "all"], "the stereo pair only"),
        (
            ["--prior", "grounded-sam", "--detector", "detector", "--segmenter", "segmenter", "--compile"],
            "compiling needs a CUDA device",
        ),
    ],
)
def test_instances_that_cannot_be_are_refused_first(
    workspace: Path, tiny: dict[str, Path], capfd: pytest.CaptureFixture[str], more: list[str], expected: str
) -> None:
    before = tree(workspace)
    more = [str(tiny.get(text, text)) for text in more]
    assert run(arguments("priors", "sam", "-C", str(workspace), *more)) == 2
    assert expected in capfd.readouterr().err
    assert tree(workspace) == before


def test_anchors_without_instances_name_the_command(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(arguments("priors", "anchors", "-C", str(workspace), "--split", "train")) == 2
    assert "vipocc priors sam" in capfd.readouterr().err


def test_simulating_a_real_dataset_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kitti").mkdir()
    folder = tmp_path / "ws"
    assert run(["init", "--dataset", "kitti-360", "--root", str(tmp_path / "kitti"), "-C", str(folder)]) == 0
    assert run(["priors", "depth", "-C", str(folder), "--prior", "simulated"]) == 2
    assert "only the synthetic world has an exact truth" in capfd.readouterr().err


def test_the_ledger_keeps_provenance_and_inputs(world: Path) -> None:
    store = Workspace.open(world).store("depth")
    records = sorted(path for path in store.with_name("depth.zarr.ledger").rglob("0*.json"))
    record = json.loads(records[0].read_text())
    text = json.dumps(record)
    assert "frames.zarr" in text
    assert "simulated" in text


def test_priors_of_real_frames(
    sample_data: Path, tmp_path: Path, tiny: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ws"
    assert run(["init", "--dataset", "kitti-360", "--root", str(sample_data / "KITTI-360"), "-C", str(folder)]) == 0
    place = ["-C", str(folder), "-o", "data.fisheye=false", *(p for text in TINY for p in ("-o", text))]
    assert run(["priors", "depth", "--model", str(tiny["depth"]), *place]) == 0
    models = ["--detector", str(tiny["detector"]), "--segmenter", str(tiny["segmenter"])]
    assert run(["priors", "sam", *models, *place]) == 0, capfd.readouterr().err
    depth, instances, anchors = (reader(folder, kind) for kind in ("depth", "instances", "anchors"))
    for group in depth.groups():
        rows = np.flatnonzero(depth.rows(group))
        maps = depth.read_many(group, rows).astype(np.float32)
        assert maps.shape[1:] == (192, 640)
        assert ((maps > 0) & (maps < 80)).all()
        assert maps.std() > 1
        assert instances.read_many(group, rows, "count").min() > 0
        assert anchors.read_many(group, rows).shape == (len(rows), 25, 64, 2)
    assert sum(int(depth.rows(group).sum()) for group in depth.groups()) >= 3
