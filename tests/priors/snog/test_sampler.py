from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from vipocc.errors import UsageError
from vipocc.priors.snog import (
    Instances,
    Mixture,
    SnogConfig,
    check_image,
    density,
    draw_anchors,
    draw_anchors_reference,
    draw_sets,
    draw_uniform,
    mixture,
    summarise,
    valid_rays,
)

SIZE = (96, 320)


def instances(boxes: list[list[float]], areas: list[float], size: tuple[int, int]) -> Instances:
    index = np.zeros(size, dtype=np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        index[max(int(y0), 0) : max(int(y1), 0), max(int(x0), 0) : max(int(x1), 0)] = number + 1
    kinds = np.ones(len(boxes), dtype=bool)
    return Instances(np.asarray(boxes, dtype=np.float32).reshape(-1, 4), np.asarray(areas), kinds, index)


def street(size: tuple[int, int] = SIZE) -> Mixture:
    boxes = [[20.0, 40, 80, 80], [150, 45, 170, 60], [280, 30, 330, 96]]
    return mixture(instances(boxes, [1500, 180, 2000], size), size, SnogConfig())


def p_value(counts: np.ndarray, expected: np.ndarray) -> float:
    """Chi-square p-value over cells, those that expect fewer than 10 pooled."""
    large = expected >= 10
    observed = np.append(counts[large], counts[~large].sum())
    wanted = np.append(expected[large], expected[~large].sum())
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    statistic = ((observed - wanted) ** 2 / wanted).sum()
    freedom = torch.tensor((len(wanted) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, torch.tensor(statistic / 2, dtype=torch.float64)))


def histogram(anchors: np.ndarray, size: tuple[int, int], cell: int = 4) -> np.ndarray:
    counts = np.zeros(size)
    np.add.at(counts, (anchors[:, 1], anchors[:, 0]), 1)
    return coarse(counts, cell)


def coarse(values: np.ndarray, cell: int = 4) -> np.ndarray:
    height, width = values.shape
    return values.reshape(height // cell, cell, width // cell, cell).sum(axis=(1, 3))


def second_law(p: np.ndarray, patch: int = 8) -> np.ndarray:
    """Marginal law of the second anchor: sum over the first of p(first) p(x) / (1 - mass around first)."""
    span = 2 * patch
    offset = np.arange(-span, span + 1)
    disc = (offset[:, None] ** 2 + offset[None, :] ** 2 < 2 * patch**2).astype(np.float64)
    around = cv2.filter2D(p, cv2.CV_64F, disc, borderType=cv2.BORDER_CONSTANT)
    share = p / (1 - around)
    return p * (share.sum() - cv2.filter2D(share, cv2.CV_64F, disc, borderType=cv2.BORDER_CONSTANT))


def apart(anchors: np.ndarray) -> int:
    points = anchors.astype(np.int64)
    squared = ((points[:, None] - points[None]) ** 2).sum(-1)
    return int(squared[~np.eye(len(points), dtype=bool)].min())


@pytest.fixture(scope="module")
def pairs() -> np.ndarray:
    of, rng = street(), np.random.default_rng(11)
    return np.stack([draw_anchors(of, 2, rng) for _ in range(30_000)])


def test_first_anchors_follow_the_density(pairs: np.ndarray) -> None:
    expected = coarse(density(street())) * len(pairs)
    assert p_value(histogram(pairs[:, 0], SIZE), expected) > 0.001


def test_second_anchors_follow_the_conditioned_density(pairs: np.ndarray) -> None:
    p = density(street())
    law = second_law(p)
    assert law.sum() == pytest.approx(1.0, abs=1e-9)
    assert p_value(histogram(pairs[:, 1], SIZE), coarse(law) * len(pairs)) > 0.001
    # The test can tell the two laws apart: the second anchor does not follow the first one's.
    assert p_value(histogram(pairs[:, 1], SIZE, 16), coarse(p, 16) * len(pairs)) < 0.001


def test_a_late_anchor_follows_the_density_given_the_others() -> None:
    """Enumeration and rejection draw from one law: the third anchor with gamma 0, both Gaussians narrow."""
    held = instances([[40, 40, 64, 60], [100, 40, 130, 64]], [300, 500], SIZE)
    of = mixture(held, SIZE, SnogConfig(gamma=0.0))
    fast, plain = np.random.default_rng(1), np.random.default_rng(2)
    a = np.stack([draw_anchors(of, 6, fast)[5] for _ in range(3_000)])
    b = np.stack([draw_anchors_reference(of, 6, plain, patience=300)[5] for _ in range(3_000)])
    x, y = histogram(a, SIZE, 16), histogram(b, SIZE, 16)
    assert two_sample(x, y) > 0.001


def two_sample(a: np.ndarray, b: np.ndarray) -> float:
    keep = (a + b) >= 20
    first, second = np.append(a[keep], a[~keep].sum()), np.append(b[keep], b[~keep].sum())
    first, second = first[first + second > 0], second[first + second > 0]
    k = np.sqrt(second.sum() / first.sum())
    statistic = ((k * first - second / k) ** 2 / (first + second)).sum()
    freedom = torch.tensor((len(first) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, torch.tensor(statistic / 2, dtype=torch.float64)))


def test_sets_of_64_agree_with_the_plain_sampler() -> None:
    of = street()
    fast, plain = np.random.default_rng(3), np.random.default_rng(4)
    a = np.stack([draw_anchors(of, 64, fast) for _ in range(400)])
    b = np.stack([draw_anchors_reference(of, 64, plain) for _ in range(400)])

    def statistics(sets: np.ndarray) -> np.ndarray:
        in_box = ((sets[..., 0] >= 20) & (sets[..., 0] < 80) & (sets[..., 1] >= 40) & (sets[..., 1] < 80)).sum(1)
        return np.stack([in_box, sets[..., 1].mean(1), sets[:, 63, 0], sets[:, 20, 0], sets[..., 0].std(1)])

    first, second = statistics(a), statistics(b)
    error = np.sqrt((first.var(1) + second.var(1)) / 400)
    assert (np.abs(first.mean(1) - second.mean(1)) < 3.5 * error).all()


@pytest.mark.parametrize("gamma", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("case", ["none", "one", "tiny", "covering", "border", "many"])
def test_there_are_always_64_inside_and_apart(case: str, gamma: float) -> None:
    boxes = {
        "none": [],
        "one": [[100.0, 30, 160, 70]],
        "tiny": [[100.0, 30, 102, 32]],
        "covering": [[-200.0, -200, 900, 700]],
        "border": [[0.0, 0, 6, 6], [314, 90, 320, 96]],
        "many": [[float(7 * (k % 45)), float(15 * (k // 45)), 7.0 * (k % 45) + 12, 15.0 * (k // 45) + 20]
                 for k in range(200)],
    }[case]  # fmt: skip
    held = instances(boxes, [40.0] * len(boxes), SIZE)
    of = mixture(held, SIZE, SnogConfig(gamma=gamma))
    rng = np.random.default_rng(5)
    for _ in range(4):
        anchors = draw_anchors(of, 64, rng)
        assert anchors.shape == (64, 2)
        assert apart(anchors) >= 128
        assert (anchors >= 4).all()
        assert anchors[:, 0].max() + 3 < 320
        assert anchors[:, 1].max() + 3 < 96
        assert valid_rays(anchors, held.critical_mask, 8)[0] == 4096
    assert apart(draw_anchors_reference(of, 64, rng, patience=200)) >= 128


def test_draws_depend_on_the_seed_alone() -> None:
    of = street()
    a, b, c = (draw_sets(of, 3, 64, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert a.dtype == np.uint16
    assert a.shape == (3, 64, 2)
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_sizes_at_which_64_patches_always_fit() -> None:
    check_image((96, 320), 8, 64)
    check_image((192, 640), 8, 64)
    with pytest.raises(UsageError, match="too small for 64 patches"):
        check_image((64, 200), 8, 64)
    with pytest.raises(UsageError, match="no place left"):
        draw_anchors(mixture(Instances.none((32, 32)), (32, 32), SnogConfig()), 64, np.random.default_rng(0))


def test_uniform_patches_use_4024_of_4096_rays() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((192, 640), dtype=bool)
    mask[:, :64] = True
    figures = summarise(valid_rays(draw_uniform((192, 640), 8, 64, rng), mask, 8) for _ in range(300))
    assert figures.valid == pytest.approx(4025, abs=6)
    assert figures.share == pytest.approx(0.1, abs=0.01)
    assert figures.iterations == 300


def test_valid_rays_count_each_ray_once() -> None:
    mask = np.zeros((32, 32), dtype=bool)
    mask[:, 10:] = True
    assert valid_rays(np.array([[8, 8], [10, 8]]), mask, 8) == (80, 32)
