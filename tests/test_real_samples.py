"""The whole path on real KITTI-360 files, by the commands that a user types.

The foundation models are small ones of the real architectures with random weights (`vipocc.priors.tiny`), saved to
disk and loaded by the code that a user's weights take. Their answers mean nothing; that they arrive, and that the model
learns from real images, poses and LiDAR, is what this shows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from workspace_tree import Finished, command, successful, tree_digests

from vipocc import config as configuration
from vipocc.data_manifests.manifest import Manifest
from vipocc.model.network import ViPOcc
from vipocc.priors.tiny import make_tiny_depth, make_tiny_grounding_dino, make_tiny_sam
from vipocc.stores import StoreReader
from vipocc.training.metrics import read_metrics
from vipocc.training.samples import SamplePaths, TrainingSamples
from vipocc.training.seeds import torch_generator
from vipocc.training.step import prepare, training_losses
from vipocc.training.stream import RunBatches, load_batches
from vipocc.training.table import sample_table
from vipocc.training.trainer import Trainer
from vipocc.workspace import Workspace

DRIVE, SECOND = "2013_05_28_drive_0000_sync", "2013_05_28_drive_0008_sync"
TRAIN_IDS, LIDAR_ID, OCCUPANCY_ID = (700, 701), 250, 3000

#: The full 192x640 with narrow networks and few rays, so that ten steps take seconds on one core.
PRESET = """
data: {{image_size: [192, 640], fisheye: false, sweeps: 5, split: {lists}}}
priors:
  depth: {{short_side: 98, model: {models}/depth}}
  sam: {{shortest_side: 96, longest_side: 320, detector: {models}/dino, segmenter: {models}/sam}}
model:
  encoder: {{name: resnet18, width: 0.125, pretrained: none}}
  decoder: {{widths: [8, 8, 16, 16, 32], channels: 16}}
  field: {{hidden: 16}}
  depth_branch:
    encoder: {{name: resnet18, width: 0.125, pretrained: none}}
    widths: [8, 8, 16, 16, 32]
    channels: 8
  renderer: {{samples: 24}}
training:
  {{max_steps: 10, batch_size: 2, learning_rate: 3.0e-3, workers: 0, log_every: 1, patches: 16, depth_patches: 8,
    tensorboard: false}}
seed: 3
"""

#: Networks of the published shapes; only the ImageNet weights, which need a network, are left out.
FULL_SIZE = (
    "model.encoder={name: resnet50, width: 1.0, pretrained: none}",
    "model.decoder={widths: [16, 32, 64, 128, 256], channels: 64}",
    "model.field.hidden=64",
    "model.depth_branch.encoder={name: resnet18, width: 1.0, pretrained: none}",
    "training.learning_rate=0.001",
)


@dataclass
class Place:
    """A workspace on the real samples and what its commands printed."""

    root: Path
    folder: Path
    printed: dict[str, Finished]

    @property
    def workspace(self) -> Workspace:
        return Workspace.open(self.folder)

    def config(self, *overrides: str) -> Any:
        return configuration.load(self.workspace.preset, overrides=overrides)

    def manifest(self) -> Manifest:
        return Manifest.load(self.workspace.manifest, dataset="kitti-360", root=self.root)

    def store(self, kind: str, name: str | None = None) -> StoreReader:
        return StoreReader(self.workspace.store(kind, name))

    def row(self, drive: str, frame: int) -> int:
        return self.manifest().row_of(drive, frame)

    def run(self, *words: str) -> Finished:
        return successful(*words, "-C", str(self.folder))


@pytest.fixture(scope="module")
def prepared(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Indexed, checked and with all frames and ground truth prepared; the models are on disk."""
    base = tmp_path_factory.mktemp("real")
    root = sample_data / "KITTI-360"
    lists, models = base / "lists", base / "models"
    lists.mkdir()
    keys = [f"{DRIVE} {frame:010d} {side}" for frame in TRAIN_IDS for side in "lr"]
    (lists / "train_files.txt").write_text("\n".join(keys))
    (lists / "val_files.txt").write_text(f"{DRIVE} {702:010d} l")
    (lists / "test_files.txt").write_text(f"{DRIVE} {LIDAR_ID:010d} l\n{SECOND} {OCCUPANCY_ID:010d} l")
    make_tiny_depth(models / "depth")
    make_tiny_grounding_dino(models / "dino")
    make_tiny_sam(models / "sam")
    preset = base / "real.yaml"
    preset.write_text(PRESET.format(lists=lists, models=models))
    place = Place(root, base / "ws", {})
    init = ["init", "--dataset", "kitti-360", "--root", str(root), "--preset", str(preset)]
    before = tree_digests(root / "calibration", root / "data_poses")
    place.printed["init"] = place.run(*init)
    place.printed["index"] = place.run("data", "index")
    place.printed["prepare"] = place.run("data", "prepare")
    assert tree_digests(root / "calibration", root / "data_poses") == before
    return place


