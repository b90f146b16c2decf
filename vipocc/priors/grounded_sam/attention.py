"""SAM's attention with relative positions, without writing the positions' bias out.

Each score is q·k scaled, plus a term for the distance in rows and one for the distance in columns. Both terms are dot
products too: of what q says of every row (and column), with a vector that is one at the key's own row (and column).
Appended to q and k they let a fused attention kernel form the whole score; written out, the bias of one layer over the
whole image of ViT-H takes half a gigabyte an image. The plain twin is transformers' own `forward`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import functional

_ALIGNED = 8
"""Fused kernels want channels in multiples of this."""


def use_fused_attention(attentions: Iterable[Any]) -> None:
    """Make transformers' SAM attentions run as `fused_attention` where autocast runs in half precision.

    In float32 there is no such kernel, and the module's own way stays.
    """
    for attention in attentions:
        attention.forward = _chooser(attention, attention.forward)


def _chooser(attention: Any, plain: Any) -> Any:
    def forward(hidden_states: torch.Tensor, output_attentions: Any = None) -> Any:
        if hidden_states.is_cuda and torch.is_autocast_enabled("cuda"):
            return fused_attention(attention, hidden_states), None
        return plain(hidden_states, output_attentions)

    return forward


def fused_attention(attention: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Return what `attention` (with `qkv`, `proj`, `rel_pos_h`, `rel_pos_w`) makes of hidden states [B, H, W, C]."""
    batch, height, width, _ = hidden.shape
    heads, scale = attention.num_attention_heads, attention.scale
    qkv = attention.qkv(hidden).reshape(batch, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    channels = query.shape[-1]
    grid = query.reshape(batch, heads, height, width, channels)
    # The kernel scales the whole product, so these terms are divided by the scale first.
    rows = torch.einsum("bnhwc,hkc->bnhwk", grid, attention.get_rel_pos(height, height, attention.rel_pos_h) / scale)
    columns = torch.einsum("bnhwc,wkc->bnhwk", grid, attention.get_rel_pos(width, width, attention.rel_pos_w) / scale)
    own = torch.cat(
        [
            torch.eye(height, device=key.device, dtype=key.dtype).repeat_interleave(width, 0),
            torch.eye(width, device=key.device, dtype=key.dtype).repeat(height, 1),
        ],
        1,
    )
    total = channels + height + width
    padding = -total % _ALIGNED
    query = torch.cat([query, rows.flatten(2, 3).to(query.dtype), columns.flatten(2, 3).to(query.dtype)], -1)
    key = torch.cat([key, own.expand(batch, heads, -1, -1)], -1)
    output = functional.scaled_dot_product_attention(
        functional.pad(query, (0, padding)),
        functional.pad(key, (0, padding)),
        functional.pad(value, (0, total + padding - channels)),
        scale=scale,
    )[..., :channels]
    output = output.reshape(batch, heads, height, width, channels).permute(0, 2, 3, 1, 4)
    result: torch.Tensor = attention.proj(output.reshape(batch, height, width, heads * channels))
    return result
