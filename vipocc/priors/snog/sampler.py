"""Draws from P(x | X) of Eq. 6: the mixture p(x), conditioned on keeping sqrt(2) patches away from earlier anchors.

Accepting, from one stream of independent draws of p(x), each that keeps its distance from those accepted before it is
exactly the sequential law of Eq. 6. The fast sampler takes the stream in batches. Where rejection makes no progress
(nearly all mass lies around the anchors there are) it draws from the same law by enumerating it: p(x) with the
neighbourhoods of the anchors set to zero and renormalised. That law has no mass left only when every component's is
used up (with gamma = 0, or a uniform area of few pixels); the anchors still wanted are then uniform over the valid
centres that are free, which is the limit of an ever fainter uniform part over the whole image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import UsageError
from vipocc.priors.snog.mixture import Float64, Mixture, density

Anchors = NDArray[np.int32]

#: Candidates of the first batch and of each later one; a typical draw of 64 anchors looks at 80 to 160.
FIRST_BATCH = 160
BATCH = 128
#: Rejection gives way to enumeration once a batch brings fewer anchors than this.
PROGRESS = 4


def draw_anchors(mixture: Mixture, n: int, rng: np.random.Generator) -> Anchors:
    """Return n anchors [n, 2] (x, y), patch centres in the order drawn, all valid and sqrt(2) patches apart.

    Raises:
        UsageError: the image ran out of places; impossible where `check_image` passes.
    """
    reach = 2 * mixture.patch**2
    accepted: Anchors = np.empty((n, 2), dtype=np.int32)
    count = 0
    while count < n:
        candidates = _candidates(mixture, BATCH if count else FIRST_BATCH, rng)
        free = (1 << len(candidates)) - 1
        if count:
            free &= ~_union(_near(candidates, accepted[:count], reach))
        conflicts = np.packbits(_near(candidates, candidates, reach), axis=1, bitorder="little")
        taken: list[int] = []
        # Bit i of `free` says that candidate i keeps its distance from all accepted so far: the lowest is the next.
        while free and count + len(taken) < n:
            first = (free & -free).bit_length() - 1
            taken.append(first)
            free &= ~int.from_bytes(conflicts[first].tobytes(), "little")
        accepted[count : count + len(taken)] = candidates[taken]
        count += len(taken)
        if len(taken) < PROGRESS and count < n:
            _enumerate(mixture, accepted, count, rng)
            break
    return accepted


def draw_anchors_reference(mixture: Mixture, n: int, rng: np.random.Generator, patience: int = 10_000) -> Anchors:
    """Plain twin of `draw_anchors`: one candidate at a time from the tabulated density, rejected by Eq. 6 as written.

    Equal in law, not in the numbers drawn.
    """
    flat = density(mixture).reshape(-1)
    cumulative = np.cumsum(flat)
    width, reach = mixture.size[1], 2 * mixture.patch**2
    anchors: list[tuple[int, int]] = []
    while len(anchors) < n:
        for _ in range(patience):
            place = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
            x, y = place % width, place // width
            if all((x - ax) ** 2 + (y - ay) ** 2 >= reach for ax, ay in anchors):
                anchors.append((x, y))
                break
        else:
            rest = np.empty((n, 2), dtype=np.int32)
            rest[: len(anchors)] = np.asarray(anchors, dtype=np.int32).reshape(-1, 2)
            _enumerate(mixture, rest, len(anchors), rng)
            return rest
    return np.asarray(anchors, dtype=np.int32)


def draw_sets(mixture: Mixture, draws: int, n: int, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return `draws` independent sets of n anchors, uint16 [draws, n, 2] (x, y), as `anchors.zarr` stores them."""
    return np.stack([draw_anchors(mixture, n, rng) for _ in range(draws)]).astype(np.uint16)


def draw_uniform(size: tuple[int, int], patch: int, n: int, rng: np.random.Generator) -> Anchors:
    """Return n independent, uniform valid centres [n, 2] (x, y): the random sampler of earlier systems.

    Patches of an image of `size` (height, width) may overlap.
    """
    low = patch // 2
    x = rng.integers(low, size[1] - patch + low + 1, n, dtype=np.int32)
    y = rng.integers(low, size[0] - patch + low + 1, n, dtype=np.int32)
    return np.stack([x, y], axis=1)


