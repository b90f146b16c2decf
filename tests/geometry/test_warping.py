from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vipocc.errors import UsageError
from vipocc.geometry.ndc import Convention, intrinsics_to_ndc
from vipocc.geometry.warping import backproject, warp, warp_official

K = torch.tensor([[[0.7849, 0.0, -0.0312], [0.0, 2.9391, 0.2701], [0.0, 0.0, 1.0]]])


def shifted(x: float, y: float, z: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    pose = torch.eye(4, dtype=dtype)[None].clone()
    pose[0, :3, 3] = torch.tensor([x, y, z], dtype=dtype)
    return pose


def test_official_warp_keeps_points_behind_the_camera() -> None:
    depth = torch.full((1, 1, 8, 12), 2.0)
    result = warp_official(torch.ones(1, 1, 8, 12), depth, depth, K, shifted(0, 0, -4.0))
    assert (result.computed_depth < 0).all()
    assert result.valid.any()
    clean = warp(torch.ones(1, 1, 8, 12), depth, K, shifted(0, 0, -4.0), "centre")
    assert not clean.valid.any()
    assert torch.isfinite(clean.image).all()


def test_warping_by_no_motion_returns_the_image() -> None:
    image = torch.rand(2, 3, 12, 40, generator=torch.Generator().manual_seed(0))
    depth = torch.rand(2, 1, 12, 40, generator=torch.Generator().manual_seed(1)) * 50 + 3
    result = warp(image, depth, K.expand(2, 3, 3), torch.eye(4).expand(2, 4, 4), "centre")
    torch.testing.assert_close(result.image, image, atol=1e-4, rtol=0)
    torch.testing.assert_close(result.depth, depth)
    # Rounding decides at the border only in the official convention; pixel centres lie half a pixel inside.
    assert result.valid.all()


def test_a_plane_warps_by_its_disparity() -> None:
    # A camera moved right by one pixel's disparity sees the plane one pixel to the left.
    size = (10, 30)
    k = intrinsics_to_ndc(torch.tensor([[[20.0, 0, 15.0], [0, 20.0, 5.0], [0, 0, 1.0]]]), size, "centre")
    reference = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))
    depth = torch.full((1, 1, *size), 8.0)
    result = warp(reference, depth, k, shifted(-8.0 / 20.0, 0, 0), "centre")
    torch.testing.assert_close(result.image[..., 1:], reference[..., :-1], atol=1e-5, rtol=0)
    assert result.valid[..., 1:].all()
    assert not result.valid[..., 0].any()


@pytest.mark.parametrize("convention", ["centre", "official"])
def test_backproject_matches_the_matrix_inverse(convention: Convention) -> None:
    depth = torch.rand(1, 1, 5, 7, dtype=torch.float64) + 1
    points = backproject(depth, K.double(), convention).reshape(5, 7, 3)
    x = 2 * (3 + 0.5) / 7 - 1 if convention == "centre" else 2 * 3 / 6 - 1
    y = 2 * (4 + 0.5) / 5 - 1 if convention == "centre" else 2 * 4 / 4 - 1
    expected = torch.linalg.inv(K[0].double()) @ torch.tensor([x, y, 1.0], dtype=torch.float64) * depth[0, 0, 4, 3]
    torch.testing.assert_close(points[4, 3], expected)


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 2, 6, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    depth = (torch.rand(1, 1, 6, 9, generator=generator, dtype=torch.float64) * 4 + 5).requires_grad_()
    pose = shifted(0.11, -0.03, -0.4, torch.float64)

    def clean(image: torch.Tensor, depth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        result = warp(image, depth, K.double(), pose, "centre")
        return result.image, result.depth

    def official(image: torch.Tensor, depth: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return warp_official(image, depth, depth + 0.3, K.double(), pose)[:3]

    assert torch.autograd.gradcheck(clean, (image, depth), eps=1e-7, atol=1e-4)
    assert torch.autograd.gradcheck(official, (image, depth), eps=1e-7, atol=1e-4)


def test_official_and_centre_agree_up_to_a_pixel() -> None:
    v, u = torch.meshgrid(torch.arange(48.0), torch.arange(160.0), indexing="ij")
    smooth = torch.sin(0.05 * u + 0.04 * v)[None, None]
    depth = torch.full_like(smooth, 12.0)
    official = warp_official(smooth, depth, depth, K, shifted(0.1, 0.0, -0.5))
    centre = warp(smooth, depth, K, shifted(0.1, 0.0, -0.5), "centre")
    inside = functional.max_pool2d((~(official.valid & centre.valid)).float(), 3, 1, 1) == 0
    difference = (official.image - centre.image).abs()[inside]
    assert 1e-4 < difference.max().item() < 0.09


def test_shapes_are_told() -> None:
    with pytest.raises(UsageError, match=r"depth must be \[1, 1, 8, 12\] .* not \[1, 1, 8, 11\]"):
        warp(torch.zeros(1, 3, 8, 12), torch.ones(1, 1, 8, 11), K, torch.eye(4)[None], "centre")
    with pytest.raises(UsageError, match=r"reference_from_target must have shape \[1, 4, 4\], not \[3, 4, 4\]"):
        warp(torch.zeros(1, 3, 8, 12), torch.ones(1, 1, 8, 12), K, torch.eye(4).expand(3, 4, 4), "centre")
    with pytest.raises(UsageError, match=r"depth must have shape \[any, 1, any, any\], not \[8, 12\]"):
        backproject(torch.ones(8, 12), K, "centre")


def test_a_place_that_is_no_number_costs_a_number_and_no_process() -> None:
    """The gradient of grid_sample on the CPU ends the process there."""
    reference, depth = torch.rand(1, 3, 8, 8), torch.full((1, 1, 8, 8), 5.0)
    depth[0, 0, 3, 3] = torch.nan
    depth.requires_grad_()
    pose = torch.eye(4)[None]
    pose[0, 0, 3] = 0.1
    warped = warp(reference, depth, torch.eye(3)[None], pose, "centre")
    warped.image.sum().backward()
    official = warp_official(reference, depth, depth.detach(), torch.eye(3)[None], pose)
    official.image.sum().backward()
    others = torch.ones(8, 8, dtype=torch.bool)
    others[3, 3] = False
    assert depth.grad is not None
    assert torch.isfinite(depth.grad[0, 0][others]).all()
    assert torch.isnan(depth.grad[0, 0, 3, 3]), "it is not hidden from whoever looks for it"
