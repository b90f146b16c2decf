"""Triton kernels of BTS's density head: one program takes the S points of a ray as rows of matrices [S, HIDDEN]."""

from __future__ import annotations

import triton
import triton.language as tl

from vipocc.model.fused.lookup import corners, lookup, points_on_ray, project, scatter, sine_cosine


@triton.jit
def _depth_code(z, near, far):
    return (1.0 / z - 1.0 / far) / (1.0 / near - 1.0 / far) * 2.0 - 1.0


@triton.jit
def _add_waves(hidden, x, weight, AXIS: tl.constexpr, base, HIDDEN: tl.constexpr, FREQUENCIES: tl.constexpr):
    """Add to a hidden layer [S, HIDDEN] what one coordinate [S] of the positional code gives it.

    Each octave's sine and cosine follow from the one before: doubling is exact for the published angles too, and five
    of them keep six digits.
    """
    channel = tl.arange(0, HIDDEN)
    hidden += x[:, None] * tl.load(weight + AXIS * HIDDEN + channel)[None, :]
    sine, cosine = sine_cosine(x * base)
    for octave in range(FREQUENCIES):
        row = weight + (3 + 6 * octave + AXIS) * HIDDEN + channel
        hidden += sine[:, None] * tl.load(row)[None, :] + cosine[:, None] * tl.load(row + 3 * HIDDEN)[None, :]
        sine, cosine = 2.0 * sine * cosine, 1.0 - 2.0 * sine * sine
    return hidden


@triton.jit
def _hidden(
    features,
    code_weight,
    bias,
    u,
    v,
    z,
    height,
    width,
    near,
    far,
    base,
    HIDDEN: tl.constexpr,
    FREQUENCIES: tl.constexpr,
):
    """Hidden layer [S, HIDDEN] before its activation."""
    x0, x1, y0, y1, right, lower = corners(u, v, height, width)
    hidden = lookup(features, x0, x1, y0, y1, right, lower, width, HIDDEN)
    hidden += tl.load(bias + tl.arange(0, HIDDEN))[None, :]
    hidden = _add_waves(hidden, u, code_weight, 0, base, HIDDEN, FREQUENCIES)
    hidden = _add_waves(hidden, v, code_weight, 1, base, HIDDEN, FREQUENCIES)
    return _add_waves(hidden, _depth_code(z, near, far), code_weight, 2, base, HIDDEN, FREQUENCIES)


@triton.jit
def forward_kernel(
    features,  # [B, H, W, HIDDEN]
    code_weight,  # [codes, HIDDEN]
    bias,  # [HIDDEN]
    output_weight,  # [HIDDEN]
    output_bias,  # [1]
    origins,  # [B * R, 3]
    directions,  # [B * R, 3]
    distances,  # [B * R, SAMPLES]
    key,  # [B, 3, 4] projection into the key camera
    density,  # [B * R, SAMPLES]
    rays,  # R
    height,
    width,
    near,
    far,
    base,
    eps,
    HIDDEN: tl.constexpr,
    SAMPLES: tl.constexpr,
    FREQUENCIES: tl.constexpr,
):
    """Densities at the samples of one ray."""
    ray = tl.program_id(0).to(tl.int64)
    image = ray // rays
    sample = tl.arange(0, SAMPLES)
    t = tl.load(distances + ray * SAMPLES + sample)
    x, y, z, _central = points_on_ray(origins, directions, ray, t)
    u, v, depth = project(x, y, z, key + image * 12, eps)
    rows = features + image * height * width * HIDDEN
    hidden = _hidden(rows, code_weight, bias, u, v, depth, height, width, near, far, base, HIDDEN, FREQUENCIES)
    output = tl.load(output_weight + tl.arange(0, HIDDEN))
    result = tl.sum(tl.maximum(hidden, 0.0) * output[None, :], 1) + tl.load(output_bias)
    softplus = tl.maximum(result, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(result)))
    tl.store(density + ray * SAMPLES + sample, softplus)


