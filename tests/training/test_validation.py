import math

import numpy as np
import pytest
import torch
from tiny_world import SEQUENCE, TinyWorld

from vipocc.data_manifests.manifest import Manifest
from vipocc.evaluation.metrics import depth_metrics
from vipocc.model.network import ViPOcc
from vipocc.stores.reader import StoreReader
from vipocc.training.validation import Validation


def opened(world: TinyWorld, *overrides: str) -> Validation:
    return Validation.open(world.workspace, Manifest.load(world.workspace.manifest), world.configured(*overrides))


@pytest.fixture(scope="module")
def model(shared_world: TinyWorld) -> ViPOcc:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ViPOcc(shared_world.config.model, "centre")


def test_the_subset_is_fixed_and_evenly_spaced(shared_world: TinyWorld) -> None:
    assert [frame.row for frame in opened(shared_world).frames] == [6, 8]
    assert [frame.row for frame in opened(shared_world, "training.validation_frames=50").frames] == [6, 7, 8]


def test_refined_depth_is_measured_as_evaluation_does(shared_world: TinyWorld, model: ViPOcc) -> None:
    figures = opened(shared_world)(model.train())
    assert model.training, "the model is left in the mode it was in"
    group = f"{SEQUENCE}/image_00"
    values = []
    for row in (6, 8):
        image, prior, truth = (
            StoreReader(shared_world.workspace.store(kind)).read(group, row) for kind in ("frames", "depth", "lidar")
        )
        with torch.no_grad():
            refined = model.eval().refine_depth(
                torch.from_numpy(image).permute(2, 0, 1)[None] / 255.0, torch.from_numpy(prior)[None, None].float()
            )
        values.append(depth_metrics(refined[0, 0].numpy(), truth)["abs_rel"])
    assert figures["refined_depth/abs_rel"] == pytest.approx(float(np.mean(values)), rel=1e-5)
    # The residual begins at 0, so the untrained branch gives the prior back: 1.5 times too far and .3 m.
    assert 0.5 < figures["refined_depth/abs_rel"] < 0.6


def test_the_batch_does_not_change_the_figures(shared_world: TinyWorld, model: ViPOcc) -> None:
    together = opened(shared_world, "training.validation_frames=3")
    alone = opened(shared_world, "training.validation_frames=3")
    alone.batch = 1
    first, second = together(model), alone(model)
    assert first.keys() == second.keys()
    assert all(first[name] == pytest.approx(second[name], rel=1e-4, nan_ok=True) for name in first)


@pytest.mark.parametrize(
    ("absent", "names", "text"),
    [
        ((), {"rendered_depth", "refined_depth", "occupancy"}, "rendered depth, occupancy, refined depth"),
        (("depth",), {"rendered_depth", "occupancy"}, "refined depth not, since val frames have no pseudo-depth"),
        (("lidar",), {"occupancy"}, "rendered_depth/abs_rel is not among them, so the newest checkpoint counts"),
        (("lidar", "occupancy"), set(), "no val frame has LiDAR depth or occupancy"),
    ],
)
def test_what_is_not_there_is_said_once_and_not_measured(
    world: TinyWorld, model: ViPOcc, absent: tuple[str, ...], names: set[str], text: str
) -> None:
    for kind in absent:
        world.workspace.store(kind).rename(world.workspace.path / kind)
    validation = opened(world)
    assert text in validation.describe()
    assert validation.measures == bool(names)
    figures = validation(model)
    assert {name.partition("/")[0] for name in figures} == names
    assert all(math.isfinite(value) for value in figures.values())


def test_no_frames_means_no_validation(shared_world: TinyWorld) -> None:
    validation = opened(shared_world, "training.validation_frames=0")
    assert not validation.measures
    assert "training.validation_frames is 0" in validation.describe()
