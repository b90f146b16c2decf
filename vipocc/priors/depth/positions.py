"""Position embeddings of DINOv2 at other sizes than the one it was trained at, as the published code stretches them.

transformers stretches the trained grid to the new number of patches exactly. The published code asks for a *factor*
instead, with a tenth of a patch added to the new side, (w + 0.1) / sqrt(N), so that rounding down cannot lose a row;
torch then places the samples by that factor. At 37 x 123 patches the two differ in depth by up to half a percent.
"""

from __future__ import annotations

from typing import Any

import torch

OFFSET = 0.1
"""Of a patch, added to both sides (DINOv2's `interpolate_offset`, 0.1 in Depth Anything V2)."""


def stretch(embeddings: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return position embeddings [1, 1 + rows * columns, C] from those of a square grid [1, 1 + N, C].

    Bicubic without antialiasing, in float32. A grid of the trained size is returned as it is.

    Source: DINOv2's `interpolate_pos_encoding` as it stands in the Depth Anything V2 release (offset 0.1, antialias
    off; published_system 2.1), read for its arithmetic.
    """
    side = round((embeddings.shape[1] - 1) ** 0.5)
    if rows == columns == side:
        return embeddings
    grid = embeddings[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    factors = ((rows + OFFSET) / side, (columns + OFFSET) / side)
    stretched = torch.nn.functional.interpolate(grid, scale_factor=factors, mode="bicubic", antialias=False)
    assert stretched.shape[-2:] == (rows, columns)
    return torch.cat((embeddings[:, :1], stretched.flatten(2).mT.to(embeddings.dtype)), dim=1)


def use_published_positions(model: Any) -> None:
    """Make a loaded `DepthAnythingForDepthEstimation` stretch its position embeddings by `stretch`, once for each size.

    Only this model is changed: transformers' class stays as it is.
    """
    embeddings = model.backbone.embeddings
    patch = int(embeddings.patch_size)
    kept: dict[tuple[int, int, torch.device], torch.Tensor] = {}

    def interpolate(_tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
        held = embeddings.position_embeddings
        key = (height // patch, width // patch, held.device)
        if key not in kept:
            kept[key] = stretch(held, *key[:2])
        return kept[key]

    embeddings.interpolate_pos_encoding = interpolate
