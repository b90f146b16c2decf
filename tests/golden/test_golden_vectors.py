"""Golden vectors of the released code (published_system section 10): what it printed for inputs anyone can make.

Our functions in the `official` convention, float32, on the CPU. Numbers agree within half a unit of the last printed
digit and 1e-5 relative (`assert_printed`), integers exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from golden.scenes import (
    assert_printed,
    comb_density,
    kitti_360,
    ring_scans,
    translation,
    wave_pair,
    wave_patch,
)

from vipocc.config import load
from vipocc.data_manifests.ground_truth.occupancy import (
    SLICE_GRID,
    SliceGrid,
    angular_profile,
    angular_profile_reference,
    occupancy_ground_truth,
    occupancy_ground_truth_reference,
    slice_grid,
)
from vipocc.data_manifests.ground_truth.occupancy_torch import DeviceSweep, occupancy_ground_truth_torch
from vipocc.data_manifests.ground_truth.sweeps import Sweep
from vipocc.evaluation.occupancy import slice_points
from vipocc.geometry.cameras import Mei, fisheye_table, fisheye_table_ndc_reference
from vipocc.geometry.ndc import depth_factor, intrinsics_from_ndc, ndc_grid, ndc_to_pixel, pixel_to_ndc, ray_directions
from vipocc.geometry.poses import rotation_x, virtual_rotation
from vipocc.geometry.warping import warp_official
from vipocc.model.depth_branch import refine_inverse_depth_official
from vipocc.model.field import depth_code, positional_encoding
from vipocc.model.network import ViPOcc
from vipocc.model.renderer import ColourViews, composite, composite_reference, sample_distances
from vipocc.priors.snog import Instances, SnogConfig, mixture
from vipocc.training import rays
from vipocc.training.losses import colour_error, temporal_loss_official, total

SIZE = (192, 640)


def test_g1_fisheye_table() -> None:
    intrinsics, size, turn = np.array([[0.8, 0, 0], [0, 3, 0.2], [0, 0, 1]]), (4, 6), virtual_rotation(-15.0)
    printed = {(0, 0): "-0.490253 -0.042067", (1, 2): "-0.123394 0.059958", (3, 5): "0.559857 0.233025"}
    plain = fisheye_table_ndc_reference(
        intrinsics, size, xi=2.2, k1=0.017, k2=1.65, gamma1=1.9, gamma2=1.9, u0=0.02, v0=0.01, source_from_target=turn
    )
    # The same camera in pixels of a square image, as datasets give it.
    side = 1400
    camera = Mei(
        2.2, 0.017, 1.65, 0.1, 0.1, 1.9 * side / 2, 1.9 * side / 2, 1.02 * side / 2, 1.01 * side / 2, side, side
    )
    pixels = fisheye_table(intrinsics_from_ndc(intrinsics, size, "official"), size, camera, turn, "official")
    assert pixels.dtype == np.float32
    table = pixel_to_ndc(pixels, (side, side), "official")
    for place, numbers in printed.items():
        assert_printed(plain[place], numbers)
        assert_printed(table[place], numbers)


def test_g2_positional_encoding() -> None:
    assert_printed(
        positional_encoding(torch.tensor([0.1, -0.2, 0.5])),
        """.100000 -.200000 .500000 .149438 -.29552 .681639 .988771 .955337 .731689 .29552 -.564642 .997495 .955337
        .825336 .070737 .564642 -.932039 .14112 .825336 .362358 -.989992 .932039 -.675463 -.279415 .362358 -.737394
        .96017 .675463 .996165 -.536573 -.737394 .087499 .843854 -.996165 .174327 -.905578 .087499 -.984688 .42418""",
    )


@pytest.mark.parametrize(
    ("dtype", "printed"),
    [
        (torch.float32, ".00897123 .02980486 .02359954 .02739462"),
        (torch.float64, ".00897125 .02980516 .02359958 .02739475"),
    ],
)
def test_g3_colour_error(dtype: torch.dtype, printed: str) -> None:
    rendered, target = wave_patch(0.2, dtype)[None, :, :, None], wave_patch(0.0, dtype)[None]
    error = colour_error(rendered, target)[0]
    assert_printed([error[0, 0], error[3, 4], error[7, 7], error.mean()], printed)


@pytest.mark.parametrize("function", [composite, composite_reference])
def test_g4_compositing(function: Callable[..., torch.Tensor]) -> None:
    distances = sample_distances(3.0, 80.0, 64, ())
    assert_printed(distances[[0, 1, 63]], "3.022729 3.069238 66.637741")
    weights = function(comb_density(), distances)
    assert_printed(weights[[0, 10]], ".00092971 .0011478")
    assert_printed(weights[63:], "7e-8")
    assert_printed([weights.sum(), (weights * distances).sum()], ".9999999 7.408806")
    colours = torch.stack([torch.full((64,), 0.25), torch.arange(64) / 63, torch.zeros(64)], dim=-1)
    assert_printed((weights[:, None] * colours).sum(0), ".250000 .50063 0.000000")


def test_g5_refined_depth() -> None:
    prior, residual = torch.tensor([0.05, 3.0, 40.0, 90.0]), torch.tensor([0.3, -0.2, 0.1, -0.12])
    assert_printed(refine_inverse_depth_official(prior, residual), ".099701 3.191489 28.571419 1999.96")


def test_g6_warp() -> None:
    pixels = intrinsics_from_ndc(kitti_360()[0], SIZE, "official")
    assert_printed(pixels[[0, 0, 1, 1], [0, 2, 1, 2]], "251.168 310.016 282.1536 121.9296")
    _, reference, *depths = wave_pair()
    warped = warp_official(reference, *depths, kitti_360(), translation(0.05, -0.02, -0.9))
    assert_printed([warped.valid.double().mean()], ".833927")
    assert_printed([warped.image[0, 0, 100, 300]], "-.645537")
    assert_printed([warped.computed_depth[0, 0, 100, 300]], "11.8056")
    assert_printed([warped.sampled_depth[0, 0, 100, 300]], "11.90112")


def test_g6_temporal_loss() -> None:
    loss = temporal_loss_official(*wave_pair(), kitti_360(), translation(0.05, -0.02, -0.9))
    assert_printed([loss.photometric.value, loss.geometry.value], ".347951 .029743")
    assert_printed([loss.loss], "0.377694")
    assert_printed([loss.geometry.count / (192 * 640), loss.photometric.count / (3 * 192 * 640)], ".833927 .833927")


def test_g7_depth_code() -> None:
    code = depth_code(torch.tensor([3.0, 10.0, 80.0, 100.0, 1.0, 0.0005]))
    assert_printed(code, "1.000000 -.454545 -1.000000 -1.015584 5.155844 6232.688")


def test_g8_rays() -> None:
    printed = {
        (0, 0): "-.74975 -.262494 .607431",
        (191, 639): ".786869 .148738 .598927",
        (96, 320): ".04154 -.089676 .995104",
    }
    whole = ray_directions(kitti_360(), ndc_grid(SIZE, "official").reshape(1, -1, 2)).reshape(*SIZE, 3)
    places = torch.tensor(list(printed)).flip(-1)[None, None, None]  # one patch of a row of three pixels (x, y)
    key = torch.eye(4).repeat(1, 1, 1, 1)
    followed = rays.patch_rays(places, torch.zeros(1, 1, dtype=torch.long), kitti_360()[:, None], key, SIZE, "official")
    factors = rays.patch_depth_factors(places, kitti_360(), SIZE, "official").flatten()
    xy = pixel_to_ndc(places.float().reshape(1, -1, 2), SIZE, "official")
    for number, (place, numbers) in enumerate(printed.items()):
        assert_printed(whole[place], numbers)
        assert_printed(followed.directions[0, number], numbers)
        assert_printed([factors[number]], numbers.split()[2])
        assert_printed([depth_factor(kitti_360(), xy)[0, number]], numbers.split()[2])
    torch.testing.assert_close(ndc_to_pixel(xy, SIZE, "official")[0], places.float().reshape(-1, 2))


def on_torch(sweeps: Sequence[np.ndarray], transforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return occupancy_ground_truth_torch(DeviceSweep.load_all(list(sweeps), "cpu"), transforms)


@pytest.mark.parametrize("compute", [occupancy_ground_truth, occupancy_ground_truth_reference, on_torch])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_g9_occupancy_truth(compute: Callable[..., tuple[np.ndarray, np.ndarray]], dtype: type) -> None:
    sweeps, transforms = ring_scans()
    occupied, visible = compute([sweep.astype(dtype) for sweep in sweeps], transforms)
    assert occupied.shape == visible.shape == (160, 80)
    assert occupied.dtype == visible.dtype == np.bool_
    assert int(occupied.sum()) == 8081
    assert int(visible.sum()) == 2619
    assert int((occupied & ~visible).sum()) == 7855
    assert int(np.flatnonzero(occupied).sum()) % 1_000_003 == 538_888
    assert int(np.flatnonzero(visible).sum()) % 1_000_003 == 449_056


def test_g9_profile() -> None:
    sweeps, transforms = ring_scans()
    for profile in (
        angular_profile(Sweep(sweeps[0]), transforms[0]),
        angular_profile_reference(sweeps[0], transforms[0]),
    ):
        assert profile.shape == (362, 2)
        assert_printed(profile[1], "-3.132866 7.873231")
        assert_printed(profile[181], ".008727 8.009000")
        np.testing.assert_allclose(profile[0], (profile[360, 0] - 2 * np.pi, profile[360, 1]))
        np.testing.assert_allclose(profile[361], (profile[1, 0] + 2 * np.pi, profile[1, 1]))


def test_g10_grid() -> None:
    cells = slice_grid()
    assert cells.shape == (80 * 1 * 160, 3)
    np.testing.assert_array_equal(cells[0], (-4, 0.375, 20))
    np.testing.assert_array_equal(cells[-1], (4, 0.375, 4))
    assert cells[1, 2] == 20.0, "z is the slower axis"
    assert SLICE_GRID.reach == pytest.approx(np.sqrt(416))
    assert SliceGrid(z_range=(50.0, 4.0), rows=460).reach == pytest.approx(50.16, abs=5e-3)
    # What the model is asked: the same cells, in the frame of a camera that looks 5 degrees down.
    level = slice_points().astype(np.float64) @ rotation_x(np.deg2rad(-5.0)).T
    np.testing.assert_allclose(level, cells, rtol=0, atol=1e-5)


def test_g11_total() -> None:
    parts = torch.tensor(0.3151115), torch.tensor(19.2709), torch.tensor(0.6483)
    loss = load(profile="official").training.loss
    assert_printed([total(*parts, weights=(loss.rgb, loss.depth, loss.temporal))], ".7330604")


def test_g12_shapes_of_a_training_forward() -> None:
    narrow = "{name: resnet18, width: 0.125, pretrained: none}"
    config = load(
        profile="official",
        overrides=(
            f"model.encoder={narrow}",
            "model.decoder={widths: [8, 8, 8, 16, 16], channels: 8}",
            "model.field.hidden=8",
            f"model.depth_branch.encoder={narrow}",
            "model.depth_branch.widths=[8, 8, 8, 16, 16]",
        ),
    )
    training = config.training
    rng = np.random.default_rng(0)
    cameras = ["key", "key", "other", "other", "left fisheye", "left fisheye", "right fisheye", "right fisheye"]
    split = rays.choose_split(rng, cameras, [5, 6, 5, 6, 15, 16, 15, 16], training.view_split)
    centres, views = rays.choose_patches(
        rng, split.loss, [None] * 8, count=training.patches, share=training.view_share, size=SIZE, patch=8,
        bounds=training.patch_bounds,
    )  # fmt: skip
    model = ViPOcc(config.model, config.data.convention)
    images, intrinsics = torch.rand(2, 8, 3, *SIZE), kitti_360(16).reshape(2, 8, 3, 3)
    poses, render = torch.eye(4).repeat(2, 8, 1, 1), list(split.render)
    pixels = rays.patch_pixels(torch.from_numpy(centres)[None].expand(2, -1, -1).long(), training.patch_size)
    patch_views = torch.from_numpy(views)[None].expand(2, -1)
    followed = rays.patch_rays(pixels, patch_views, intrinsics, poses, SIZE, model.convention)
    with torch.no_grad():
        features = model.encode(images[:, 0])
        seen = ColourViews(images[:, render], intrinsics[:, render], poses[:, render])
        rendered = model.render(features, intrinsics[:, 0], followed, seen)
        refined = model.refine_depth(images[:, 0], torch.full((2, 1, *SIZE), 9.0))
    of_depth = rays.uniform_centres(rng, training.depth_patches, SIZE, 8, training.patch_bounds)
    depth_pixels = rays.patch_pixels(torch.from_numpy(of_depth)[None].expand(2, -1, -1).long(), training.patch_size)

    # Their rays hold origin, direction, near and far in 8 numbers; near and far are the field's here.
    assert followed.origins.shape == followed.directions.shape == (2, 4096, 3)
    assert rendered.colours is not None
    assert rendered.colours.unflatten(1, (64, 8, 8)).shape == (2, 64, 8, 8, 4, 3)
    assert rendered.invalid is not None
    assert rendered.invalid.unflatten(1, (64, 8, 8)).shape == (2, 64, 8, 8, 64, 4)
    assert rays.patch_colours(images, pixels, patch_views).shape == (2, 64, 8, 8, 3)
    assert rays.patch_values(refined, depth_pixels)[..., None].shape == (2, 32, 8, 8, 1)


def test_g13_parameters() -> None:
    # Less classifiers (2,049,000 and 513,000), unused outputs and the decoder that is never called.
    config = load(
        profile="official", overrides=("model.encoder.pretrained=none", "model.depth_branch.encoder.pretrained=none")
    )
    model = ViPOcc(config.model)

    def count(module: torch.nn.Module) -> int:
        return sum(tensor.numel() for tensor in module.parameters())

    assert count(model.encoder) == 25_557_032 - 2_049_000
    assert count(model.decoder) == 9_328_000 - 147_648
    assert count(model.head) == 6_721
    unused_depth_outputs = sum(9 * channels + 1 for channels in (32, 64, 128))
    assert count(model.depth_branch) == 14_842_236 - 513_000 - unused_depth_outputs
    assert count(model) == 47_022_322


def test_section_2_3_component_weights() -> None:
    kinds, areas = np.ones(3, dtype=np.bool_), np.array([1800.0, 8000.0, 300.0])
    held = Instances(np.array([[0.0, 0.0, 30.0, 60.0]] * 3), areas, kinds, np.zeros((96, 320), dtype=np.uint8))
    assert_printed(mixture(held, (96, 320), SnogConfig()).weights, ".168921 .202537 .128542 .500000")
