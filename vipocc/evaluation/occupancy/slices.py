"""The slice in front of the key camera, as points to query, and a network's density there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vipocc.data_manifests.ground_truth.occupancy import SLICE_GRID
from vipocc.evaluation.occupancy.cells import plane_cells
from vipocc.evaluation.protocols import slice_protocol
from vipocc.model.network import ViPOcc


def slice_points() -> NDArray[np.float32]:
    """Return the queried points [12800, 3] in the key camera's frame; rows from far to near, columns left to right."""
    return plane_cells(slice_protocol()).points


@torch.no_grad()
def predict_density(
    model: ViPOcc, images: Tensor, intrinsics_ndc: Tensor, maps: Mapping[str, Tensor] | None = None
) -> NDArray[np.float32]:
    """Return the density [B, 160, 80] in 1/m on the slice, of images [B, 3, H, W] in [0, 1].

    maps: per-pixel maps of the images, by name, for a density head that asks for them.
    """
    points = torch.from_numpy(slice_points()).to(images.device).expand(len(images), -1, -1)
    density = model.density(model.encode_keys(images, intrinsics_ndc, maps), points, intrinsics_ndc)
    return np.asarray(density.reshape(len(images), *SLICE_GRID.shape).float().cpu().numpy())