@pytest.fixture(scope="module")
def with_priors(prepared: Place) -> Place:
    prepared.printed["depth"] = prepared.run("priors", "depth")
    prepared.printed["sam"] = prepared.run("priors", "sam", "--split", "train")
    return prepared


@pytest.fixture(scope="module")
def trained(with_priors: Place) -> Place:
    with_priors.printed["train"] = with_priors.run("train", "--run", "ten")
    return with_priors


def test_check_reports_what_the_published_split_lacks_without_failing(prepared: Place) -> None:
    before = tree_digests(prepared.folder)
    told = command("data", "check", "-C", str(prepared.folder), "-o", "data.split=seg", "-o", "data.fisheye=true")
    assert told.code == 0
    assert told.err == ""
    for line in (
        f"{DRIVE}: 10,514 posed frames 1-11501",
        "train: 0 of 98,008 listed samples usable",
        "val: 3 of 11,451 listed samples usable",
        "test: 0 of 446 listed samples usable",
        "eval-occupancy, eval-depth, eval-sampler lack 446 of 446 images (9 drives): "
        '"Perspective Images for Train & Val (128G)"',
        'train lacks 98,016 of 98,016 fisheye images (9 drives): "Fisheye Images (355G)"',
        "16 of 17 files read, 0 damaged",
    ):
        assert line in told.out
    as_json = successful("data", "check", "-C", str(prepared.folder), "--json")
    report = json.loads(as_json.out)
    assert report["sound"] is True
    assert report["usable"] == {"train": 4, "val": 1, "test": 2}
    assert tree_digests(prepared.folder) == before


def test_index_and_frames(prepared: Place) -> None:
    assert "2 drives, 18,699 posed frames" in prepared.printed["index"].out
    manifest = prepared.manifest()
    assert [manifest.rows(drive) for drive in (DRIVE, SECOND)] == [10514, 8185]
    poses = [manifest.world_from_camera(DRIVE, camera) for camera in ("image_00", "image_01")]
    row = prepared.row(DRIVE, 700)
    baseline = np.linalg.norm(poses[0][row, :3, 3] - poses[1][row, :3, 3])
    assert baseline == pytest.approx(0.5942, abs=5e-4)
    frames = prepared.store("frames")
    for camera in ("image_00", "image_01"):
        group = f"{DRIVE}/{camera}"
        held = set(frames.frame_ids(group)[frames.rows(group)].tolist())
        assert {700, 701, 702} <= held <= {250, 700, 701, 702}
    image = frames.read(f"{DRIVE}/image_00", row, "rgb")
    assert image.shape == (192, 640, 3)
    assert 40 < image.mean() < 200
    assert image.std() > 30
    again = prepared.run("data", "prepare")
    assert "preparing" not in again.err


def test_lidar_depth_and_occupancy_ground_truth(prepared: Place) -> None:
    lidar, row = prepared.store("lidar"), prepared.row(DRIVE, LIDAR_ID)
    depth = lidar.read(f"{DRIVE}/image_00", row, "depth")
    seen = depth[np.isfinite(depth)]
    # 27,523 points of the sweep fall inside the 1408x376 image; at 192x640 some share a pixel.
    assert 10_000 < len(seen) < 27_523
    assert 1 < seen.min() < 5 < np.median(seen) < 20 < 50 < seen.max() < 130
    occupancy, row = prepared.store("occupancy"), prepared.row(SECOND, OCCUPANCY_ID)
    group = f"slice-5/{SECOND}"
    assert np.flatnonzero(occupancy.rows(group)).tolist() == [row]
    assert int(occupancy.read(group, row, "sweeps")) == 5
    occupied, visible = (occupancy.read(group, row, name).astype(bool) for name in ("occupied", "visible"))
    assert occupied.shape == visible.shape == (160, 80)
    assert 0.02 < visible.mean() < 0.98
    assert 0.02 < occupied.mean() < 0.98
    # What the frame's own sweep sees is one of the five, so few cells are both seen and never seen through.
    assert (occupied & visible).mean() < visible.mean()


