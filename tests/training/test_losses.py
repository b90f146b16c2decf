from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vipocc.model.depth_branch import refine_inverse_depth, refine_inverse_depth_official
from vipocc.training.losses import (
    DepthKind,
    Mean,
    colour_error,
    colour_loss,
    depth_consistency,
    invalid_rays,
    masked_mean,
    mostly_unseen,
    smoothness,
    smoothness_reference,
    temporal_loss,
    temporal_loss_official,
    total,
)
from vipocc.training.ssim import ssim_error, window_means, window_means_reference


def intrinsics(batch: int = 1) -> Tensor:
    matrix = torch.tensor([[0.7849, 0.0, -0.0312], [0.0, 2.9391, 0.2701], [0.0, 0.0, 1.0]])
    return matrix.repeat(batch, 1, 1)


def moved(*translation: float) -> Tensor:
    pose = torch.eye(4)[None]
    pose[0, :3, 3] = torch.tensor(translation)
    return pose


def test_colour_error_is_the_smallest_over_views() -> None:
    generator = torch.Generator().manual_seed(0)
    rendered = torch.rand(2, 5, 8, 8, 4, 3, generator=generator)
    target = torch.rand(2, 5, 8, 8, 3, generator=generator)
    each = torch.stack([colour_error(rendered[..., v : v + 1, :], target) for v in range(4)])
    together = colour_error(rendered, target)
    assert together.shape == (2, 5, 8, 8)
    torch.testing.assert_close(together, each.amin(0))
    rendered[..., 2, :] = target
    assert float(colour_error(rendered, target).max()) < 1e-6


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_window_means_equal_the_convolution(dtype: torch.dtype, close: float) -> None:
    generator = torch.Generator().manual_seed(2)
    for shape in ((8, 8), (2, 3, 1, 1), (4, 5, 2), (3, 2, 7, 9)):
        values = torch.rand(shape, generator=generator, dtype=dtype).requires_grad_()
        seen = torch.rand(shape, generator=generator, dtype=dtype)
        fast, plain = (function(values) for function in (window_means, window_means_reference))
        torch.testing.assert_close(fast, plain, rtol=close, atol=close)
        of_fast, of_plain = (torch.autograd.grad((means * seen).sum(), values)[0] for means in (fast, plain))
        torch.testing.assert_close(of_fast, of_plain, rtol=close, atol=close)


@pytest.mark.gpu
def test_colour_errors_on_cuda_are_those_of_the_cpu_with_tf32_allowed() -> None:
    generator = torch.Generator().manual_seed(3)
    target = torch.rand(16, 8, 8, 3, generator=generator)
    rendered = target[..., None, :] + 0.05 * torch.randn(16, 8, 8, 4, 3, generator=generator)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        on_cuda = colour_error(rendered.cuda(), target.cuda()).cpu()
    torch.testing.assert_close(on_cuda, colour_error(rendered, target), rtol=1e-3, atol=1e-5)


def test_ssim_error_is_bounded() -> None:
    black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    assert float(ssim_error(black, black).max()) == 0.0
    assert 0.49 < float(ssim_error(black, white)[..., 1:-1, 1:-1].mean()) <= 0.5