def check_image(size: tuple[int, int], patch: int, n: int) -> None:
    """Raise `UsageError` unless n anchors fit into an image of `size` (height, width) however the draws fall.

    n - 1 anchors rule out at most n - 1 discs of centres; as long as more centres than that exist, one is free.
    """
    centres = max(size[0] - patch + 1, 0) * max(size[1] - patch + 1, 0)
    offsets = np.arange(-2 * patch, 2 * patch + 1)
    disc = int(np.count_nonzero(offsets[:, None] ** 2 + offsets[None, :] ** 2 < 2 * patch**2))
    if centres <= (n - 1) * disc:
        raise UsageError(
            f"an image of {size[0]}x{size[1]} is too small for {n} patches of {patch}x{patch} that do not overlap",
            fix="raise data.image_size (96x320 is enough for 64 patches of 8x8) or lower priors.snog.anchors",
        )


def _candidates(mixture: Mixture, count: int, rng: np.random.Generator) -> Anchors:
    rows, columns = mixture.grid
    components = len(mixture.weights)
    first, second, third = rng.random((3, count))
    chosen = np.minimum(np.searchsorted(np.cumsum(mixture.weights), first, side="right"), components - 1)
    places = mixture.area[(second * len(mixture.area)).astype(np.int64)]
    x, y = places % columns, places // columns
    gaussian = np.flatnonzero(chosen < components - 1)
    if len(gaussian):
        across, down = mixture.cumulative
        x[gaussian] = _inverse(across, columns, chosen[gaussian], second[gaussian])
        y[gaussian] = _inverse(down, rows, chosen[gaussian], third[gaussian])
    return np.stack([x, y], axis=1).astype(np.int32) + np.int32(mixture.origin)


def _inverse(cumulative: Float64, length: int, component: NDArray[np.int64], uniform: Float64) -> NDArray[np.int64]:
    place = np.searchsorted(cumulative, uniform + component, side="right") - component * length
    return np.asarray(np.clip(place, 0, length - 1), dtype=np.int64)


def _near(of: Anchors, to: Anchors, reach: int) -> NDArray[np.bool_]:
    """Whether points [N, 2] lie within the forbidden distance of points [M, 2]: bool [M, N]."""
    x = of[None, :, 0] - to[:, 0, None]
    y = of[None, :, 1] - to[:, 1, None]
    return np.asarray(x * x + y * y < reach, dtype=np.bool_)


def _union(near: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(near.any(axis=0), bitorder="little").tobytes(), "little")


def _enumerate(mixture: Mixture, accepted: Anchors, count: int, rng: np.random.Generator) -> None:
    """Fill `accepted` [n, 2] from `count` on by the tabulated P(x | X)."""
    mass = density(mixture)
    free = np.zeros(mixture.size, dtype=np.bool_)
    (rows, columns), origin, width = mixture.grid, mixture.origin, mixture.size[1]
    free[origin : origin + rows, origin : origin + columns] = True
    for anchor in accepted[:count]:
        _forbid(free, anchor, mixture.patch)
    for number in range(count, len(accepted)):
        left = np.where(free, mass, 0.0).reshape(-1)
        if not left.sum() > 0.0:
            left = free.reshape(-1).astype(np.float64)
        cumulative = np.cumsum(left)
        if cumulative[-1] == 0.0:
            raise UsageError(
                f"an image of {mixture.size[0]}x{width} has no place left after {number} of {len(accepted)} patches",
                fix="raise data.image_size or lower priors.snog.anchors",
            )
        place = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
        accepted[number] = place % width, place // width
        _forbid(free, accepted[number], mixture.patch)


def _forbid(free: NDArray[np.bool_], anchor: Anchors, patch: int) -> None:
    x, y = int(anchor[0]), int(anchor[1])
    span = 2 * patch
    top, left = max(y - span, 0), max(x - span, 0)
    window = free[top : y + span + 1, left : x + span + 1]
    down = np.arange(top, top + window.shape[0])[:, None] - y
    across = np.arange(left, left + window.shape[1])[None, :] - x
    window &= down * down + across * across >= 2 * patch**2
