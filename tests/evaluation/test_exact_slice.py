"""The slice in front of the camera, the prepared image and the exact truth are one geometry.

True depth, looked up where our own projection puts the slice's points, has to say what the exact truth says. A grid
that is turned, mirrored or shifted against the image, or intrinsics not resized with it, would show here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vipocc import config as configuration
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.stage import ensure_indexed
from vipocc.data_manifests.synthetic.exact import ExactTruth
from vipocc.data_manifests.views import prepared_intrinsics
from vipocc.evaluation.occupancy import SliceTruth, exact_truth, slice_points
from vipocc.evaluation.occupancy.boxed import BoxedCells
from vipocc.evaluation.occupancy.run import run_occupancy
from vipocc.evaluation.occupancy.volume import VolumeTruth
from vipocc.evaluation.protocols import CUBOID, EXACT_CUBOID, EXACT_OCCUPANCY
from vipocc.model.network import ViPOcc
from vipocc.workspace import Workspace

WORLD = "data.world={train_drives: 1, train_frames: 2, val_drives: 0, test_drives: 2, test_frames: 8, scale: 0.25}"

WHOLE = (WORLD, "data.world.lidar_points=640", "data.world.shadows=false")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Any, Manifest]:
    workspace = Workspace.create(tmp_path_factory.mktemp("slice"), "synthetic")
    config = configuration.load("demo", overrides=list(WHOLE))
    return workspace, config, ensure_indexed(workspace, config)


def test_true_depth_says_what_the_exact_occupancy_says(place: tuple[Workspace, Any, Manifest]) -> None:
    workspace, config, manifest = place
    truth, points = ExactTruth(workspace.root), slice_points()
    height, width = config.data.image_size
    agreement, just_behind, in_front, mirrored, shifted = [], [], [], [], []
    for key in manifest.keys("test"):
        frame = int(manifest.frame_ids(key.sequence)[key.row])
        depth = truth.depth(key.sequence, key.camera, frame)
        pixels = points @ prepared_intrinsics(manifest, key.sequence, key.camera, config.data).T
        # From the prepared image to the raw one, whose pixels the true depth has.
        columns = np.rint((pixels[:, 0] / pixels[:, 2] + 0.5) * depth.shape[1] / width - 0.5).astype(int)
        rows = np.rint((pixels[:, 1] / pixels[:, 2] + 0.5) * depth.shape[0] / height - 0.5).astype(int)
        assert ((columns >= 0) & (columns < depth.shape[1]) & (rows >= 0) & (rows < depth.shape[0])).mean() > 0.98
        surface = depth[rows.clip(0, depth.shape[0] - 1), columns.clip(0, depth.shape[1] - 1)]
        behind = points[:, 2] >= surface
        exact = truth.occupancy(key.sequence, frame)
        agreement.append((~behind.reshape(exact.visible.shape) == exact.visible).mean())
        near = ((points[:, 2] > surface + 0.1) & (points[:, 2] < surface + 0.4)).reshape(exact.occupied.shape)
        just_behind.append(exact.occupied[near])
        mirrored.append(exact.occupied[:, ::-1][near])
        shifted.append(np.roll(exact.occupied, 5, axis=1)[near])
        in_front.append(exact.occupied[~behind.reshape(exact.occupied.shape)])
    assert len(agreement) >= 10
    assert np.mean(agreement) > 0.98
    # Within 40 cm behind a surface there is matter, but for edges and thin things; before it there is none. Half a
    # metre to the side, or mirrored, it would not be so.
    assert np.concatenate(just_behind).size > 500
    assert np.concatenate(just_behind).mean() > 0.8
    assert np.concatenate(in_front).mean() < 0.005
    assert np.concatenate(mirrored).mean() < 0.5
    assert np.concatenate(shifted).mean() < 0.5


def truths_of(read: Any, manifest: Manifest, count: int) -> list[SliceTruth]:
    found = [read(key) for key in manifest.keys("test") if key.camera == "image_00"][:count]
    assert all(isinstance(one, SliceTruth) for one in found)
    return found


def test_the_exact_cuboid_holds_the_exact_slice(place: tuple[Workspace, Any, Manifest]) -> None:
    workspace, _, manifest = place
    truth = ExactTruth(workspace.root)
    keys = [key for key in manifest.keys("test") if key.camera == "image_00"][:3]
    flat, volume = exact_truth(manifest, EXACT_OCCUPANCY), exact_truth(manifest, EXACT_CUBOID)
    for key in keys:
        one, all_layers = flat(key), volume(key)
        assert isinstance(one, SliceTruth)
        assert isinstance(all_layers, SliceTruth)
        frame = int(manifest.frame_ids(key.sequence)[key.row])
        known = truth.occupancy(key.sequence, frame)
        np.testing.assert_array_equal(one.occupied, known.occupied)
        np.testing.assert_array_equal(one.visible, known.visible)
        assert all_layers.occupied.shape == (4, 160, 80)
        # The second layer is the slice's plane, y = 0.375 m.
        np.testing.assert_array_equal(all_layers.occupied[1], known.occupied)
        np.testing.assert_array_equal(all_layers.visible[1], known.visible)
        assert one.objects is not None
        assert one.moving is not None
        assert not (one.moving & ~one.objects).any()


def test_objects_of_boxes_lie_where_the_exact_ones_do(place: tuple[Workspace, Any, Manifest]) -> None:
    _, _, manifest = place
    boxed = BoxedCells(manifest, EXACT_OCCUPANCY)
    keys = [key for key in manifest.keys("test") if key.camera == "image_00"]
    read = exact_truth(manifest, EXACT_OCCUPANCY)
    seen = 0
    for key in keys:
        exact, found = read(key), boxed(key)
        assert isinstance(exact, SliceTruth)
        assert exact.objects is not None
        assert exact.moving is not None
        assert found is not None
        # A box holds its solid, and bicycles are objects, too, so boxes say at least as much.
        assert not (exact.objects & ~found[0]).any()
        assert not (exact.moving & ~found[1]).any()
        alone = boxed.moving(key)
        assert alone is not None
        np.testing.assert_array_equal(alone, found[1])
        seen += int(exact.objects.any())
    assert seen >= 3


@pytest.mark.slow
def test_the_cuboid_of_sweeps_is_near_the_exact_one(place: tuple[Workspace, Any, Manifest]) -> None:
    _, _, manifest = place
    swept = VolumeTruth(manifest, CUBOID, torch.device("cpu"))
    exact = truths_of(exact_truth(manifest, EXACT_CUBOID), manifest, 1)
    for one, known in zip(truths_of(swept, manifest, 1), exact, strict=True):
        assert one.occupied.shape == known.occupied.shape == (4, 160, 80)
        for layer in range(4):
            # What stands among the seen cells is nearly always truly free; hidden cells are another matter.
            assert known.occupied[layer][one.visible[layer]].mean() < 0.15
        assert one.objects is not None


@pytest.mark.slow
def test_every_protocol_of_the_synthetic_world_runs(place: tuple[Workspace, Any, Manifest]) -> None:
    """A network that never learnt anything, from its checkpoint to the saved report."""
    workspace, config, _ = place
    checkpoint = workspace.path / "random"
    ViPOcc(config.model, config.data.convention).save_pretrained(checkpoint, configuration.as_dict(config))
    digests = set()
    for name, heading in (
        ("slice-20", "IE_prec"), ("cuboid", "IoU"), ("exact-cuboid", "IoU"), ("exact", "object O_acc"),
    ):  # fmt: skip
        said: list[str] = []
        report, folder = run_occupancy(
            workspace, config, say=said.append, protocol=name, limit=1, checkpoint=checkpoint, overrides=WHOLE
        )
        assert f"occupancy under {name}" in said[0]
        text = (folder / "table.md").read_text()
        assert heading in text
        assert "Rings of distance" in text
        row = report.row("trained")
        assert row.metrics["o_acc"].frames == len(report.used) == 1, report.skipped
        assert 0 <= row.metrics["o_acc"].mean <= 1
        assert {"untrained", "everything free", "everything occupied"} <= {one.name for one in report.rows}
        digests.add(report.truth_digest)
    assert len(digests) == 4