def test_colour_error_gradient_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    rendered = torch.rand(1, 4, 4, 2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.rand(1, 4, 4, 3, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r: colour_error(r, target), (rendered,))


def test_invalid_rays() -> None:
    weights = torch.tensor([[0.05, 0.91, 0.04], [0.5, 0.45, 0.05], [1.0, 0.0, 0.0]])
    invalid = torch.zeros(3, 3, 2, dtype=torch.bool)
    invalid[0, 1] = True  # 0.91 of the weight, both views
    invalid[1, :2] = True  # 0.95 in both views
    invalid[2, 0, 0] = True  # one view only
    assert invalid_rays(weights, invalid).tolist() == [True, True, False]
    invalid[1, 1, 1] = False
    assert invalid_rays(weights, invalid).tolist() == [True, False, False]
    assert invalid_rays(weights, invalid, "strict").tolist() == [True, True, False]
    assert invalid_rays(weights, invalid, "none").tolist() == [False, False, False]


def test_colour_loss_averages_as_asked_and_leaves_invalid_rays_alone() -> None:
    error = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    invalid = torch.tensor([False, True, False])
    assert float(colour_loss(error, invalid).value.detach()) == pytest.approx(3.5)
    everything = colour_loss(error, invalid, "all")
    assert float(everything.value.detach()) == pytest.approx(7.0 / 3.0)
    (gradient,) = torch.autograd.grad(everything.value, error)
    assert gradient.tolist() == pytest.approx([1 / 3, 0.0, 1 / 3])
    assert float(colour_loss(error, torch.ones(3, dtype=torch.bool)).value.detach()) == 0.0


def test_means_of_parts_add_up() -> None:
    values, valid = torch.rand(10), torch.rand(10) > 0.4
    whole, first, second = (masked_mean(values[s], valid[s]) for s in (slice(None), slice(0, 3), slice(3, None)))
    joined = Mean(first.total + second.total, first.count + second.count)
    torch.testing.assert_close(joined.value, whole.value)
    torch.testing.assert_close(whole.value, values[valid].mean())


def test_depth_consistency() -> None:
    distance = torch.tensor([10.0, 20.0, 30.0], requires_grad=True)
    refined = torch.tensor([9.0, float("nan"), 20.0], requires_grad=True)
    mean = depth_consistency(distance, torch.tensor([0.9, 0.5, 0.8]), refined)
    assert float(mean.count) == 2.0
    assert float(mean.value.detach()) == pytest.approx((0.0 + 4.0) / 2)
    of_distance, of_refined = torch.autograd.grad(mean.value, (distance, refined))
    assert of_distance.tolist()[1:] == pytest.approx([0.0, 0.4])
    assert of_refined.tolist()[1:] == pytest.approx([0.0, -0.5])


def test_released_rule_drops_small_sums() -> None:
    images, depth = torch.rand(1, 3, 64, 64), torch.full((1, 1, 64, 64), 9.0, requires_grad=True)
    out = temporal_loss_official(images, images.flip(-1), depth, depth, intrinsics(), moved(0.0, 0.0, 0.0))
    assert 3_000 < float(out.geometry.count) <= 10_000 < float(out.photometric.count)
    assert float(out.loss.detach()) == pytest.approx(float(out.photometric.value.detach()))
    little = temporal_loss_official(
        images[..., :40], images[..., :40], depth[..., :40], depth[..., :40], intrinsics(), moved(0.5, 0.0, 0.0)
    )
    assert float(little.photometric.count) <= 10_000
    (gradient,) = torch.autograd.grad(little.loss, depth)
    assert float(little.loss.detach()) == 0.0
    assert float(gradient.abs().max()) == 0.0


@pytest.mark.parametrize("official", [False, True])
def test_missing_depths_are_left_out_and_give_no_gradient(official: bool) -> None:
    image, depth = scene(96, 160)
    refine = refine_inverse_depth_official if official else refine_inverse_depth
    loss_of = temporal_loss_official if official else temporal_loss
    priors, holes = [depth, depth * 1.1], torch.zeros_like(depth, dtype=torch.bool)
    holes[..., 20:30, 40:60] = True

    def run(first: Tensor, second: Tensor) -> tuple[Tensor, list[Tensor], float]:
        outputs = [torch.zeros_like(depth).requires_grad_() for _ in priors]
        refined = [refine(prior, output) for prior, output in zip((first, second), outputs, strict=True)]
        out = loss_of(image, image.roll(2, dims=-1), *refined, intrinsics(), moved(0.05, 0.0, -0.3))
        gradients = torch.autograd.grad(out.loss, outputs, allow_unused=True)
        return out.loss, [g for g in gradients if g is not None], float(out.geometry.count)

    _, _, everything = run(*priors)
    for number in range(2):
        torn = [torch.where(holes, torch.nan, prior) if at == number else prior for at, prior in enumerate(priors)]
        loss, gradients, counted = run(*torn)
        assert math.isfinite(float(loss.detach()))
        # A hole in the second depth also takes the places whose lookup touches it.
        assert everything - 1.5 * 200 <= counted <= everything - 200
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        if number == 0:
            assert float(gradients[0][holes].abs().max()) == 0.0


def scene(height: int = 64, width: int = 96) -> tuple[Tensor, Tensor]:
    v, u = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    image = torch.stack([torch.sin(0.3 * u + 0.2 * v + i) for i in range(3)])[None] * 0.9
    return image, (10 + 2 * torch.sin(0.1 * u) + 0.02 * v)[None, None]


def test_temporal_loss_of_one_view_with_itself_is_zero() -> None:
    image, depth = scene()
    out = temporal_loss(image, image, depth, depth, intrinsics(), moved(0.0, 0.0, 0.0))
    assert float(out.loss) < 1e-5
    assert float(out.photometric.count) == 3 * 64 * 96
    assert float(out.geometry.value) < 1e-5


def test_temporal_loss_follows_its_equation() -> None:
    image, depth = scene()
    reference, other = image.roll(3, dims=-1), depth * 1.3
    out = temporal_loss(image, reference, depth, other, intrinsics(), moved(0.0, 0.0, 0.0))
    mask = 1.0 - 0.3 / 2.3
    assert float(out.geometry.value) == pytest.approx(0.3 / 2.3, rel=1e-4)
    assert float(out.loss) == pytest.approx(mask * float((image - reference).abs().mean()), rel=1e-4)


def test_points_behind_the_reference_do_not_count() -> None:
    image, depth = scene()
    out = temporal_loss(image, image, depth, depth, intrinsics(), moved(0.0, 0.0, -50.0))
    assert float(out.photometric.count) == 0.0
    assert float(out.loss) == 0.0


def test_the_weight_mask_is_a_constant_to_the_gradient() -> None:
    image, depth = scene()
    first, second = depth.clone().requires_grad_(), depth.clone().mul(1.2).requires_grad_()
    flat = torch.full_like(image, 0.5)
    loss = temporal_loss(flat, -flat, first, second, intrinsics(), moved(0.1, 0.0, 0.1)).loss
    of_first, of_second = torch.autograd.grad(loss, (first, second), allow_unused=True)
    # Flat images leave only the mask to depend on depth; through it, a pixel's gradient would be about 1/(16 N) = 1e-5.
    assert float(loss.detach()) > 0.5
    assert of_first is not None
    assert float(of_first.abs().max()) < 1e-6
    assert of_second is None


def test_the_gradient_moves_depth_towards_the_truth() -> None:
    image, _ = scene()
    truth = torch.full((1, 1, 64, 96), 8.0)
    pose = moved(0.2, 0.0, 0.0)
    v, u = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    shift = 0.2 * 0.7849 / 2 * 96 / 8.0
    reference = torch.stack([torch.sin(0.3 * (u - shift) + 0.2 * v + i) for i in range(3)])[None] * 0.9
    near_truth = temporal_loss(image, reference, truth, truth, intrinsics(), pose).loss
    off = (truth * 1.4).requires_grad_()
    loss = temporal_loss(image, reference, off, truth, intrinsics(), pose).loss
    assert float(near_truth) < 0.1 * float(loss.detach())
    (gradient,) = torch.autograd.grad(loss, off)
    assert float((gradient > 0).float().mean()) > 0.8


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from([0.0, 1e-3, 1.0, 1e6]),
    st.sampled_from([0.05, 3.0, 80.0, 1000.0]),
    st.booleans(),
)
def test_losses_and_gradients_are_finite_for_any_output(seed: int, scale: float, prior: float, holes: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (1, 1, 64, 96)
    output = (torch.randn(shape, generator=generator) * scale).requires_grad_()
    priors = torch.full(shape, prior) * (0.2 + torch.rand(shape, generator=generator))
    if holes:
        priors[torch.rand(shape, generator=generator) < 0.3] = float("nan")
    image, _ = scene()
    depth = refine_inverse_depth(priors, output)
    temporal = temporal_loss(image, image.flip(-1), depth, depth.flip(-1), intrinsics(), moved(0.1, 0.0, -0.8)).loss
    consistency = depth_consistency(torch.full(shape, 20.0), torch.full(shape, 0.9), depth).value
    loss = total(torch.tensor(0.3), consistency, temporal)
    assert math.isfinite(float(loss.detach()))
    (gradient,) = torch.autograd.grad(loss, output)
    assert torch.isfinite(gradient).all()


def test_the_total_adds_what_there_is() -> None:
    parts = tuple(torch.tensor(value) for value in (0.5, 20.0, 0.6, 0.3))
    assert float(total(*parts, weights=(1.0, 0.0025, 0.005, 0.001))) == pytest.approx(0.5 + 0.05 + 0.003 + 0.0003)
    assert float(total(*parts[:3], weights=(2.0, 0.005, 0.01))) == pytest.approx(1.0 + 0.1 + 0.006)
    assert float(total(parts[0], None, parts[2])) == pytest.approx(0.5 + 0.003)
    assert float(total(parts[0])) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["near", "normalised"])
