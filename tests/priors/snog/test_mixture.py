from __future__ import annotations

import math

import numpy as np
import pytest

from vipocc.errors import UsageError
from vipocc.priors.snog import Instances, SnogConfig, density, mixture


def instances(
    boxes: list[list[float]], areas: list[float], size: tuple[int, int], gaussian: list[bool] | None = None
) -> Instances:
    index = np.zeros(size, dtype=np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        index[max(int(y0), 0) : max(int(y1), 0), max(int(x0), 0) : max(int(x1), 0)] = number + 1
    kinds = np.asarray([True] * len(boxes) if gaussian is None else gaussian, dtype=bool)
    return Instances(np.asarray(boxes, dtype=np.float32).reshape(-1, 4), np.asarray(areas), kinds, index)


def plain_density(held: Instances, size: tuple[int, int], config: SnogConfig) -> np.ndarray:
    """Eq. 4 and 5 written out pixel by pixel."""
    height, width = size
    low, high = config.patch // 2, config.patch - config.patch // 2
    valid = [(x, y) for y in range(low, height - high + 1) for x in range(low, width - high + 1)]
    chosen = [k for k in range(len(held.areas)) if held.gaussian[k] and held.areas[k] >= 2]
    whole = np.zeros(size)
    if not chosen:
        for x, y in valid:
            whole[y, x] = 1 / len(valid)
        return whole
    total = sum(math.log(held.areas[k]) for k in chosen)
    for k in chosen:
        x0, y0, x1, y1 = (float(value) for value in held.boxes[k])
        one = np.zeros(size)
        for x, y in valid:
            sx, sy = (x1 - x0) / 4, (y1 - y0) / 4
            one[y, x] = math.exp(-((x - (x0 + x1) / 2) ** 2) / 2 / sx**2 - (y - (y0 + y1) / 2) ** 2 / 2 / sy**2)
        whole += (1 - config.gamma) * math.log(held.areas[k]) / total * one / one.sum()
    area = valid
    if config.uniform_area == "outside_gaussian":
        area = [(x, y) for x, y in valid if int(held.index[y, x]) - 1 not in chosen] or valid
    for x, y in area:
        whole[y, x] += config.gamma / len(area)
    return whole


@pytest.mark.parametrize("area", ["outside_gaussian", "image"])
def test_density_is_equation_4(area: str) -> None:
    size = (48, 72)
    held = instances(
        [[10, 10, 40, 30], [50, 20, 60, 28], [0, 30, 72, 48], [60, 4, 62, 5]],
        [450, 70, 900, 1],
        size,
        [True, True, False, True],
    )
    config = SnogConfig(uniform_area=area, gamma=0.4)
    np.testing.assert_allclose(density(mixture(held, size, config)), plain_density(held, size, config), atol=1e-14)


def test_95_percent_of_a_gaussian_lies_within_the_box_per_axis() -> None:
    held = instances([[200, 40, 400, 140]], [9000], (192, 640))
    of = mixture(held, (192, 640), SnogConfig())
    columns = np.arange(of.columns.shape[1]) + of.origin
    inside = of.columns[0][(columns >= 200) & (columns <= 400)].sum()
    assert inside == pytest.approx(0.9545, abs=0.003)


@pytest.mark.parametrize(
    ("boxes", "areas"),
    [
        ([], []),
        ([[10, 10, 20, 20]], [1.0]),
        ([[10, 10, 20, 20]], [0.0]),
        ([[10, 10, 20, 20]], [2.0]),
        ([[float("nan")] * 4], [50.0]),
        ([[-500, -500, 900, 900]], [30720.0]),
        ([[0, 0, 1, 1]], [2.0]),
        ([[319, 95, 320, 96]], [2.0]),
        ([[400, 400, 402, 402]], [4.0]),
        ([[50, 50, 50, 50]], [2.0]),
    ],
)
def test_odd_instances_give_a_density(boxes: list[list[float]], areas: list[float]) -> None:
    held = Instances(
        np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
        np.asarray(areas),
        np.ones(len(areas), dtype=bool),
        np.zeros((96, 320), dtype=np.uint8),
    )
    p = density(mixture(held, (96, 320), SnogConfig()))
    assert np.isfinite(p).all()
    assert (p >= 0).all()
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    assert p[:4].sum() == p[93:].sum() == p[:, :4].sum() == p[:, 317:].sum() == 0.0


def test_masks_that_cover_all_leave_the_whole_image_uniform() -> None:
    held = instances([[0, 0, 320, 96]], [30720], (96, 320))
    covered = density(mixture(held, (96, 320), SnogConfig()))
    np.testing.assert_array_equal(covered, density(mixture(held, (96, 320), SnogConfig(uniform_area="image"))))


def test_an_image_without_a_valid_centre_is_refused() -> None:
    with pytest.raises(UsageError, match="no place for a patch"):
        mixture(Instances.none((7, 30)), (7, 30), SnogConfig())
    with pytest.raises(UsageError, match="index map"):
        mixture(Instances.none((30, 30)), (31, 30), SnogConfig())