def check_varied(depth: np.ndarray) -> None:
    metres = depth.astype(np.float64)
    assert (metres > 0).all()
    assert (metres <= 80).all()
    assert metres.std() > 0.5


def test_pseudo_depth(with_priors: Place) -> None:
    depth = with_priors.store("depth")
    maps = {}
    for camera in ("image_00", "image_01"):
        group = f"{DRIVE}/{camera}"
        for row in np.flatnonzero(depth.rows(group)):
            values = depth.read(group, int(row), "depth")
            assert values.dtype == np.float16
            assert values.shape == (192, 640)
            check_varied(values)
            maps[camera, int(row)] = values
        made_by = depth.fingerprint(group)
        assert made_by is not None
        assert made_by["source"] == "depth-anything-v2"
    assert len(maps) >= 6
    assert not np.array_equal(
        maps["image_00", with_priors.row(DRIVE, 700)], maps["image_00", with_priors.row(DRIVE, 701)]
    )
    assert "nothing to do, all" in with_priors.run("priors", "depth").out


def test_pseudo_depth_at_the_published_input_size(with_priors: Place) -> None:
    """192x640 goes in as 518x1722."""
    done = with_priors.run(
        "priors", "depth", "--split", "val", "--limit", "1", "--store", "full", "-o", "priors.depth.short_side=518"
    )
    assert "short side 518" in done.out
    group, row = f"{DRIVE}/image_00", with_priors.row(DRIVE, 702)
    check_varied(with_priors.store("depth", "full").read(group, row, "depth"))


def test_instances_and_anchors(with_priors: Place) -> None:
    instances, anchors = with_priors.store("instances"), with_priors.store("anchors")
    draws = set()
    counts = []
    for camera in ("image_00", "image_01"):
        group = f"{DRIVE}/{camera}"
        rows = np.flatnonzero(anchors.rows(group))
        assert rows.tolist() == [with_priors.row(DRIVE, frame) for frame in (700, 701, 702)]
        for row in rows:
            counts.append(int(instances.read(group, int(row), "count")))
            drawn = anchors.read(group, int(row), "anchors").astype(int)
            assert drawn.shape == (25, 64, 2)
            assert (drawn >= 4).all()
            assert (drawn[..., 0] <= 640 - 4).all()
            assert (drawn[..., 1] <= 192 - 4).all()
            for one in drawn:
                apart = ((one[:, None] - one[None]) ** 2).sum(-1)[~np.eye(64, dtype=bool)]
                assert apart.min() >= 2 * 8**2
                draws.add(one.tobytes())
    assert max(counts) > 0
    assert len(draws) == 6 * 25
    assert np.unique(instances.read(f"{DRIVE}/image_00", with_priors.row(DRIVE, 700), "masks")).size > 1


def initial_model(place: Place, config: Any, folder: Path) -> tuple[ViPOcc, TrainingSamples]:
    """Return the model that a run starts from, and its samples."""
    table = sample_table(place.manifest(), "train", config.data)
    workspace = place.workspace
    paths = SamplePaths(workspace.store("frames"), workspace.store("depth"), workspace.store("anchors"))
    samples = TrainingSamples(table, paths, config.training, config.data.image_size, config.seed)
    return Trainer(config, samples, folder, device=torch.device("cpu")).model, samples


def losses_on_first_epoch(model: ViPOcc, samples: TrainingSamples, config: Any) -> list[dict[str, float]]:
    """Return the losses of the batches of the first epoch: the same images, views, rays and samples at every call."""
    training = config.training
    batches = RunBatches(0, len(samples.table), training.batch_size)
    stream = load_batches(samples, batches, workers=0, prefetch=1)
    model.train()
    found = []
    for step, raw in enumerate(stream):
        jitter = torch_generator(torch.device("cpu"), config.seed, "jitter", step)
        with torch.no_grad():
            terms = training_losses(model, prepare(raw, training, torch.device("cpu")), training, jitter=jitter)
        found.append({name: float(value) for name, value in terms.items()})
    return found


