"""Our functions in the `official` convention against the released ones written out from their description.

`golden.released` is plain float64. In float64 ours give the same for every input; in float32, on the CPU, they are
within 1e-5 relative (and 2e-6 of the largest value) wherever the input does not itself magnify float32's rounding, as
a point a millimetre from the camera does.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import released
from torch import Tensor

from vipocc.evaluation.occupancy import slice_points
from vipocc.geometry.cameras import Mei, fisheye_table, fisheye_table_ndc_reference
from vipocc.geometry.ndc import intrinsics_from_ndc
from vipocc.geometry.poses import rotation_x, virtual_rotation
from vipocc.geometry.projection import outside, project
from vipocc.geometry.warping import warp_official
from vipocc.model.config import FieldConfig
from vipocc.model.depth_branch import refine_inverse_depth_official
from vipocc.model.field import MLPHead, PointQuery, colours_at, density_at, depth_code, positional_encoding
from vipocc.model.renderer import ColourViews, Rays, composite, composite_reference, render_rays, sample_distances
from vipocc.priors.snog import Instances, SnogConfig, mixture
from vipocc.training import losses
from vipocc.training.rays import patch_depth_factors, patch_rays

K = np.array([[0.7849, 0.0, -0.0312], [0.0, 2.9391, 0.2701], [0.0, 0.0, 1.0]])
DTYPES = [torch.float32, torch.float64]


def same(got: Tensor, wanted: np.ndarray | float) -> None:
    """Equal to 1e-5 relative in float32, to 1e-9 in float64, and to a fifth of that of the largest value."""
    expected = torch.as_tensor(np.asarray(wanted, dtype=np.float64))
    relative = 1e-5 if got.dtype == torch.float32 else 1e-9
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(got.detach().double(), expected, rtol=relative, atol=0.2 * relative * largest)


def tensor(array: np.ndarray | list[float], dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(np.asarray(array), dtype=dtype)


def pose(rng: np.random.Generator, reach: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = released.pitch_then_yaw(*rng.uniform(-8, 8, 2))
    matrix[:3, 3] = rng.uniform(-reach, reach, 3)
    return matrix


def exact(array: np.ndarray) -> np.ndarray:
    """Numbers that float32 holds exactly, so that both sides are given the same."""
    return array.astype(np.float32).astype(np.float64)


# --- geometry


@pytest.mark.parametrize("seed", range(3))
def test_fisheye_table(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, (pitch, yaw) = (7, 11), rng.uniform(-20, 20, 2)
    names = ("xi", "k1", "k2", "gamma1", "gamma2", "u0", "v0")
    camera = dict(
        zip(names, [2.2, *rng.uniform(0, 1.7, 2), *rng.uniform(1.5, 2, 2), *rng.uniform(-0.05, 0.05, 2)], strict=True)
    )
    wanted = released.fisheye_table(K, *size, camera, released.pitch_then_yaw(pitch, yaw))
    turn = virtual_rotation(pitch, yaw)
    np.testing.assert_allclose(turn, released.pitch_then_yaw(pitch, yaw), atol=1e-14)
    plain = fisheye_table_ndc_reference(K, size, *(camera[name] for name in names), source_from_target=turn)
    np.testing.assert_allclose(plain, wanted, rtol=1e-12, atol=1e-12)
    # In pixels of a 1400x1300 image, tangential terms ignored.
    height, width = 1300, 1400
    real = Mei(
        camera["xi"], camera["k1"], camera["k2"], 0.3, -0.2,
        camera["gamma1"] * width / 2, camera["gamma2"] * height / 2, (camera["u0"] + 1) * width / 2,
        (camera["v0"] + 1) * height / 2, width, height,
    )  # fmt: skip
    table = fisheye_table(intrinsics_from_ndc(K, size, "official"), size, real, turn, "official")
    same(torch.from_numpy(table), (wanted + 1) / 2 * [width - 1, height - 1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_rays_and_depth_factors(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    size = _height, _width = 20, 30
    places = [
        (0, 0),
        (0, 29),
        (19, 0),
        (19, 29),
        (10, 15),
        *zip(rng.integers(20, size=11), rng.integers(30, size=11), strict=True),
    ]
    poses = [np.eye(4), exact(pose(rng, 3.0))]
    pixels = torch.tensor([[[[[column, row] for row, column in places]]] * 2])  # [1, 2, 1, 16, 2], x before y
    matrices = tensor(np.stack([K, K])[None], dtype)
    views = torch.tensor([[0, 1]])
    got = patch_rays(pixels, views, matrices, tensor(np.stack(poses)[None], dtype), size, "official")
    wanted = [
        released.ray(exact(K) if dtype == torch.float32 else K, of, r, c, *size) for of in poses for r, c in places
    ]
    same(got.origins[0], np.stack([origin for origin, _, _ in wanted]))
    same(got.directions[0], np.stack([direction for _, direction, _ in wanted]))
    factors = patch_depth_factors(pixels[:, :1], matrices[:, 0], size, "official")
    same(factors.flatten(), np.array([factor for _, _, factor in wanted[: len(places)]]))


def tricky_points(rng: np.random.Generator) -> np.ndarray:
    """Points in view, beside it, behind the camera, nearer than a millimetre, and exactly on the edge u = 1."""
    in_view = rng.uniform([-3, -1, 4], [3, 1, 60], (20, 3))
    beside = rng.uniform([5, -8, 2], [30, 8, 30], (10, 3)) * rng.choice([-1, 1], (10, 1)) * [1, 1, 0]
    beside[:, 2] = rng.uniform(2, 30, 10)
    behind = rng.uniform([-3, -3, -40], [3, 3, -0.1], (8, 3))
    near = np.array([[0.1, 0.1, 5e-4], [0, 0, 0], [1e-4, 0, 9e-4], [-0.2, 0.3, 1.1e-3], [1, 0, -1e-5]])
    return exact(np.concatenate([in_view, beside, behind, near]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_projection(dtype: torch.dtype) -> None:
    points, moved = tricky_points(np.random.default_rng(1)), exact(pose(np.random.default_rng(2), 1.0))
    matrix = exact(K)
    xy, z = project(tensor(points, dtype)[None], tensor(matrix, dtype)[None], tensor(moved, dtype)[None])
    wanted = [released.project(matrix, moved, point) for point in points]
    front = np.array([one[2] > 0.5 for one in wanted]) if dtype == torch.float32 else np.ones(len(points), dtype=bool)
    same(xy[0][front], np.array([one[:2] for one in wanted])[front])
    same(z[0], np.maximum([one[2] for one in wanted], 1e-3))
    assert outside(xy, z)[0].tolist() == [one[3] for one in wanted]
    assert {one[3] for one in wanted} == {False, True}


def test_the_edge_of_the_image_is_inside() -> None:
    unit, eye = np.diag([0.5, 0.5, 1.0]), np.eye(4)
    points = np.array([[8.0, 0, 4], [-8, 8, 4], [8.1, 0, 4], [0, -8.1, 4], [0, 0, 1e-3], [0, 0, 2e-3]])
    xy, z = project(tensor(points, torch.float64)[None], tensor(unit, torch.float64)[None])
    wanted = [released.project(unit, eye, point)[3] for point in points]
    assert outside(xy, z)[0].tolist() == wanted == [False, False, True, True, True, False]


# --- the density field


@pytest.mark.parametrize(("dtype", "reach"), [(torch.float32, 1.0), (torch.float64, 1e3)])
def test_positional_encoding(dtype: torch.dtype, reach: float) -> None:
    values = exact(np.random.default_rng(0).uniform(-reach, reach, (50, 3)))
    same(positional_encoding(tensor(values, dtype)), np.stack([released.positional_encoding(one) for one in values]))


def test_positional_encoding_rounds_as_the_released_one_far_outside_the_image() -> None:
    # There a quarter turn is lost in rounding; one fused product and sum keeps the released float32 numbers bit by bit.
    values = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) * 400 - 200
    frequencies = (1.5 * 2.0 ** torch.arange(6)).repeat_interleave(2)[:, None]
    phases = torch.tensor([0.0, np.pi / 2]).repeat(6)[:, None]
    waves = torch.sin(torch.addcmul(phases, values[:, None].expand(-1, 12, -1), frequencies))
    assert torch.equal(positional_encoding(values)[:, 3:], waves.flatten(1))
    assert float((waves[:, 1::2] - torch.cos(values[:, None] * frequencies[::2])).abs().max()) > 1e-4


@pytest.mark.parametrize("dtype", DTYPES)
def test_depth_code(dtype: torch.dtype) -> None:
    z = exact(np.array([3.0, 80.0, 250.0, 1.0, 2e-3, 1e-3, 5e-4, 0.0, -7.0]))
    same(depth_code(tensor(z, dtype)), np.array([released.z_code(value) for value in z]))


def field(rng: np.random.Generator) -> tuple[MLPHead, np.ndarray, dict[str, np.ndarray]]:
    """A density head with random weights, features [8, 6, 9] and the same weights as arrays."""
    torch.manual_seed(int(rng.integers(1000)))
    head = MLPHead(FieldConfig(hidden=16), 8).double()
    torch.nn.init.normal_(head.hidden.bias)
    torch.nn.init.normal_(head.output.bias)
    for parameter in head.parameters():
        parameter.data = parameter.data.float().double()
    layers = {
        "in.weight": head.hidden.weight, "in.bias": head.hidden.bias,
        "out.weight": head.output.weight, "out.bias": head.output.bias,
    }  # fmt: skip
    return head, exact(rng.normal(size=(8, 6, 9))), {name: value.detach().numpy() for name, value in layers.items()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_density_at_points(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(3)
    head, features, layers = field(rng)
    matrix, points = exact(K), tricky_points(rng)
    if dtype == torch.float32:
        points = points[:20]
    wanted = np.array([released.density(features, matrix, point, layers)[0] for point in points])
    head.to(dtype)
    query = PointQuery.of_points(tensor(points, dtype)[None], tensor(matrix, dtype)[None])
    maps = tensor(features, dtype)[None]
    with torch.no_grad():
        fast, plain = density_at(head, head.prepare(maps), query), head.reference(maps, query)
    same(fast[0, :, 0], wanted)
    same(plain[0, :, 0], wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_colours_at_points(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(4)
    images, matrix, points = exact(rng.random((2, 3, 6, 9))), exact(K), tricky_points(rng)
    poses = [np.eye(4), exact(pose(rng, 1.0))]
    colours, invalid = colours_at(
        tensor(images, dtype)[None], tensor(points, dtype)[None], tensor(np.stack([matrix] * 2), dtype)[None],
        tensor(np.stack(poses), dtype)[None],
    )  # fmt: skip
    for view in range(2):
        wanted = [released.colour(images[view], matrix, poses[view], point) for point in points]
        same(colours[0, :, view], np.stack([one for one, _ in wanted]))
        assert invalid[0, :, view].tolist() == [out for _, out in wanted]


# --- rendering


def test_sample_distances() -> None:
    offsets = torch.rand(5, 64, generator=torch.Generator().manual_seed(3))
    got = sample_distances(3.0, 80.0, 64, (5,), jitter=torch.Generator().manual_seed(3))
    same(got, np.stack([released.sample_distances(one.double().numpy()) for one in offsets]))


@pytest.mark.parametrize("function", [composite, composite_reference])
@pytest.mark.parametrize("hard_cap", [True, False])
@pytest.mark.parametrize("kind", ["usual", "negative", "thin", "opaque"])
def test_compositing(function, hard_cap: bool, kind: str) -> None:
    rng = np.random.default_rng(5)
    scale, shift = {"usual": (0.3, 0), "negative": (0.4, -0.2), "thin": (1e-5, 0), "opaque": (50, 0)}[kind]
    sigma = exact(rng.random((6, 64)) * scale + shift)
    sigma[0] = -1.0 if kind == "negative" else sigma[0]
    distances = exact(np.stack([released.sample_distances(rng.random(64)) for _ in range(6)]))
    wanted = np.stack([released.composite(s, t, hard_cap) for s, t in zip(sigma, distances, strict=True)])
    weights = function(tensor(sigma, torch.float32), tensor(distances, torch.float32), hard_cap=hard_cap)
    # A float32 alpha is 1 - exp(-x): exact to 6e-8 and no better, in the released code as here.
    torch.testing.assert_close(weights.double(), torch.from_numpy(wanted), rtol=1e-5, atol=2e-7)
    exactly = function(tensor(sigma, torch.float64), tensor(distances, torch.float64), hard_cap=hard_cap)
    torch.testing.assert_close(exactly, torch.from_numpy(wanted), rtol=1e-8, atol=1e-10)
    if kind == "negative":
        assert weights[0, :-1].abs().max() == 0.0
        assert float(weights[0, -1]) == (1.0 if hard_cap else 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rendered_rays(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(6)
    head, features, layers = field(rng)
    head.to(dtype)
    matrix, samples = exact(K), 12
    images, poses = exact(rng.random((2, 3, 6, 9))), [exact(pose(rng, 0.5)) for _ in range(2)]
    origins = exact(rng.uniform(-0.5, 0.5, (7, 3)))
    directions = rng.uniform([-1.6, -0.5, 1], [1.6, 0.5, 1], (7, 3))
    directions = exact(directions / np.linalg.norm(directions, axis=1, keepdims=True))
    distances = exact(np.stack([released.sample_distances(rng.random(samples)) for _ in range(7)]))
    views = ColourViews(*(tensor(x, dtype)[None] for x in (images, np.stack([matrix] * 2), np.stack(poses))))
    with torch.no_grad():
        out = render_rays(
            head, head.prepare(tensor(features, dtype)[None]), tensor(matrix, dtype)[None],
            Rays(tensor(origins, dtype)[None], tensor(directions, dtype)[None]), tensor(distances, dtype)[None], views,
            keep_samples=True,
        )  # fmt: skip
    assert out.colours is not None
    assert out.invalid is not None
    assert out.samples is not None
    hidden = 0
    for number in range(7):
        points = origins[number] + directions[number] * distances[number][:, None]
        sigma = [released.density(features, matrix, point, layers) for point in points]
        weights = released.composite(np.array([value for value, _ in sigma]), distances[number], True)
        seen = [
            [released.colour(image, matrix, of, point) for image, of in zip(images, poses, strict=True)]
            for point in points
        ]
        colours = np.array([[one for one, _ in row] for row in seen])
        same(out.weights[0, number], weights)
        same(out.distance[0, number], float(weights @ distances[number]))
        same(out.samples[0, number], colours)
        same(out.colours[0, number], np.einsum("s,svc->vc", weights, colours))
        invalid = [[out_of or behind for _, out_of in row] for row, (_, behind) in zip(seen, sigma, strict=True)]
        assert out.invalid[0, number].tolist() == invalid
        hidden += int(np.sum(invalid))
    assert 0 < hidden < 7 * samples * 2


# --- the losses


def patches(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rendered [5, 8, 8, 4, 3] and target [5, 8, 8, 3] colours: noise, near misses, and flat patches of one colour."""
    target = rng.random((5, 8, 8, 3))
    rendered = target[:, :, :, None] + rng.normal(size=(5, 8, 8, 4, 3)) * np.array([0.3, 0.05, 0.01, 0.5])[:, None]
    target[3], rendered[3] = 0.4, 0.4
    rendered[4] = 1.0 - target[4][:, :, None]
    return exact(rendered.clip(0, 1)), exact(target)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("criterion", ["l1+ssim", "l1", "l2"])