def test_other_depth_kinds_leave_out_missing_priors_and_stay_finite(kind: DepthKind) -> None:
    distance = torch.tensor([4.0, 30.0, 50.0, 7.0], requires_grad=True)
    refined = torch.tensor([5.0, float("nan"), 40.0, 10.0], requires_grad=True)
    mean = depth_consistency(distance, torch.ones(4), refined, kind)
    assert float(mean.count) == 3.0
    place = torch.tensor([0.0, 1.0, 5 / 35])
    expected = (
        torch.tensor([1.0, 10.0, 3.0]) * (1 - place) if kind == "near" else place - torch.tensor([0.0, 1.0, 3 / 46])
    )
    assert float(mean.value.detach()) == pytest.approx(float(expected.abs().mean()), rel=1e-6)
    for gradient in torch.autograd.grad(mean.value, (distance, refined)):
        assert torch.isfinite(gradient).all()
        assert gradient[1] == 0.0
    nothing = depth_consistency(distance, torch.ones(4), torch.full((4,), float("nan")), kind).value
    assert float(nothing.detach()) == 0.0
    even = depth_consistency(
        torch.full((4,), 9.0), torch.ones(4), torch.full((4,), 9.0, requires_grad=True), kind
    ).value
    assert math.isfinite(float(even.detach()))


