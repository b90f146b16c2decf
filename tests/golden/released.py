"""The released system's functions written out again from their description (published_system sections 1, 3, 4, 5, 7).

Plain loops in float64 with none of the package's own code, so that the functions under test and these can only agree by
both following the text. Images are [C, H, W], points and matrices plain arrays.
"""

from __future__ import annotations

from math import cos, exp, floor, log, log1p, pi, sin, sqrt

import numpy as np

Array = np.ndarray
EPS = 1e-3


# --- 1.2, 1.3, 3.7: coordinates, rays, fisheye table


def pixel_intrinsics(k: Array, height: int, width: int) -> Array:
    """5.3 step 1: normalised intrinsics in pixels of an image."""
    return np.array(
        [[k[0, 0] / 2 * width, 0, (k[0, 2] + 1) / 2 * width], [0, k[1, 1] / 2 * height, (k[1, 2] + 1) / 2 * height],
         [0, 0, 1]]
    )  # fmt: skip


def corner_aligned(row: float, column: float, height: int, width: int) -> tuple[float, float]:
    return -1 + 2 * column / (width - 1), -1 + 2 * row / (height - 1)


def plane_point(k: Array, x: float, y: float) -> Array:
    """K^-1 (x, y, 1)."""
    return np.linalg.solve(k, np.array([x, y, 1.0]))


def ray(k: Array, pose: Array, row: float, column: float, height: int, width: int) -> tuple[Array, Array, float]:
    """Origin, unit direction in the frame of `pose`, and depth per distance."""
    point = plane_point(k, *corner_aligned(row, column, height, width))
    unit = point / sqrt(point @ point)
    return pose[:3, 3], pose[:3, :3] @ unit, unit[2]


def pitch_then_yaw(pitch: float, yaw: float) -> Array:
    """R_02 of section 1.2, degrees."""
    a, b = pitch * pi / 180, yaw * pi / 180
    about_x = np.array([[1, 0, 0], [0, cos(a), -sin(a)], [0, sin(a), cos(a)]])
    about_y = np.array([[cos(b), 0, sin(b)], [0, 1, 0], [-sin(b), 0, cos(b)]])
    return about_y @ about_x


def fisheye_table(k: Array, height: int, width: int, camera: dict[str, float], rotation: Array) -> Array:
    table = np.empty((height, width, 2))
    for row in range(height):
        for column in range(width):
            direction = rotation @ plane_point(k, *corner_aligned(row, column, height, width))
            direction = direction / sqrt(direction @ direction)
            m = direction[:2] / (direction[2] + camera["xi"])
            rho2 = m @ m
            m = m * (1 + camera["k1"] * rho2 + camera["k2"] * rho2**2)
            table[row, column] = camera["gamma1"] * m[0] + camera["u0"], camera["gamma2"] * m[1] + camera["v0"]
    return table


# --- 3.3, 3.4: lookups, codes, density, colours