def test_colour_error_map(criterion: losses.Criterion, dtype: torch.dtype) -> None:
    rendered, target = patches(np.random.default_rng(7))
    got = losses.colour_error(tensor(rendered, dtype), tensor(target, dtype), criterion)
    wanted = np.stack([released.colour_error(a, b, criterion) for a, b in zip(rendered, target, strict=True)])
    if dtype == torch.float64:
        same(got, wanted)
    else:
        # Moments of float32 cancel in nearly flat windows: the released numbers of G3 are 1e-5 off their formula too.
        torch.testing.assert_close(got.double(), torch.from_numpy(wanted), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("policy", ["weight_guided", "weight_guided_diverse", "strict", "none"])
def test_invalid_rays(policy: losses.InvalidPolicy) -> None:
    rng = np.random.default_rng(8)
    rays, samples, views = 300, 6, 3
    weights = rng.dirichlet(np.full(samples, 0.3), rays)
    invalid = rng.random((rays, samples, views)) < rng.random((rays, 1, 1))
    colours = rng.random((rays, 1, views, 3)) + rng.normal(size=(rays, samples, views, 3)) * rng.choice(
        [1e-3, 0.011, 0.2], (rays, 1, views, 1), p=[0.5, 0.25, 0.25]
    )
    got = losses.invalid_rays(
        tensor(weights, torch.float32), torch.from_numpy(invalid), policy, tensor(colours, torch.float32)
    )
    wanted = [released.invalid_ray(*ray, policy) for ray in zip(weights, invalid, colours, strict=True)]
    assert got.tolist() == wanted
    assert set(wanted) == ({False} if policy == "none" else {False, True})
    errors = rng.random(rays)
    mean = losses.colour_loss(tensor(errors, torch.float32), got, "all").value
    same(mean, released.colour_loss(errors, np.array(wanted)))


def test_diverse_rays_need_colours() -> None:
    with pytest.raises(ValueError, match="colours of the samples"):
        losses.invalid_rays(torch.ones(1, 4), torch.zeros(1, 4, 2, dtype=torch.bool), "weight_guided_diverse")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("version", "kind"), [(1, "metric"), (2, "near"), (3, "normalised")])
