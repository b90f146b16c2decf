"""Depth Anything V2 written out plainly: what the loaded model is compared with.

From an original state dict (`official.to_official` makes one of a hub's file), one image at a time, in float32, with
nothing of transformers and nothing fast. Sources: DINOv2 (pre-norm blocks, layer scale, exact GELU, eps 1e-6), DPT as
Depth Anything V2 has it (four levels, no batch norm, no class token, corners aligned) and published_system 2.1; the
layers that are tapped and the offset of the position embeddings stand there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vipocc.priors.depth.preprocessing import network_size, preprocess_reference

State = Mapping[str, torch.Tensor]


@torch.no_grad()
def depth_reference(
    state: State, image: NDArray[np.uint8], *, heads: int, taps: Sequence[int], max_depth: float, short_side: int = 518
) -> NDArray[np.float32]:
    """Return depth float32 [H, W] in metres for one RGB image uint8 [H, W, 3].

    Args:
        state: tensors by their original names.
        image: RGB.
        heads: of the encoder's attention.
        taps: the four layers, from 0, whose output the head takes.
        max_depth: metres that a sigmoid of 1 means.
        short_side: pixels that the shorter side goes in with at least.
    """
    patch = state["pretrained.patch_embed.proj.weight"].shape[-1]
    height, width = network_size(image.shape[0], image.shape[1], short_side, patch)
    pixels = preprocess_reference(image[None], (height, width))
    grid = (height // patch, width // patch)
    features = _encode(state, pixels, grid, heads, taps)
    depth = max_depth * torch.sigmoid(_decode(state, features, grid, patch))
    back = functional.interpolate(depth, image.shape[:2], mode="bilinear", align_corners=True)
    return np.asarray(back[0, 0].numpy())


def _encode(
    state: State, pixels: torch.Tensor, grid: tuple[int, int], heads: int, taps: Sequence[int]
) -> list[torch.Tensor]:
    """Return the normalised patch tokens [rows * columns, C] after each tapped block."""
    weight = state["pretrained.patch_embed.proj.weight"]
    patches = functional.conv2d(pixels, weight, state["pretrained.patch_embed.proj.bias"], stride=weight.shape[-1])
    tokens = torch.cat((state["pretrained.cls_token"][0], patches[0].flatten(1).T)) + _positions(state, *grid)
    found = []
    for k in range(max(taps) + 1):
        block = f"pretrained.blocks.{k}"
        attended = _attention(state, f"{block}.attn", _norm(state, f"{block}.norm1", tokens), heads)
        tokens = tokens + state[f"{block}.ls1.gamma"] * attended
        hidden = functional.gelu(_linear(state, f"{block}.mlp.fc1", _norm(state, f"{block}.norm2", tokens)))
        tokens = tokens + state[f"{block}.ls2.gamma"] * _linear(state, f"{block}.mlp.fc2", hidden)
        if k in taps:
            found.append(_norm(state, "pretrained.norm", tokens)[1:])
    return found


def _positions(state: State, rows: int, columns: int) -> torch.Tensor:
    """Return [1 + rows * columns, C]: each channel's trained grid stretched by (side + 0.1) / trained side, bicubic."""
    trained = state["pretrained.pos_embed"][0]
    side = math.isqrt(len(trained) - 1)
    if (rows, columns) == (side, side):
        return trained
    grid = trained[1:].reshape(side, side, -1)
    grid = torch.einsum("yi,xj,ijc->yxc", _cubic(rows, side), _cubic(columns, side), grid)
    return torch.cat((trained[:1], grid.reshape(rows * columns, -1)))


def _cubic(size: int, trained: int) -> torch.Tensor:
    """Return the matrix [size, trained] of bicubic interpolation (a = -0.75, edges repeated), published factor."""
    matrix = torch.zeros(size, trained, dtype=torch.float64)
    for k in range(size):
        at = (k + 0.5) * trained / (size + 0.1) - 0.5
        first = math.floor(at) - 1
        for source in range(first, first + 4):
            x = abs(at - source)
            near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            matrix[k, min(max(source, 0), trained - 1)] += near if x <= 1 else far
    return matrix.float()


def _attention(state: State, name: str, tokens: torch.Tensor, heads: int) -> torch.Tensor:
    query, key, value = (
        part.unflatten(1, (heads, -1)).transpose(0, 1) for part in _linear(state, f"{name}.qkv", tokens).chunk(3, dim=1)
    )
    weights = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1)
    return _linear(state, f"{name}.proj", (weights @ value).transpose(0, 1).flatten(1))


def _decode(state: State, features: Sequence[torch.Tensor], grid: tuple[int, int], patch: int) -> torch.Tensor:
    """Return the logits of depth [1, 1, h, w] at the size of the network's input."""
    levels = []
    for k, tokens in enumerate(features):
        level = _conv(state, f"depth_head.projects.{k}", tokens.T.reshape(1, -1, *grid))
        name = f"depth_head.resize_layers.{k}"
        if k < 2:  # four and two times as large
            weight = state[f"{name}.weight"]
            level = functional.conv_transpose2d(level, weight, state[f"{name}.bias"], stride=weight.shape[-1])
        elif k == 3:  # half as large
            level = _conv(state, name, level, stride=2)
        levels.append(functional.conv2d(level, state[f"depth_head.scratch.layer{k + 1}_rn.weight"], padding=1))
    path = None
    for k in (3, 2, 1, 0):
        name = f"depth_head.scratch.refinenet{k + 1}"
        merged = levels[k] if path is None else path + _residual(state, f"{name}.resConfUnit1", levels[k])
        merged = _residual(state, f"{name}.resConfUnit2", merged)
        size = levels[k - 1].shape[2:] if k else [2 * side for side in merged.shape[2:]]
        path = _conv(state, f"{name}.out_conv", _enlarge(merged, size))
    assert path is not None
    scratch = "depth_head.scratch"
    fine = _enlarge(_conv(state, f"{scratch}.output_conv1", path), [side * patch for side in grid])
    hidden = torch.relu(_conv(state, f"{scratch}.output_conv2.0", fine))
    return _conv(state, f"{scratch}.output_conv2.2", hidden)


def _residual(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    hidden = _conv(state, f"{name}.conv1", torch.relu(x))
    return x + _conv(state, f"{name}.conv2", torch.relu(hidden))


def _enlarge(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return functional.interpolate(x, tuple(size), mode="bilinear", align_corners=True)


def _conv(state: State, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    weight = state[f"{name}.weight"]
    return functional.conv2d(x, weight, state[f"{name}.bias"], stride, padding=weight.shape[-1] // 2)


def _linear(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)
