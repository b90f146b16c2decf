from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TinyWorld
from PIL import Image

import vipocc
from vipocc import config as configuration
from vipocc.errors import MissingInputError, WorkspaceError
from vipocc.geometry.cameras import Pinhole
from vipocc.model.network import ViPOcc
from vipocc.stores import StoreReader


@pytest.fixture
def folder(shared_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the examples in `vipocc.api` find in the current folder."""
    home = shared_world.workspace
    (tmp_path / "workspace").symlink_to(home.path)
    (tmp_path / "depth.zarr").symlink_to(home.store("depth"))
    (tmp_path / "depth.zarr.ledger").symlink_to(home.store("depth").with_name("depth.zarr.ledger"))
    config = shared_world.config
    torch.manual_seed(0)
    model = ViPOcc(config.model, config.data.convention, initialise=False)
    model.save_pretrained(tmp_path / "checkpoint", configuration.as_dict(config))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (300, 900, 3), np.uint8)).save(tmp_path / "street.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["load", "open_store", "samples"])
def test_the_examples_run(folder: Path, name: str) -> None:
    found = doctest.DocTestFinder().find(getattr(vipocc, name), name)
    assert found[0].examples
    runner = doctest.DocTestRunner()
    for example in found:
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


def test_samples_are_what_the_stores_hold(shared_world: TinyWorld) -> None:
    home = shared_world.workspace
    frames, depth = StoreReader(home.store("frames")), StoreReader(home.store("depth"))
    every = list(vipocc.samples(home.path, "train", overrides=("data.fisheye_offset=2",)))
    assert len(every) == 12
    for sample in (every[0], every[-1]):
        for image, (camera, row) in zip(sample.images, sample.views, strict=True):
            np.testing.assert_array_equal(image, frames.read(f"{sample.sequence}/{camera}", row, "rgb"))
        group = f"{sample.sequence}/{sample.camera}"
        assert sample.prior_depth is not None
        np.testing.assert_array_equal(sample.prior_depth, depth.read(group, sample.row).astype(np.float32))
        assert sample.frame_id == 100 + sample.row
        assert sample.intrinsics.shape == (len(sample.views), 3, 3)
        np.testing.assert_allclose(sample.key_from_view[0], np.eye(4), atol=1e-6)
        # The second view is the key's camera one row later, 0.8 m ahead.
        np.testing.assert_allclose(sample.key_from_view[1, :3, 3], [0, 0, 0.8], atol=1e-5)
    (first, *_) = vipocc.samples(home.path, "val")
    assert (first.views, first.images.shape[0]) == ((("image_00", 6),), 1)


def test_a_store_opens_lazily_with_what_tells_its_rows_apart(shared_world: TinyWorld) -> None:
    home = shared_world.workspace
    reader = StoreReader(home.store("depth"))
    data = vipocc.open_store(home.store("depth"))
    groups = reader.groups()
    assert list(np.unique(data["group"].values)) == groups
    for group in groups:
        part = data.isel(frame=data["group"].values == group)
        np.testing.assert_array_equal(part["frame_id"].values, reader.frame_ids(group))
        np.testing.assert_array_equal(part["present"].values, reader.rows(group))
        row = int(np.flatnonzero(reader.rows(group))[0])
        np.testing.assert_array_equal(part["depth"].isel(frame=row).values, reader.read(group, row))
    alone = vipocc.open_store(home.store("depth"), groups[0])
    assert alone["depth"].attrs["units"] == "m"
    np.testing.assert_array_equal(alone["depth"].sel(frame_id=101).values, reader.read(groups[0], 1))


def test_what_is_not_there_is_told(tmp_path: Path, shared_world: TinyWorld) -> None:
    with pytest.raises(MissingInputError):
        vipocc.open_store(tmp_path / "depth.zarr")
    with pytest.raises(MissingInputError, match="nowhere"):
        vipocc.open_store(shared_world.workspace.store("depth"), "nowhere/image_00")
    with pytest.raises(WorkspaceError):
        next(vipocc.samples(tmp_path))


CAMERA = {
    "dataset": "synthetic",
    "width": 96,
    "height": 64,
    "fx": 60.0,
    "fy": 60.0,
    "cx": 47.5,
    "cy": 25.0,
    "tilt": 5.0,
}


def test_training_writes_the_camera_down(undisturbed: Path) -> None:
    for place in (undisturbed, undisturbed / "checkpoints" / "step_6"):
        assert configuration.read(place / "config.yaml")["camera"] == CAMERA


def test_a_checkpoint_knows_its_camera(world: TinyWorld, tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoints = world.workspace.runs / "one" / "checkpoints"
    model = ViPOcc(world.config.model, world.config.data.convention, initialise=False)
    model.save_pretrained(checkpoints / "step_7", configuration.as_dict(world.config))
    (checkpoints / "best").write_text("step_7\n")
    expected = Pinhole(60.0, 60.0, 47.5, 25.0, 96, 64)
    for named in (checkpoints / "step_7", world.workspace.runs / "one"):
        assert vipocc.load(named).training_camera == expected
    # Away from the workspace, the checkpoint's own word is what is known.
    said = {**configuration.as_dict(world.config), "camera": CAMERA}
    model.save_pretrained(tmp_path / "elsewhere", said)
    assert vipocc.load(tmp_path / "elsewhere").training_camera == expected
    other = vipocc.load(checkpoints / "step_7", training_camera="kitti-raw").training_camera
    assert other.fx == pytest.approx(721.5377 * 96 / 1242)
