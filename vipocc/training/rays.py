"""Which rays a training step follows: the split of the views, the patches, and their rays and target colours.

The split and the patches are drawn per sample in NumPy, where the sample is read; what touches images runs in torch on
the trainer's device, for the sampled pixels only and without waiting for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vipocc.errors import ConfigError, DataError
from vipocc.geometry.ndc import Convention, depth_factor, pixel_to_ndc, ray_directions
from vipocc.geometry.projection import transform
from vipocc.model.renderer import Rays

PatchBounds: TypeAlias = Literal["inclusive", "exclusive"]
ViewRule: TypeAlias = Literal["crosswise", "official"]

OFFICIAL_VIEWS = 8
"""Views of a sample of the released KITTI-360 mode."""
OFFICIAL_RENDER_VIEWS = 2
"""Render views of the released `default` mode."""


@dataclass(frozen=True)
class ViewSplit:
    """Positions, among the views of a sample, whose pixels are reconstructed and from which colours are taken."""

    loss: tuple[int, ...]
    render: tuple[int, ...]


def split_views(cameras: Sequence[str], rows: Sequence[int]) -> tuple[ViewSplit, ViewSplit]:
    """Return the two splits between which a coin chooses.

    Among the cameras that have two time steps, taken in order of appearance, loss views alternate between the first and
    the second step; the other step of each is a render view. The second split swaps the two. A camera with one time
    step gives a render view in both. With the eight views of KITTI-360 these are the published sets {0,3,4,7} and
    {1,2,5,6}, with a stereo pair {0,3} and {1,2} (published_system 3.5).

    Args:
        cameras: camera of each view.
        rows: posed-frame row of each view; within a camera the earlier row is the first step.
    """
    views: dict[str, list[int]] = {}
    for view, camera in enumerate(cameras):
        views.setdefault(camera, []).append(view)
    first: list[int] = []
    second: list[int] = []
    single: list[int] = []
    for of_camera in views.values():
        steps = sorted(of_camera, key=lambda view: rows[view])
        if len(steps) != 2 or rows[steps[0]] == rows[steps[1]]:
            single += steps
            continue
        swap = len(first) % 2
        first.append(steps[swap])
        second.append(steps[1 - swap])
    if not first:
        raise DataError(
            "a sample has no camera with two time steps", where=", ".join(cameras), fix="see `vipocc data check`"
        )
    return (
        ViewSplit(tuple(sorted(first)), tuple(sorted(second + single))),
        ViewSplit(tuple(sorted(second)), tuple(sorted(first + single))),
    )


def choose_split(
    rng: np.random.Generator, cameras: Sequence[str], rows: Sequence[int], rule: ViewRule = "crosswise"
) -> ViewSplit:
    """Return the view split of a sample.

    `crosswise` is one of the two of `split_views`, by a coin. `official` is that only for the eight views of the
    released KITTI-360 mode; any other number of views follows the released `default` mode (KITTI Raw): two views drawn
    at random are render views and the others loss views (published_system 3.5).

    Raises:
        DataError: `official` with fewer than three views.
    """
    if rule == "crosswise" or len(cameras) == OFFICIAL_VIEWS:
        return split_views(cameras, rows)[int(rng.integers(2))]
    if len(cameras) <= OFFICIAL_RENDER_VIEWS:
        raise DataError(
            f"{len(cameras)} views cannot be split into {OFFICIAL_RENDER_VIEWS} render views and loss views",
            where=", ".join(cameras),
            fix="use training.view_split=crosswise",
        )
    render = tuple(sorted(rng.choice(len(cameras), OFFICIAL_RENDER_VIEWS, replace=False).tolist()))
    return ViewSplit(tuple(view for view in range(len(cameras)) if view not in render), render)


def share_patches(rng: np.random.Generator, count: int, views: int, share: str) -> NDArray[np.int64]:
    """Return how many of `count` patches each of `views` loss views gets: evenly, or each patch in a random view."""
    if share == "random":
        return np.bincount(rng.integers(views, size=count), minlength=views).astype(np.int64)
    return count // views + (np.arange(views) < count % views).astype(np.int64)


def uniform_centres(
    rng: np.random.Generator, count: int, size: tuple[int, int], patch: int, bounds: PatchBounds = "inclusive"
) -> NDArray[np.int32]:
    """Return [count, 2] patch centres (x, y), uniform over all places where the whole patch is inside the image.

    `exclusive` bounds leave out the last place along each axis, as the released code does, so that the last row and
    column of pixels are never drawn (published_system 4.1: top in 0..183 and left in 0..631 at 192x640).
    """
    height, width = size
    places = 1 if bounds == "inclusive" else 0
    if patch - places >= min(size):
        raise ConfigError(
            f"patches of {patch} pixels do not fit into images of {height}x{width}", fix="lower training.patch_size"
        )
    corner = np.stack(
        [rng.integers(width - patch + places, size=count), rng.integers(height - patch + places, size=count)], axis=-1
    )
    return (corner + patch // 2).astype(np.int32)


def choose_anchors(rng: np.random.Generator, anchors: NDArray[np.integer], count: int) -> NDArray[np.int32]:
    """Return `count` different ones of the anchors [A, 2] of an image, in random order.

    Raises:
        ConfigError: more patches are asked for than the image has anchors.
    """
    if count > len(anchors):
        raise ConfigError(
            f"{count} patches of one view cannot be chosen among its {len(anchors)} anchors",
            fix="lower training.patches and training.depth_patches, or set both samplers of training to uniform",
        )
    return np.asarray(anchors[rng.choice(len(anchors), size=count, replace=False)], dtype=np.int32)


def choose_patches(
    rng: np.random.Generator,
    loss_views: Sequence[int],
    anchors: Sequence[NDArray[np.integer] | None],
    *,
    count: int,
    share: str,
    size: tuple[int, int],
    patch: int,
    bounds: PatchBounds = "inclusive",
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return centres [count, 2] (x, y) and views [count] of the colour patches of one sample.

    Args:
        rng: named generator of this draw.
        loss_views: positions of the loss views.
        anchors: for each view of the sample its anchors [A, 2], or None to draw uniformly.
        count: patches of the sample.
        share: `even` or `random`, see `share_patches`.
        size: height and width of the images.
        patch: side of a patch.
        bounds: of uniform patches, see `uniform_centres`.
    """
    centres, views = [], []
    for view, number in zip(loss_views, share_patches(rng, count, len(loss_views), share), strict=True):
        held = anchors[view]
        if held is None:
            centres.append(uniform_centres(rng, int(number), size, patch, bounds))
        else:
            centres.append(choose_anchors(rng, held, int(number)))
        views.append(np.full(int(number), view, dtype=np.int64))
    return np.concatenate(centres), np.concatenate(views)


