"""Density of BTS's head at the samples of rays, as one differentiable operation on plain tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vipocc.geometry.projection import MIN_DEPTH

#: Programs of the backward kernels for each multiprocessor: enough to hide latency, few enough partial sums.
PROGRAMS_PER_PROCESSOR = 4
WARPS = 4


@dataclass(frozen=True)
class Code:
    """The positional code of points, see `vipocc.model.config.FieldConfig`."""

    near: float
    far: float
    frequencies: int
    base: float

    @property
    def columns(self) -> int:
        """How many numbers it has."""
        return 3 + 6 * self.frequencies


def fused_density(
    features: Tensor,
    code_weight: Tensor,
    bias: Tensor,
    output_weight: Tensor,
    output_bias: Tensor,
    origins: Tensor,
    directions: Tensor,
    distances: Tensor,
    intrinsics_ndc: Tensor,
    code: Code,
) -> Tensor:
    """Densities [B, R, S] in 1/m, float32; gradients reach the features and the head, not the rays.

    Args:
        features: [B, hidden, H, W], channels last in memory: what `MLPHead.prepare` made of an image's features.
        code_weight: [hidden, code.columns] part of the hidden layer for the code.
        bias: [hidden] its bias.
        output_weight: [1, hidden].
        output_bias: [1].
        origins: [B, R, 3] of rays in the key camera's frame.
        directions: [B, R, 3] unit vectors.
        distances: [B, R, S] along them; S and hidden are powers of two and at least 16.
        intrinsics_ndc: [B, 3, 3] of the key camera.
        code: of a point.
    """
    result: Tensor = _Density.apply(
        features,
        code_weight,
        bias,
        output_weight,
        output_bias,
        origins.contiguous(),
        directions.contiguous(),
        distances.contiguous(),
        functional.pad(intrinsics_ndc, (0, 1)).contiguous(),
        code,
    )
    return result


class _Density(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        code_weight: Tensor,
        bias: Tensor,
        output_weight: Tensor,
        output_bias: Tensor,
        origins: Tensor,
        directions: Tensor,
        distances: Tensor,
        key: Tensor,
        code: Code,
    ) -> Tensor:
        from vipocc.model.fused.density_kernels import forward_kernel

        batch, rays, samples = distances.shape
        rows = features.permute(0, 2, 3, 1).contiguous()
        head = (
            code_weight.float().t().contiguous(),
            bias.float().contiguous(),
            output_weight.float().reshape(-1).contiguous(),
            output_bias.float(),
        )
        tensors = (rows, *head, origins, directions, distances, key)
        ctx.save_for_backward(*tensors)
        ctx.code, ctx.types = code, tuple(x.dtype for x in (features, code_weight, bias, output_weight, output_bias))
        density = torch.empty_like(distances)
        forward_kernel[(batch * rays,)](
            *tensors,
            density,
            rays,
            features.shape[2],
            features.shape[3],
            *_numbers(code),
            HIDDEN=features.shape[1],
            SAMPLES=samples,
            FREQUENCIES=code.frequencies,
            num_warps=WARPS,
        )
        return density

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from vipocc.model.fused.density_kernels import backward_kernel, weight_kernel

        rows, _, _, _, _, origins, directions, distances, key = tensors = ctx.saved_tensors
        code: Code = ctx.code
        batch, rays, samples = distances.shape
        _, height, width, hidden = rows.shape
        count = batch * rays
        programs = min(count, _programs(rows.device))
        sizes = {"HIDDEN": hidden, "SAMPLES": samples, "FREQUENCIES": code.frequencies, "num_warps": WARPS}
        of_features = torch.zeros_like(rows, dtype=torch.float32)
        # Only its sum over all samples is wanted, in which the rounding of bfloat16 averages out.
        of_hidden = rows.new_empty(count, samples, hidden, dtype=torch.bfloat16 if rows.is_cuda else torch.float32)
        of_output = rows.new_empty(programs, hidden, dtype=torch.float32)
        of_output_bias = rows.new_empty(programs, dtype=torch.float32)
        backward_kernel[(programs,)](
            *tensors,
            gradients[0].contiguous(),
            of_features,
            of_hidden,
            of_output,
            of_output_bias,
            count,
            rays,
            height,
            width,
            *_numbers(code),
            **sizes,
        )
        columns = max(16, 1 << code.columns.bit_length())
        of_code = rows.new_empty(programs, columns, hidden, dtype=torch.float32)
        weight_kernel[(programs,)](
            of_hidden,
            origins,
            directions,
            distances,
            key,
            of_code,
            count,
            rays,
            *_numbers(code),
            COLUMNS=columns,
            **sizes,
        )
        codes = of_code.sum(0)
        results = (
            of_features.permute(0, 3, 1, 2),
            codes[: code.columns].t(),
            codes[code.columns],
            of_output.sum(0)[None],
            of_output_bias.sum()[None],
        )
        typed = (result.to(dtype) for result, dtype in zip(results, ctx.types, strict=True))
        return (*typed, *[None] * 5)


def _numbers(code: Code) -> tuple[float, float, float, float]:
    return code.near, code.far, code.base, MIN_DEPTH


def _programs(device: torch.device) -> int:
    if device.type != "cuda":
        return PROGRAMS_PER_PROCESSOR
    return PROGRAMS_PER_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count
