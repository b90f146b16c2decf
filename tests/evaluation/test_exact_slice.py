"""The slice in front of the camera, the prepared image and the exact truth are one geometry.

True depth, looked up where our own projection puts the slice's points, has to say what the exact truth says. A grid
that is turned, mirrored or shifted against the image, or intrinsics not resized with it, would show here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vipocc import config as configuration
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.stage import ensure_indexed
from vipocc.data_manifests.synthetic.exact import ExactTruth
from vipocc.data_manifests.views import prepared_intrinsics
from vipocc.evaluation.occupancy import slice_points
from vipocc.workspace import Workspace

WORLD = "data.world={train_drives: 1, train_frames: 2, val_drives: 0, test_drives: 2, test_frames: 8, scale: 0.25}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Any, Manifest]:
    workspace = Workspace.create(tmp_path_factory.mktemp("slice"), "synthetic")
    config = configuration.load("demo", overrides=[WORLD, "data.world.lidar_points=640", "data.world.shadows=false"])
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
