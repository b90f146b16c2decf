"""One whole step in the `official` profile: its losses from features and residual on, derived again by plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import released

from vipocc import config as configuration
from vipocc.model.config import ModelConfig
from vipocc.model.network import ViPOcc
from vipocc.training.batch import Batch
from vipocc.training.step import training_losses

SIZE = HEIGHT, WIDTH = 64, 96
SAMPLES, PATCHES, DEPTH_PATCHES = 6, 3, 2
NARROW = {"name": "resnet18", "width": 0.125, "pretrained": "none"}
MODEL = {
    "encoder": NARROW,
    "decoder": {"widths": [8, 8, 8, 16, 16], "channels": 8},
    "field": {"hidden": 16},
    "depth_branch": {
        "encoder": NARROW, "widths": [8, 8, 8, 16, 16], "decoder": "official", "refinement": "official",
    },
    "renderer": {"samples": SAMPLES},
}  # fmt: skip


def street(seed: int) -> Batch:
    """Two samples of four views in float64: smooth images, cameras a little apart, one looking away."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    phases = 0.1 * np.arange(4)[:, None, None, None] + np.arange(3)[:, None, None]
    images = np.stack([0.5 + 0.4 * np.sin(0.2 * u + 0.1 * v + phases + sample) for sample in range(2)])
    poses = np.tile(np.eye(4), (2, 4, 1, 1))
    poses[:, 1:, :3, 3] = rng.uniform(-0.4, 0.4, (2, 3, 3))
    poses[:, 1, 2, 3] += 0.8
    poses[:, 1:, :3, :3] = released.pitch_then_yaw(*rng.uniform(-3, 3, 2))
    poses[1, [2, 3], :3, :3] = released.pitch_then_yaw(0.0, 180.0)

    def centres(count: int) -> torch.Tensor:
        corner = rng.integers([1, 1], [WIDTH - 8, HEIGHT - 8], size=(2, count, 2))
        corner[0, 0] = 0
        return torch.from_numpy(corner) + 4

    return Batch(
        images=torch.from_numpy(images),
        intrinsics=torch.tensor([[0.8, 0.0, -0.03], [0.0, 1.7, 0.2], [0.0, 0.0, 1.0]]).double().repeat(2, 4, 1, 1),
        key_from_view=torch.from_numpy(poses),
        render_views=torch.tensor([[1, 2], [2, 3]]),
        centres=centres(PATCHES),
        # A ray of view 0 through its first column comes back to u = -1 but for rounding, which decides whether view 0
        # shows it; the patch in the corner is another view's.
        patch_views=torch.tensor([[3, 0, 0], [0, 1, 1]]),
        depth_centres=centres(DEPTH_PATCHES),
        mirrored=torch.tensor([True, True]),
        prior_depth=torch.from_numpy(rng.uniform(2, 90, (2, 2, HEIGHT, WIDTH))),
    )


def patch(centre: np.ndarray) -> list[tuple[int, int]]:
    """Row and column of the 64 pixels around a centre (x, y)."""
    return [(int(centre[1]) - 4 + i, int(centre[0]) - 4 + j) for i in range(8) for j in range(8)]