def test_smoothness_is_zero_on_planes_of_inverse_depth_and_spares_edges() -> None:
    flat, colours = torch.full((2, 8, 8), 7.0), torch.rand(2, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    seen = torch.zeros(2, 8, 8, dtype=torch.bool)
    assert float(smoothness(flat, colours, seen).value) == 0.0
    step = flat.clone()
    step[..., 4:] = 14.0
    plain = torch.full_like(colours, 0.5)
    edged = plain.clone()
    edged[..., 4:, :] = 1.0
    rough, along_an_edge = (float(smoothness(step, image, seen).value) for image in (plain, edged))
    # Inverse depth 4/3 and 2/3 of its mean: one step of 2/3 in each row of eight.
    assert rough == pytest.approx(2 / 3 / 8)
    assert along_an_edge == pytest.approx(rough * math.exp(-0.5))
    hidden = seen.clone()
    hidden[0] = True
    assert float(smoothness(step, plain, hidden).value) == pytest.approx(rough / 2)
    assert float(smoothness(step, plain, hidden, "valid").value) == pytest.approx(rough)
    assert float(smoothness(step, plain, torch.ones_like(seen), "valid").value) == 0.0


def test_smoothness_equals_its_twin_and_its_gradient_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    depth = (torch.rand(3, 5, 6, generator=generator, dtype=torch.float64) * 60 + 3).requires_grad_()
    colours = torch.rand(3, 5, 6, 3, generator=generator, dtype=torch.float64)
    invalid = torch.rand(3, 5, 6, generator=generator) < 0.3
    fast, plain = smoothness(depth, colours, invalid).value, smoothness_reference(depth, colours, invalid)
    torch.testing.assert_close(fast, plain)
    of_fast, of_plain = (torch.autograd.grad(loss, depth)[0] for loss in (fast, plain))
    torch.testing.assert_close(of_fast, of_plain)
    assert torch.autograd.gradcheck(lambda d: smoothness(d, colours, invalid).value, (depth,))


def test_mostly_unseen_is_what_the_samples_say() -> None:
    g = torch.Generator().manual_seed(4)
    weights = torch.rand(40, 8, generator=g).softmax(-1)
    invalid = torch.rand(40, 8, 2, generator=g) < torch.rand(40, 1, 1, generator=g) * 1.5
    unseen = (weights[..., None] * invalid).sum(-2)
    found = mostly_unseen(unseen)
    assert 0 < found.sum() < 40
    assert torch.equal(found, invalid_rays(weights, invalid))
    assert not mostly_unseen(unseen, "none").any()
    with pytest.raises(ValueError, match="single samples"):
        mostly_unseen(unseen, "strict")