def bilinear(image: Array, x: float, y: float, padding: str) -> Array:
    """grid_sample with align_corners False: x samples pixel ((x + 1) W - 1)/2."""
    _, height, width = image.shape
    column, row = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
    if padding == "border":
        column, row = min(max(column, 0), width - 1), min(max(row, 0), height - 1)
    left, top = floor(column), floor(row)
    value = np.zeros(len(image))
    for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= r < height and 0 <= c < width:
            value = value + image[:, r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return value


def project(k: Array, view_from_points: Array, point: Array) -> tuple[float, float, float, bool]:
    """Steps 1 and 2 of 3.3: u, v, z and whether no pixel shows the point."""
    q = k @ (view_from_points[:3, :3] @ point + view_from_points[:3, 3])
    u, v = q[:2] / max(q[2], EPS)
    return u, v, q[2], bool(q[2] <= EPS or u < -1 or u > 1 or v < -1 or v > 1)


def z_code(z: float) -> float:
    return ((1 / max(z, EPS) - 1 / 80) / (1 / 3 - 1 / 80)) * 2 - 1


def positional_encoding(values: Array) -> Array:
    encoded = list(values)
    for octave in range(6):
        encoded += [sin(1.5 * 2**octave * value) for value in values]
        encoded += [sin(1.5 * 2**octave * value + pi / 2) for value in values]
    return np.array(encoded)


def softplus(x: float) -> float:
    return max(x, 0) + log1p(exp(-abs(x)))


def density(features: Array, k: Array, point: Array, layers: dict[str, Array]) -> tuple[float, bool]:
    """Density at a point of view 0's frame, and whether view 0 shows it."""
    u, v, z, unseen = project(k, np.eye(4), point)
    code = positional_encoding(np.array([u, v, z_code(z)]))
    inputs = np.concatenate([bilinear(features, u, v, "border"), code])
    hidden = np.maximum(layers["in.weight"] @ inputs + layers["in.bias"], 0)
    return softplus(float(layers["out.weight"][0] @ hidden + layers["out.bias"][0])), unseen


def colour(image: Array, k: Array, view_from_points: Array, point: Array) -> tuple[Array, bool]:
    u, v, _, unseen = project(k, view_from_points, point)
    return bilinear(image, u, v, "border"), unseen


# --- 3.6: refinement


def refine_depth(prior: float, residual: float) -> float:
    return 1 / (1 / min(max(prior, 0.1), 80) + residual / 10 + 1e-8)


# --- 4: rendering


def sample_distances(offsets: Array) -> Array:
    """Distances of the samples of a ray for their places 0..1 in their bins."""
    count = len(offsets)
    shares = [(number + offset) / count for number, offset in enumerate(offsets)]
    return np.array([1 / ((1 - share) / 3 + share / 80) for share in shares])


def composite(sigma: Array, distances: Array, hard_cap: bool) -> Array:
    weights, transmittance = [], 1.0
    for number, value in enumerate(sigma):
        last = number == len(sigma) - 1
        delta = 1e10 if last else distances[number + 1] - distances[number]
        alpha = 1.0 if last and hard_cap else 1 - exp(-min(abs(delta) * max(value, 0), 700))
        weights.append(alpha * transmittance)
        transmittance *= 1 - alpha + 1e-10
    return np.array(weights)


# --- 5.1: colour loss

WINDOW = ((0.0947, 0.1183, 0.0947), (0.1183, 0.1478, 0.1183), (0.0947, 0.1183, 0.0947))


def structural_error(a: Array, b: Array) -> Array:
    """clamp(1 - SSIM, 0, 1)/2 of one channel [h, w]."""
    height, width = a.shape
    error = np.empty_like(a)
    for row in range(height):
        for column in range(width):
            moments = np.zeros(5)
            for i in range(3):
                for j in range(3):
                    r, c = row + i - 1, column + j - 1
                    x, y = (a[r, c], b[r, c]) if 0 <= r < height and 0 <= c < width else (0.0, 0.0)
                    moments += WINDOW[i][j] * np.array([x, y, x * x, y * y, x * y])
            mean_a, mean_b, aa, bb, ab = moments
            over = (2 * mean_a * mean_b + 1e-4) * (2 * (ab - mean_a * mean_b) + 9e-4)
            under = (mean_a**2 + mean_b**2 + 1e-4) * ((aa - mean_a**2) + (bb - mean_b**2) + 9e-4)
            error[row, column] = min(max(1 - over / under, 0), 1) / 2
    return error


def colour_error(rendered: Array, target: Array, criterion: str) -> Array:
    """Error map [h, w] of one patch: rendered [h, w, V, 3], target [h, w, 3]."""
    smallest = np.full(target.shape[:2], np.inf)
    for view in range(rendered.shape[2]):
        one = rendered[:, :, view]
        if criterion == "l2":
            error = ((one - target) ** 2).sum(-1) / 3
        else:
            error = np.abs(one - target).sum(-1) / 3
        if criterion == "l1+ssim":
            structure = sum(structural_error(one[..., c], target[..., c]) for c in range(3)) / 3
            error = 0.85 * structure + 0.15 * error
        smallest = np.minimum(smallest, error)
    return smallest


def invalid_ray(weights: Array, invalid: Array, samples: Array, policy: str) -> bool:
    """weights [S], invalid [S, V], samples [S, V, 3]."""
    if policy == "none":
        return False
    for view in range(invalid.shape[1]):
        if policy == "strict":
            bad = bool(invalid[:, view].any())
        else:
            bad = sum(w for w, out in zip(weights, invalid[:, view], strict=True) if out) > 0.9
            if policy == "weight_guided_diverse":
                bad = bad or sum(np.std(samples[:, view, c], ddof=1) for c in range(3)) / 3 < 0.01
        if not bad:
            return False
    return True


def colour_loss(errors: Array, invalid: Array) -> float:
    """Mean over all rays, invalid ones counting as 0."""
    return sum(0.0 if out else float(e) for e, out in zip(errors.ravel(), invalid.ravel(), strict=True)) / errors.size


# --- 5.2: depth loss


def depth_loss(predicted: Array, distance: Array, factor: Array, version: int) -> float:
    rendered = distance * factor

    def stretched(values: Array) -> Array:
        return (values - values.min()) / (values.max() - values.min())

    if version == 1:
        error = np.abs(predicted - rendered)
    elif version == 2:
        error = np.abs(predicted - rendered) * (1 - stretched(predicted))
    else:
        error = np.abs(stretched(predicted) - stretched(rendered))
    return float(error.sum() / error.size)


# --- 5.3: temporal loss


def warp(
    reference: Array, depth_target: Array, depth_reference: Array, k: Array, reference_from_target: Array
) -> tuple[Array, Array, Array, Array]:
    """Warped image [C, H, W], computed and sampled depth [H, W], valid [H, W]."""
    _, height, width = reference.shape
    pixels = pixel_intrinsics(k, height, width)
    image, computed = np.empty_like(reference), np.empty((height, width))
    sampled, valid = np.empty((height, width)), np.empty((height, width), dtype=bool)
    for v in range(height):
        for u in range(width):
            point = np.linalg.solve(pixels, np.array([u, v, 1.0])) * depth_target[v, u]
            q = pixels @ (reference_from_target[:3, :3] @ point + reference_from_target[:3, 3])
            x = 2 * (q[0] / (q[2] + 1e-7)) / (width - 1) - 1
            y = 2 * (q[1] / (q[2] + 1e-7)) / (height - 1) - 1
            image[:, v, u] = bilinear(reference, x, y, "zeros")
            sampled[v, u] = bilinear(depth_reference[None], x, y, "zeros")[0]
            computed[v, u] = q[2]
            valid[v, u] = max(abs(x), abs(y)) <= 1
    return image, computed, sampled, valid


def temporal_loss(batch: list[tuple[Array, Array, Array, Array, Array, Array]]) -> tuple[float, float]:
    """Photometric and geometry term of samples (target, reference, their depths, K, reference_from_target)."""
    colours, depths, elements, pixels = 0.0, 0.0, 0, 0
    for target, reference, depth_target, depth_reference, k, pose in batch:
        image, computed, sampled, valid = warp(reference, depth_target, depth_reference, k, pose)
        for v, u in zip(*np.nonzero(valid), strict=True):
            relative = abs(computed[v, u] - sampled[v, u]) / (computed[v, u] + sampled[v, u])
            relative = min(max(relative, 0.0), 1.0)
            for channel in range(3):
                difference = min(abs(target[channel, v, u] - image[channel, v, u]), 1.0)
                colours += (1 - relative) * difference
                elements += 1
            depths += relative
            pixels += 1
    return (colours / elements if elements > 10_000 else 0.0), (depths / pixels if pixels > 10_000 else 0.0)


# --- 5.4: smoothness of BTS


def smoothness(depth: Array, image: Array, invalid: Array) -> float:
    """depth [P, h, w], image [P, h, w, 3], invalid [P, h, w]."""
    total = 0.0
    for patch in range(len(depth)):
        inverse = 1 / np.clip(depth[patch], 1e-3, 80)
        inverse = inverse / inverse.mean()
        height, width = inverse.shape
        for row in range(height):
            for column in range(width):
                here = 0.0
                if column + 1 < width:
                    edge = np.abs(image[patch, row, column + 1] - image[patch, row, column]).mean()
                    here += abs(inverse[row, column + 1] - inverse[row, column]) * exp(-edge)
                if row + 1 < height:
                    edge = np.abs(image[patch, row + 1, column] - image[patch, row, column]).mean()
                    here += abs(inverse[row + 1, column] - inverse[row, column]) * exp(-edge)
                total += 0.0 if invalid[patch, row, column] else here
    return total / depth.size


# --- 2.3, 7.1: sampler weights, grid


def component_weights(areas: list[float], gamma: float) -> list[float]:
    logarithms = [log(area) for area in areas]
    return [(1 - gamma) * value / sum(logarithms) for value in logarithms] + [gamma]


def slice_points() -> Array:
    """Query points [160 * 80, 3] of 7.1 in the level frame, x the faster axis."""
    points = []
    for row in range(160):
        for column in range(80):
            points.append((-4 + 8 * column / 79, 0.5 * (0 + 0.75), 20 - 16 * row / 159))
    return np.array(points)