def derived(model: ViPOcc, batch: Batch) -> tuple[float, float, float]:
    """The colour, depth and temporal loss of the batch, not weighted."""
    head = model.head
    layers = {
        "in.weight": head.hidden.weight, "in.bias": head.hidden.bias,
        "out.weight": head.output.weight, "out.bias": head.output.bias,
    }  # fmt: skip
    layers = {name: value.detach().numpy() for name, value in layers.items()}
    with torch.no_grad():
        features = model.encode(batch.images[:, 0].flip(-1)).flip(-1).numpy()
        assert model.depth_branch is not None
        residuals = model.depth_branch(batch.images[:, :2].flatten(0, 1)).reshape(2, 2, HEIGHT, WIDTH).numpy()
    priors = batch.prior_depth.numpy()
    refine = np.vectorize(released.refine_depth)
    refined = refine(priors, residuals)
    assert (refined < 0).any()
    images, intrinsics, poses = batch.images.numpy(), batch.intrinsics.numpy(), batch.key_from_view.numpy()
    distances = released.sample_distances(np.full(SAMPLES, 0.5))

    def follow(sample: int, view: int, row: int, column: int) -> tuple[np.ndarray, np.ndarray, list[bool], float]:
        """Points of a ray, their weights, which view 0 does not show, and depth per distance."""
        origin, direction, factor = released.ray(intrinsics[sample, view], poses[sample, view], row, column, *SIZE)
        points = origin + direction * distances[:, None]
        found = [released.density(features[sample], intrinsics[sample, 0], point, layers) for point in points]
        weights = released.composite(np.array([sigma for sigma, _ in found]), distances, True)
        return points, weights, [unseen for _, unseen in found], factor

    errors, invalid, depths, drawn, factors, wanted, scenes = [], [], [], [], [], [], []
    for sample in range(2):
        chosen = batch.render_views[sample].tolist()
        from_key = [np.linalg.inv(poses[sample, view]) for view in chosen]
        for number in range(PATCHES):
            view = int(batch.patch_views[sample, number])
            rendered, target = np.empty((64, 2, 3)), np.empty((64, 3))
            for place, (row, column) in enumerate(patch(batch.centres[sample, number].numpy())):
                points, weights, unseen, _ = follow(sample, view, row, column)
                out = np.empty((SAMPLES, 2), dtype=bool)
                colours = np.empty((SAMPLES, 2, 3))
                for at, point in enumerate(points):
                    for slot, (other, pose) in enumerate(zip(chosen, from_key, strict=True)):
                        colours[at, slot], hidden = released.colour(
                            images[sample, other], intrinsics[sample, other], pose, point
                        )
                        out[at, slot] = hidden or unseen[at]
                rendered[place] = np.einsum("s,svc->vc", weights, colours)
                target[place] = images[sample, view, :, row, column]
                invalid.append(released.invalid_ray(weights, out, colours, "weight_guided"))
            map_ = released.colour_error(rendered.reshape(8, 8, 2, 3), target.reshape(8, 8, 3), "l1+ssim")
            errors += map_.ravel().tolist()
        for centre in batch.depth_centres[sample].numpy():
            for row, column in patch(centre):
                _, weights, _, factor = follow(sample, 0, row, column)
                drawn.append(float(weights @ distances))
                factors.append(factor)
                depths.append(refined[sample, 0, row, column])
        wanted.append(refined[sample])
        scenes.append(
            (
                *(2 * images[sample, view] - 1 for view in (0, 1)), *refined[sample], intrinsics[sample, 0],
                np.linalg.inv(poses[sample, 1]),
            )
        )  # fmt: skip
    assert 0 < sum(invalid) < len(invalid)
    return (
        released.colour_loss(np.array(errors), np.array(invalid)),
        released.depth_loss(np.array(depths), np.array(drawn), np.array(factors), 1),
        sum(released.temporal_loss(scenes)),
    )


def compare(dtype: torch.dtype, device: str, relative: float) -> None:
    torch.manual_seed(3)
    model = ViPOcc(configuration.validate(MODEL, ModelConfig), "official").eval().double()
    assert model.depth_branch is not None
    with torch.no_grad():
        # Residuals of a size that turns some depths negative, and dense matter.
        list(model.depth_branch.parameters())[-2].mul_(60.0)
        model.head.output.bias.sub_(2.0)
    batch = street(4)
    expected = derived(model, batch)
    config = configuration.load("vipocc", profile="official").training
    fields = {name: value.to(device) for name, value in vars(batch).items() if name != "maps"}
    typed = {name: value.to(dtype) if value.is_floating_point() else value for name, value in fields.items()}
    model.to(device, dtype).use_precision("float32")
    with torch.no_grad():
        terms = training_losses(model, Batch(**typed), config)
    for name, value in zip(("rgb", "depth", "temporal"), expected, strict=True):
        assert float(terms[name]) == pytest.approx(value, rel=relative)
        assert value > 0
    whole = 2 * expected[0] + 0.005 * expected[1] + 0.01 * expected[2]
    assert float(terms["total"]) == pytest.approx(whole, rel=relative)


# The distances of samples are float32 in either.
@pytest.mark.parametrize(("dtype", "relative"), [(torch.float64, 1e-7), (torch.float32, 1e-5)])
def test_a_step_of_the_official_profile(dtype: torch.dtype, relative: float) -> None:
    compare(dtype, "cpu", relative)


@pytest.mark.gpu
def test_a_step_of_the_official_profile_on_cuda() -> None:
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        compare(torch.float32, "cuda", 1e-3)
