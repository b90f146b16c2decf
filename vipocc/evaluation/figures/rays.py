"""Where rays are sampled: the mixture of SNOG with its anchors (Figure 3), random patches beside it (Figure 8)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.evaluation.figures.canvas import below, beside, grid
from vipocc.pictures import Image, density_overlay, enlarge, legend_strip
from vipocc.priors.snog import Instances, SnogConfig, draw_anchors, draw_uniform, mixture, valid_rays
from vipocc.priors.snog.mixture import density

ON = (255, 214, 64)
OFF = (86, 180, 233)
BOX = (240, 100, 170)
OUTLINE = (255, 255, 255)
RAYS = [
    (ON, "patch on a critical instance"),
    (OFF, "patch elsewhere"),
    (OUTLINE, "critical instance"),
    (BOX, "its box"),
]


def sampler(
    image: Image, instances: Instances, config: SnogConfig, rng: np.random.Generator, width: int = 480
) -> Image:
    """Draw Figure 3: instances, the mixture that anchors are drawn from, and one draw of them.

    Args:
        image: [H, W, 3], as large as the instances' map.
        instances: of the image.
        config: the sampler.
        rng: of the draw.
        width: of a tile in pixels.
    """
    law = mixture(instances, (image.shape[0], image.shape[1]), config)
    anchors = draw_anchors(law, config.anchors, rng)
    scale = max(1, round(width / image.shape[1]))
    boxes = _outlined(enlarge(image, scale), instances, scale)
    for x0, y0, x1, y1 in np.asarray(instances.boxes, np.float64)[instances.critical]:
        corners = [round((value + 0.5) * scale) for value in (x0, y0, x1, y1)]
        cv2.rectangle(boxes, tuple(corners[:2]), tuple(corners[2:]), BOX, 1, cv2.LINE_AA)
    first = grid(
        [[boxes, enlarge(density_overlay(image, density(law)), scale)]],
        ["instances", "density p(x) of Eq. 4"],
        width=width,
    )
    drawn = patches(image, anchors, instances, config.patch, scale)
    second = grid([[drawn]], [f"{len(anchors)} anchors of one draw"], width=width)
    return below([beside([first, second], 0), legend_strip(RAYS, 2 * width)], 0)


def samplers(
    image: Image, instances: Instances, config: SnogConfig, rng: np.random.Generator, width: int = 480
) -> tuple[Image, dict[str, tuple[int, int]]]:
    """Draw Figure 8: patches of one draw of the random sampler beside one of SNOG.

    Returns:
        The picture, and N_v and N_vc of each of the two draws by name.
    """
    size = (image.shape[0], image.shape[1])
    drawn = {
        "random": draw_uniform(size, config.patch, config.anchors, rng),
        "SNOG": draw_anchors(mixture(instances, size, config), config.anchors, rng),
    }
    counts = {name: valid_rays(one, instances.critical_mask, config.patch) for name, one in drawn.items()}
    scale = max(1, round(width / image.shape[1]))
    titles = [
        f"{name}: N_v {valid:,}, N_vc {critical:,}, psi_v {100 * critical / valid:.1f} %"
        for name, (valid, critical) in counts.items()
    ]
    tiles = [patches(image, one, instances, config.patch, scale) for one in drawn.values()]
    picture = grid([tiles], titles, width=width)
    return np.concatenate([picture, legend_strip(RAYS[:3], picture.shape[1])]), counts


def patches(image: Image, anchors: NDArray[Any], instances: Instances, patch: int, scale: int) -> Image:
    """Return the darkened image with critical instances outlined and the patches of anchors (x, y) [n, 2] bright.

    A patch is yellow if any of its rays lies on a critical instance, else blue; patches that share rays overlap.
    """
    picture = enlarge(np.asarray(np.rint(0.45 * image), np.uint8), scale)
    critical, low = instances.critical_mask, patch // 2
    for x, y in np.asarray(anchors, int):
        rows, columns = slice(y - low, y - low + patch), slice(x - low, x - low + patch)
        colour = ON if critical[rows, columns].any() else OFF
        left, top, side = int(x - low) * scale, int(y - low) * scale, patch * scale
        picture[top : top + side, left : left + side] = enlarge(
            np.asarray(np.rint(0.7 * image[rows, columns] + 0.3 * np.array(colour)), np.uint8), scale
        )
        cv2.rectangle(picture, (left, top), (left + side - 1, top + side - 1), colour, 1)
    return _outlined(picture, instances, scale)


def _outlined(picture: Image, instances: Instances, scale: int) -> Image:
    for number in np.flatnonzero(instances.critical):
        mask = np.repeat(np.repeat(instances.index == number + 1, scale, 0), scale, 1).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, OUTLINE, 1)
    return picture
