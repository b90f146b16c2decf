"""Inputs of the golden vectors, and what their printed digits allow."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import numpy as np
import torch
from torch import Tensor

RELATIVE = 1e-5
LEVEL_FROM_VELO = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.1], [1, 0, 0, 0], [0, 0, 0, 1]])


def assert_printed(values: Iterable[float] | Tensor, printed: str) -> None:
    """Compare values with printed numbers: half a unit of the last printed digit, and 1e-5 relative."""
    numbers = printed.split()
    got = [float(value) for value in (values.detach().reshape(-1) if isinstance(values, Tensor) else values)]
    assert len(got) == len(numbers)
    for value, text in zip(got, numbers, strict=True):
        wanted, half = float(text), 0.5 * 10.0 ** int(Decimal(text).as_tuple().exponent)
        assert abs(value - wanted) <= half + RELATIVE * abs(wanted), f"{value!r} is not {text}"


def kitti_360(batch: int = 1) -> Tensor:
    """KITTI-360's intrinsics [B, 3, 3], normalised and rounded, of G6 and G8."""
    matrix = torch.tensor([[0.7849, 0.0, -0.0312], [0.0, 2.9391, 0.2701], [0.0, 0.0, 1.0]])
    return matrix.repeat(batch, 1, 1)


def translation(x: float, y: float, z: float) -> Tensor:
    """A pose [1, 4, 4] without rotation."""
    pose = torch.eye(4)[None].clone()
    pose[0, :3, 3] = torch.tensor([x, y, z])
    return pose


def wave_patch(shift: float, dtype: torch.dtype) -> Tensor:
    """G3's patch [8, 8, 3], computed in `dtype`: rounded from float64 instead, it changes the last printed digits."""
    c, y, x = torch.meshgrid(*(torch.arange(n, dtype=dtype) for n in (3, 8, 8)), indexing="ij")
    return (0.5 + 0.4 * torch.sin(0.7 * c + 0.3 * y + 0.5 * x + shift)).permute(1, 2, 0)


def wave_pair() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """G6's target and reference image [1, 3, 192, 640] and their depths [1, 1, 192, 640], float32."""
    v, u = torch.meshgrid(torch.arange(192.0), torch.arange(640.0), indexing="ij")
    target = torch.stack([0.9 * torch.sin(0.05 * u + 0.03 * v + i) for i in range(3)])[None]
    reference = torch.stack([0.9 * torch.sin(0.05 * u + 0.03 * v + i + 0.1) for i in range(3)])[None]
    depth_target = (10 + 5 * torch.sin(0.01 * u) + 0.02 * v)[None, None]
    depth_reference = (9.5 + 5 * torch.sin(0.01 * u + 0.05) + 0.02 * v)[None, None]
    return target, reference, depth_target, depth_reference


def comb_density() -> Tensor:
    """G4's densities [64] in 1/m."""
    return 0.02 + 0.1 * ((7 * torch.arange(64)) % 5).float()


def ring_scans() -> tuple[list[np.ndarray], np.ndarray]:
    """G9's six scans [1440, 3] and their poses level_from_velo [6, 4, 4]."""
    angle = 2 * np.pi * np.arange(1440) / 1440 - np.pi + 0.001
    radius = 8 + 3 * np.sin(3 * angle)
    sweep = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(1440, -0.5)], axis=-1)
    transforms = np.repeat(LEVEL_FROM_VELO[None], 6, axis=0)
    transforms[:, 2, 3] = np.arange(6)
    return [sweep] * 6, transforms