def check_learning(place: Place, run: str, config: Any, scratch: Path) -> None:
    """Ten steps lower the loss on the same rays by a tenth or more, and move every tensor that training may move."""
    folder = place.workspace.runs / run
    logged = [line for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]
    assert len(logged) == 10
    initial, samples = initial_model(place, config, scratch)
    assert len(samples.table) == 4
    assert samples.table.group.shape[1] == 4
    before = {name: value.detach().clone() for name, value in initial.named_parameters()}
    first = losses_on_first_epoch(initial, samples, config)
    # The command's first step met this model and these rays.
    assert first[0]["total"] == pytest.approx(logged[0]["loss"], rel=1e-3)
    final = ViPOcc.from_pretrained(folder / "checkpoints" / "step_10")
    after = dict(final.named_parameters())
    assert after.keys() == before.keys()
    still = [name for name, value in before.items() if torch.equal(value, after[name])]
    assert not still, f"these tensors did not move: {still}"
    assert all(torch.isfinite(value).all() for value in after.values())
    last = losses_on_first_epoch(final, samples, config)
    mean = {name: [float(np.mean([one[name] for one in some])) for some in (first, last)] for name in first[0]}
    assert mean["total"][1] <= 0.9 * mean["total"][0], mean


def test_ten_steps_lower_the_loss_on_the_same_rays_and_move_every_tensor(trained: Place, tmp_path: Path) -> None:
    assert "train split with 4 samples of 4 views, 10 steps of 2 on cpu" in trained.printed["train"].out
    check_learning(trained, "ten", trained.config(), tmp_path)


def test_training_is_repeatable(trained: Place) -> None:
    trained.run("train", "--run", "again", "--steps", "1", "-o", "training.validation_frames=0")
    losses = [read_metrics(trained.workspace.runs / run / "metrics.jsonl")[0]["loss"] for run in ("ten", "again")]
    assert losses[0] == losses[1]


def test_depth_against_the_lidar_of_frame_250(trained: Place) -> None:
    done = trained.run("eval", "depth", "--run", "ten", "--json")
    assert done.err.startswith("depth against lidar on kitti-360 test")
    report = json.loads(done.out)
    by_name = {row["name"]: row for row in report["rows"]}
    for name in ("rendered", "branch", "prior", "prior, median-scaled"):
        row = by_name[name]
        assert [DRIVE, LIDAR_ID] in [[frame["sequence"], frame["frame_id"]] for frame in row["per_frame"]]
        assert 0 < row["metrics"]["abs_rel"]["mean"] < 10
        assert 0 <= row["metrics"]["a1"]["mean"] <= 1
        assert row["metrics"]["abs_rel"]["frames"] == 2


def test_occupancy_against_the_sweeps_of_drive_0008(trained: Place) -> None:
    done = trained.run("eval", "occupancy", "--run", "ten", "--json")
    assert done.err.startswith("occupancy under slice-5 on kitti-360 test")
    report = json.loads(done.out)
    assert report["frames"]["used"] == 1
    assert [one["reason"] for one in report["frames"]["skipped"]] == ["no LiDAR ground truth"]
    by_name = {row["name"]: row for row in report["rows"]}
    free, occupied = (by_name[f"everything {what}"]["metrics"]["o_acc"]["mean"] for what in ("free", "occupied"))
    assert 0 < free < 1
    assert free + occupied == pytest.approx(1)
    assert 0 <= by_name["trained"]["metrics"]["balanced_accuracy"]["mean"] <= 1


@pytest.mark.slow
def test_ten_steps_of_the_full_size_networks(with_priors: Place, tmp_path: Path) -> None:
    """As above with ResNet-50, the published widths, 64 samples a ray and the published rays of a sample."""
    overrides = (*FULL_SIZE, "model.renderer.samples=64", "training.patches=64", "training.depth_patches=32")
    options = [part for text in overrides for part in ("-o", text)]
    with_priors.run("train", "--run", "full", *options)
    check_learning(with_priors, "full", with_priors.config(*overrides), tmp_path)
