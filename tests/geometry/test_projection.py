from __future__ import annotations

import pytest
import torch

from vipocc.errors import UsageError
from vipocc.geometry.ndc import camera_plane
from vipocc.geometry.projection import compose, outside, project, transform

K = torch.tensor([[0.7849, 0.0, -0.0312], [0.0, 2.9391, 0.2701], [0.0, 0.0, 1.0]])


def random_pose(generator: torch.Generator, *batch: int) -> torch.Tensor:
    q, _ = torch.linalg.qr(torch.randn(*batch, 3, 3, generator=generator, dtype=torch.float64))
    pose = torch.eye(4, dtype=torch.float64).expand(*batch, 4, 4).clone()
    pose[..., :3, :3] = q * torch.linalg.det(q)[..., None, None]
    pose[..., :3, 3] = torch.randn(*batch, 3, generator=generator, dtype=torch.float64)
    return pose


def test_projection_inverts_backprojection() -> None:
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(2, 50, 2, generator=generator) * 2 - 1
    depth = torch.rand(2, 50, generator=generator) * 70 + 3
    points = camera_plane(K.expand(2, 3, 3), xy) * depth[..., None]
    back, z = project(points, K.expand(2, 3, 3))
    torch.testing.assert_close(back, xy, atol=1e-5, rtol=0)
    torch.testing.assert_close(z, depth)
    assert not outside(back * 0.999, z).any()


def test_project_is_intrinsics_times_pose_with_gradients() -> None:
    generator = torch.Generator().manual_seed(1)
    pose = random_pose(generator, 3)
    k = K.double().expand(3, 3, 3)
    points = (torch.randn(3, 20, 3, generator=generator, dtype=torch.float64) * 5).requires_grad_()
    twin = points.detach().clone().requires_grad_()
    xy, z = project(points, k, pose)
    moved = torch.einsum("bij,bnj->bni", pose[:, :3, :3], twin) + pose[:, None, :3, 3]
    q = torch.einsum("bij,bnj->bni", k, moved)
    expected_z = q[..., 2].clamp(min=1e-3)
    expected = q[..., :2] / expected_z[..., None]
    torch.testing.assert_close(xy, expected)
    torch.testing.assert_close(z, expected_z)
    weights = torch.randn(xy.shape, generator=generator, dtype=torch.float64)
    ((xy * weights).tanh().sum() + z.log().sum()).backward()
    ((expected * weights).tanh().sum() + expected_z.log().sum()).backward()
    torch.testing.assert_close(points.grad, twin.grad)


def test_points_behind_the_camera_stay_finite_and_are_outside() -> None:
    points = torch.tensor([[[0.0, 0.0, -5.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1e-3], [0.0, 0.0, 5.0]]], requires_grad=True)
    xy, z = project(points, torch.eye(3)[None])
    assert torch.isfinite(xy).all()
    assert outside(xy, z).tolist() == [[True, True, True, False]]
    (xy.sum() + z.sum()).backward()
    assert torch.isfinite(points.grad).all()


def test_the_image_border_is_inside() -> None:
    xy = torch.tensor([[1.0, -1.0], [1.0 + 1e-6, 0.0], [0.0, -1.0 - 1e-6]])
    assert outside(xy, torch.ones(3)).tolist() == [False, True, True]


def test_views_broadcast() -> None:
    generator = torch.Generator().manual_seed(2)
    points = torch.randn(2, 1, 10, 3, generator=generator)
    poses = random_pose(generator, 2, 4).float()
    xy, z = project(points, K.expand(2, 4, 3, 3), poses)
    assert xy.shape == (2, 4, 10, 2)
    assert z.shape == (2, 4, 10)
    one, _ = project(points[1], K[None], poses[1, 2][None])
    torch.testing.assert_close(xy[1, 2], one[0])


def test_autocast_does_not_round_coordinates() -> None:
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(1, 100, 3, generator=generator) * 20 + 1
    pose = random_pose(generator, 1).float()
    xy, z = project(points, K[None], pose)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low_xy, low_z = project(points, K[None], pose)
        product = compose(K[None], pose[:, :3])
    assert low_xy.dtype == torch.float32
    torch.testing.assert_close(low_xy, xy, rtol=0, atol=0)
    torch.testing.assert_close(low_z, z, rtol=0, atol=0)
    torch.testing.assert_close(product, K[None] @ pose[:, :3])


def test_transform_takes_rotations_and_poses() -> None:
    generator = torch.Generator().manual_seed(4)
    pose = random_pose(generator, 1)
    points = torch.randn(1, 6, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(transform(points, pose[:, :3, :3]), points @ pose[:, :3, :3].mT)
    torch.testing.assert_close(transform(points, pose), points @ pose[:, :3, :3].mT + pose[:, None, :3, 3])


def test_shapes_are_told() -> None:
    with pytest.raises(UsageError, match=r"points must have shape \[..., any, 3\], not \[2, 7, 4\]"):
        project(torch.zeros(2, 7, 4), K)
    with pytest.raises(UsageError, match=r"camera_from_points must have shape \[..., 4, 4\], not \[3, 4\]"):
        project(torch.zeros(2, 7, 3), K, torch.zeros(3, 4))