@triton.jit
def backward_kernel(
    features,
    code_weight,
    bias,
    output_weight,
    output_bias,
    origins,
    directions,
    distances,
    key,
    density_gradient,  # [B * R, SAMPLES]
    feature_gradient,  # [B, H, W, HIDDEN] float32, added to
    hidden_gradient,  # [B * R, SAMPLES, HIDDEN] of the hidden layer before its activation
    output_gradient,  # [PROGRAMS, HIDDEN] of the output layer's weight
    output_bias_gradient,  # [PROGRAMS]
    count,  # B * R
    rays,
    height,
    width,
    near,
    far,
    base,
    eps,
    HIDDEN: tl.constexpr,
    SAMPLES: tl.constexpr,
    FREQUENCIES: tl.constexpr,
):
    """Gradients of every PROGRAMS-th ray, but for the hidden layer's weights, which `weight_kernel` sums up."""
    program = tl.program_id(0)
    sample, channel = tl.arange(0, SAMPLES), tl.arange(0, HIDDEN)
    output = tl.load(output_weight + channel)
    of_output = tl.zeros([HIDDEN], tl.float32)
    of_output_bias = 0.0
    wide = (program * 0).to(tl.int64)
    for number in range(program, count, tl.num_programs(0)):
        ray = wide + number
        image = ray // rays
        t = tl.load(distances + ray * SAMPLES + sample)
        x, y, z, central = points_on_ray(origins, directions, ray, t)
        u, v, depth = project(x, y, z, key + image * 12, eps)
        rows = features + image * height * width * HIDDEN
        hidden = _hidden(rows, code_weight, bias, u, v, depth, height, width, near, far, base, HIDDEN, FREQUENCIES)
        active = tl.maximum(hidden, 0.0)
        result = tl.sum(active * output[None, :], 1) + tl.load(output_bias)
        small = tl.exp(-tl.abs(result))
        slope = tl.where(result >= 0.0, 1.0, small) / (1.0 + small)
        by_result = tl.load(density_gradient + ray * SAMPLES + sample) * slope
        of_output += tl.sum(active * by_result[:, None], 0)
        of_output_bias += tl.sum(by_result, 0)
        by_hidden = tl.where(hidden > 0.0, by_result[:, None] * output[None, :], 0.0)
        tl.store(hidden_gradient + (ray * SAMPLES + sample)[:, None] * HIDDEN + channel[None, :], by_hidden)

        x0, x1, y0, y1, right, lower = corners(u, v, height, width)
        into = feature_gradient + image * height * width * HIDDEN
        if central:
            # All samples looked at one place: one addition for the whole ray. (Rounding may part their corners at a
            # pixel's very edge, where both have the same share.)
            none = tl.arange(0, 1) * 0
            cx0, cx1, cy0, cy1 = none + tl.min(x0, 0), none + tl.min(x1, 0), none + tl.min(y0, 0), none + tl.min(y1, 0)
            to_right, to_lower = none + tl.sum(right, 0) / SAMPLES, none + tl.sum(lower, 0) / SAMPLES
            scatter(into, tl.sum(by_hidden, 0)[None, :], cx0, cx1, cy0, cy1, to_right, to_lower, width, HIDDEN)
        else:
            scatter(into, by_hidden, x0, x1, y0, y1, right, lower, width, HIDDEN)
    tl.store(output_gradient + program * HIDDEN + channel, of_output)
    tl.store(output_bias_gradient + program, of_output_bias)


@triton.jit
def weight_kernel(
    hidden_gradient,  # [B * R, SAMPLES, HIDDEN]
    origins,
    directions,
    distances,
    key,
    gradient,  # [PROGRAMS, COLUMNS, HIDDEN]
    count,  # B * R
    rays,
    near,
    far,
    base,
    eps,
    HIDDEN: tl.constexpr,
    SAMPLES: tl.constexpr,
    FREQUENCIES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Gradient of the hidden layer's weights for the code, and in the row behind them of its bias."""
    program = tl.program_id(0)
    sample, channel, column = tl.arange(0, SAMPLES), tl.arange(0, HIDDEN), tl.arange(0, COLUMNS)
    wave = tl.maximum(column - 3, 0) // 3
    frequency = base * tl.exp2((wave // 2).to(tl.float32))
    codes: tl.constexpr = 3 + 6 * FREQUENCIES
    total = tl.zeros([COLUMNS, HIDDEN], tl.float32)
    wide = (program * 0).to(tl.int64)
    for number in range(program, count, tl.num_programs(0)):
        ray = wide + number
        t = tl.load(distances + ray * SAMPLES + sample)
        x, y, z, _central = points_on_ray(origins, directions, ray, t)
        u, v, depth = project(x, y, z, key + (ray // rays) * 12, eps)
        coordinate = tl.where((column % 3 == 0)[:, None], u[None, :], v[None, :])
        coordinate = tl.where((column % 3 == 2)[:, None], _depth_code(depth, near, far)[None, :], coordinate)
        sine, cosine = sine_cosine(coordinate * frequency[:, None])
        code = tl.where((wave % 2 == 0)[:, None], sine, cosine)
        code = tl.where((column < 3)[:, None], coordinate, code)
        code = tl.where((column < codes)[:, None], code, tl.where((column == codes)[:, None], 1.0, 0.0))
        incoming = tl.load(hidden_gradient + (ray * SAMPLES + sample)[:, None] * HIDDEN + channel[None, :])
        total = tl.dot(code.to(incoming.dtype), incoming, total)
    tl.store(gradient + (program * COLUMNS + column)[:, None] * HIDDEN + channel[None, :], total)