def test_depth_loss(version: int, kind: losses.DepthKind, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(9)
    predicted = exact(rng.uniform(-20, 150, (2, 32, 8, 8)))  # refined depth may be negative, nothing masks it
    distance, factor = exact(rng.uniform(3, 80, predicted.shape)), exact(rng.uniform(0.6, 1, predicted.shape))
    mean = losses.depth_consistency(*(tensor(x, dtype) for x in (distance, factor, predicted)), kind)
    same(mean.value, released.depth_loss(predicted, distance, factor, version))
    assert float(mean.count) == predicted.size


def moving_views(seed: int, size: tuple[int, int], behind: bool = False) -> tuple[np.ndarray, ...]:
    """Images [3, H, W] in [-1, 1], depths with some negative ones, intrinsics and a pose that moves forward."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[: size[0], : size[1]].astype(float)
    target = np.stack([0.9 * np.sin(0.2 * u + 0.1 * v + i) for i in range(3)])
    reference = np.stack([0.9 * np.sin(0.2 * u + 0.1 * v + i + 0.4) for i in range(3)])
    depths = [9 + 4 * np.sin(0.1 * u + phase) + 0.1 * v for phase in (0.0, 0.3)]
    depths[0][rng.random(size) < 0.1] *= -3.0
    depths[1][rng.random(size) < 0.1] *= -2.0
    moved = pose(rng, 0.3)
    moved[2, 3] = -15.0 if behind else -0.9
    return tuple(exact(x) for x in (target, reference, *depths, K, moved))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("behind", [False, True])
def test_warp(behind: bool, dtype: torch.dtype) -> None:
    _, *scene = moving_views(10, (16, 24), behind)
    got = warp_official(*(tensor(x, dtype)[None] for x in (scene[0], scene[1][None], scene[2][None], *scene[3:])))
    image, computed, sampled, valid = released.warp(*scene)
    same(got.computed_depth[0, 0], computed)
    # Pixels whose q_z is nearly 0 fly anywhere, in float32 somewhere else.
    steady = np.ones_like(valid) if dtype == torch.float64 else np.abs(computed) > 0.5
    assert (got.valid[0, 0].numpy() == valid)[steady].all()
    scale = 1e-4 if dtype == torch.float32 else 1e-9
    for mine, theirs in ((got.image[0], image), (got.sampled_depth[0], sampled[None])):
        torch.testing.assert_close(
            mine.double()[:, steady], torch.from_numpy(theirs[:, steady]), rtol=scale, atol=scale
        )
    assert (computed[valid] < 0).any(), "points behind the camera count"
    assert behind or (~valid & (image[0] != 0)).any(), "half a pixel beyond the edge still mixes with the zeros outside"
    assert (~valid & (image[0] == 0)).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(32, 48), (64, 96), (112, 160)])
def test_temporal_loss(size: tuple[int, int], dtype: torch.dtype) -> None:
    scene = moving_views(11, size)
    wanted = released.temporal_loss([scene])
    got = losses.temporal_loss_official(
        *(tensor(x, dtype)[None] for x in (scene[0], scene[1], scene[2][None], scene[3][None], *scene[4:]))
    )
    parts = losses.official_value(got.photometric), losses.official_value(got.geometry)
    for mine, theirs in zip((*parts, got.loss), (*wanted, sum(wanted)), strict=True):
        torch.testing.assert_close(
            mine.double(),
            torch.tensor(theirs, dtype=torch.float64),
            rtol=1e-5 if dtype == torch.float32 else 1e-9,
            atol=0,
        )
    # Of 1,536, 6,144 and 17,920 pixels with three channels each, most are valid.
    assert [value > 0 for value in wanted] == {32: [False, False], 64: [True, False], 112: [True, True]}[size[0]]


def test_the_small_sum_rule_looks_at_the_whole_batch() -> None:
    scenes = [moving_views(seed, (48, 96)) for seed in (12, 13, 14)]
    wanted = released.temporal_loss(scenes)
    stacked = [np.stack(x) for x in zip(*scenes, strict=True)]
    stacked[2], stacked[3] = stacked[2][:, None], stacked[3][:, None]
    got = losses.temporal_loss_official(*(tensor(x, torch.float64) for x in stacked))
    same(got.loss, sum(wanted))
    assert wanted[1] > 0 == released.temporal_loss(scenes[:1])[1]


def test_small_sums_give_no_gradient() -> None:
    scene = moving_views(15, (32, 48))
    inputs = [tensor(x, torch.float32)[None] for x in (scene[0], scene[1], scene[2][None], scene[3][None], *scene[4:])]
    inputs[2].requires_grad_()
    (gradient,) = torch.autograd.grad(losses.temporal_loss_official(*inputs).loss, inputs[2])
    assert float(gradient.abs().max()) == 0.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_smoothness(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(16)
    depth = exact(rng.uniform(2, 120, (4, 8, 8)))
    depth[0, 0, 0], depth[1, 3, 3] = -4.0, 0.0
    image, invalid = exact(rng.random((4, 8, 8, 3))), rng.random((4, 8, 8)) < 0.2
    arguments = tensor(depth, dtype), tensor(image, dtype), torch.from_numpy(invalid)
    wanted = released.smoothness(depth, image, invalid)
    same(losses.smoothness(*arguments).value, wanted)
    same(losses.smoothness_reference(*arguments), wanted)


# --- refinement, the total, the sampler and the grid


@pytest.mark.parametrize("dtype", DTYPES)
def test_refined_depth(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(17)
    prior = exact(np.concatenate([rng.uniform(0, 100, 200), [0.01, 0.1, 80.0, 500.0, 80.0, 40.0]]))
    residual = exact(np.concatenate([rng.normal(size=200), [0.0, 3.0, 0.0, -0.12, -0.13, -3.0]]))
    wanted = np.array([released.refine_depth(*pair) for pair in zip(prior, residual, strict=True)])
    assert (wanted < 0).any(), "nothing bounds the refined depth"
    # Where the sum of inverse depths nearly cancels, float32 keeps fewer digits.
    kept = np.abs(wanted) < (200 if dtype == torch.float32 else np.inf)
    got = refine_inverse_depth_official(tensor(prior, dtype), tensor(residual, dtype))
    torch.testing.assert_close(
        got.double()[torch.from_numpy(kept)],
        torch.from_numpy(wanted[kept]),
        rtol=1e-5,
        atol=0 if dtype == torch.float64 else 1e-3,
    )


def test_component_weights() -> None:
    areas = np.random.default_rng(18).integers(2, 20_000, 9).astype(float)
    held = Instances(
        np.tile([10.0, 10.0, 60.0, 50.0], (9, 1)), areas, np.ones(9, dtype=bool), np.zeros((96, 320), dtype=np.uint8)
    )
    for gamma in (0.5, 0.2):
        weights = mixture(held, (96, 320), SnogConfig(gamma=gamma)).weights
        np.testing.assert_allclose(weights, released.component_weights(areas.tolist(), gamma), rtol=1e-12)


def test_occupancy_grid() -> None:
    level = slice_points().astype(np.float64) @ rotation_x(np.deg2rad(-5.0)).T
    np.testing.assert_allclose(level, released.slice_points(), rtol=0, atol=1e-5)