def patch_pixels(centres: Tensor, patch: int) -> Tensor:
    """Return pixels [B, P, patch, patch, 2] (x, y) of patches around centres [B, P, 2].

    A patch covers centre - patch/2 to centre + patch/2 - 1, rows before columns.
    """
    offset = torch.arange(patch, device=centres.device) - patch // 2
    grid = torch.stack(torch.meshgrid(offset, offset, indexing="xy"), dim=-1)
    return centres[:, :, None, None, :] + grid


def patch_rays(
    pixels: Tensor,
    views: Tensor,
    intrinsics: Tensor,
    key_from_view: Tensor,
    size: tuple[int, int],
    convention: Convention,
) -> Rays:
    """Return the rays [B, P*patch*patch] of patches, in the frame of the key camera.

    Args:
        pixels: [B, P, patch, patch, 2] integer pixels (x, y).
        views: [B, P] view of each patch.
        intrinsics: [B, V, 3, 3] normalised intrinsics.
        key_from_view: [B, V, 4, 4].
        size: height and width of the images.
        convention: pixel convention, `centre` or `official`.
    """
    batch, patches = views.shape
    sample = torch.arange(batch, device=views.device)[:, None]
    of_patch, pose = intrinsics[sample, views], key_from_view[sample, views]
    coordinates = pixel_to_ndc(pixels.to(intrinsics.dtype), size, convention).flatten(2, 3)  # [B, P, s*s, 2]
    directions = ray_directions(of_patch.flatten(0, 1), coordinates.flatten(0, 1)).unflatten(0, (batch, patches))
    directions = transform(directions, pose[..., :3, :3])
    origins = pose[..., None, :3, 3].expand_as(directions)
    return Rays(origins=origins.reshape(batch, -1, 3), directions=directions.reshape(batch, -1, 3))


def patch_colours(images: Tensor, pixels: Tensor, views: Tensor) -> Tensor:
    """Return the colours [B, P, patch, patch, 3] of patches, gathered at once from images [B, V, 3, H, W]."""
    sample = torch.arange(len(views), device=views.device)[:, None, None, None]
    return images[sample, views[:, :, None, None], :, pixels[..., 1], pixels[..., 0]]


def patch_values(image: Tensor, pixels: Tensor) -> Tensor:
    """Return the values [B, P, patch, patch] of an image [B, 1, H, W] at pixels [B, P, patch, patch, 2]."""
    sample = torch.arange(len(image), device=image.device)[:, None, None, None]
    return image[sample, 0, pixels[..., 1], pixels[..., 0]]


def patch_depth_factors(pixels: Tensor, intrinsics: Tensor, size: tuple[int, int], convention: Convention) -> Tensor:
    """Return depth / distance [B, P, patch, patch] along the rays of pixels of the view with intrinsics [B, 3, 3]."""
    coordinates = pixel_to_ndc(pixels.to(intrinsics.dtype), size, convention)
    return depth_factor(intrinsics, coordinates.flatten(1, 3)).reshape(pixels.shape[:-1])


def patch_rays_reference(
    pixels: Tensor,
    views: Tensor,
    intrinsics: Tensor,
    key_from_view: Tensor,
    size: tuple[int, int],
    convention: Convention,
) -> Rays:
    """Return what `patch_rays` does, one ray at a time in the order sample, patch, row, column."""
    origins, directions = [], []
    for sample in range(len(views)):
        for patch in range(views.shape[1]):
            view = int(views[sample, patch])
            pose = key_from_view[sample, view]
            for row in range(pixels.shape[2]):
                for column in range(pixels.shape[3]):
                    pixel = pixels[sample, patch, row, column].to(intrinsics.dtype)
                    x, y = pixel_to_ndc(pixel, size, convention)
                    ray = torch.linalg.solve(intrinsics[sample, view], torch.stack([x, y, torch.ones_like(x)]))
                    origins.append(pose[:3, 3])
                    directions.append(pose[:3, :3] @ (ray / ray.norm()))
    shape = (len(views), -1, 3)
    return Rays(origins=torch.stack(origins).reshape(shape), directions=torch.stack(directions).reshape(shape))


def patch_colours_reference(images: Tensor, pixels: Tensor, views: Tensor) -> Tensor:
    """Return what `patch_colours` does, one pixel at a time."""
    colours = torch.empty(*pixels.shape[:-1], 3, dtype=images.dtype)
    for sample, patch, row, column in np.ndindex(*pixels.shape[:-1]):
        x, y = pixels[sample, patch, row, column].tolist()
        colours[sample, patch, row, column] = images[sample, int(views[sample, patch]), :, y, x]
    return colours
