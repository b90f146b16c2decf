"""SAM's tables of positions cut to an image that does not fill the square.

The square input holds the image at its top left and zeros elsewhere. So the patches of the image keep the first rows
and columns of the absolute table, and the distances between them the middle of the relative ones: cutting, where
interpolating would stretch the positions that the weights know. Windowed layers work on windows of one size always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class PositionTables:
    """The position tables of a SAM encoder: whole as loaded, and as many rows and columns of them as an image needs."""

    def __init__(self, encoder: Any, attentions: Sequence[Any]) -> None:
        """Take the tables.

        Args:
            encoder: has `pos_embed` [1, S, S, C].
            attentions: of the layers that attend over the whole image; each has `rel_pos_h`, `rel_pos_w` [2 S - 1, c].
        """
        self.encoder, self.attentions = encoder, tuple(attentions)
        self.grid = int(encoder.pos_embed.shape[1])
        self._whole = encoder.pos_embed.detach()
        self._relative = [(each.rel_pos_h.detach(), each.rel_pos_w.detach()) for each in self.attentions]
        self._fitted = (self.grid, self.grid)

    def fit(self, rows: int, columns: int) -> None:
        """Make the encoder take images of `rows` times `columns` patches."""
        if (rows, columns) == self._fitted:
            return
        device = self.encoder.pos_embed.device
        self.encoder.pos_embed = _parameter(self._whole[:, :rows, :columns], device)
        for each, (vertical, horizontal) in zip(self.attentions, self._relative, strict=True):
            each.rel_pos_h = _parameter(self._distances(vertical, rows), device)
            each.rel_pos_w = _parameter(self._distances(horizontal, columns), device)
        self._fitted = (rows, columns)

    def _distances(self, table: torch.Tensor, count: int) -> torch.Tensor:
        return table[self.grid - count : self.grid + count - 1]


def _parameter(table: torch.Tensor, device: torch.device) -> nn.Parameter:
    return nn.Parameter(table.to(device).contiguous(), requires_grad=False)
