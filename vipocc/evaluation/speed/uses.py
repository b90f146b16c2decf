"""The uses of a trained model that Table 9 times, as functions of what changes from image to image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vipocc.evaluation.occupancy.slices import slice_points
from vipocc.model.network import ViPOcc
from vipocc.model.replay import Replayed

PERSPECTIVE = [[0.7849, 0.0, -0.0312], [0.0, 2.9391, 0.2701], [0.0, 0.0, 1.0]]
"""Normalised intrinsics of KITTI-360's left camera."""
PRIOR = 12.0
"""Metres of the prior that the branch refines; its value costs no time."""


@dataclass(frozen=True)
class Example:
    """Inputs of the same noise at every run."""

    images: Tensor
    """float32 [B, 3, H, W] in [0, 1]."""
    prior: Tensor
    """float32 [B, 1, H, W] in metres."""
    intrinsics: Tensor
    """[B, 3, 3], normalised."""
    points: Tensor
    """The slice's cells [B, 12800, 3]."""

    @property
    def bytes(self) -> Tensor:
        """The images as a camera gives them, uint8 [B, H, W, 3]."""
        return (self.images * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@dataclass(frozen=True)
class Use:
    """A function of one tensor, and that tensor."""

    function: Callable[[Tensor], Tensor]
    given: Tensor

    def call(self, *, graphed: bool) -> Callable[[], Tensor]:
        """Return it as a call without gradients; `graphed` replays it as one CUDA graph where there is CUDA."""
        function = Replayed(self.function) if graphed else torch.no_grad()(self.function)
        return lambda: function(self.given)


def example(batch: int, size: tuple[int, int], device: torch.device) -> Example:
    """Return inputs for `batch` images of `size` (height, width)."""
    images = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0))
    return Example(
        images.to(device),
        torch.full((batch, 1, *size), PRIOR, device=device),
        torch.tensor(PERSPECTIVE, device=device).expand(batch, 3, 3).contiguous(),
        torch.from_numpy(slice_points()).to(device).expand(batch, -1, -1),
    )


def uses_of(model: ViPOcc, given: Example, maps: Mapping[str, Tensor] | None = None) -> dict[str, Use]:
    """Return what a model is used for, by name.

    `occupancy`: density at the 12,800 cells of the slice. `rendered_depth`: depth of all pixels through the density
    field. `depth_branch`, where the model has one: refined depth, its prior given. Each from an image on the device.

    Args:
        model: in evaluation mode.
        given: the inputs.
        maps: per-pixel maps [B, C, H', W'] that the density head asks for, by name.
    """
    k, size = given.intrinsics, (given.images.shape[-2], given.images.shape[-1])

    def occupancy(images: Tensor) -> Tensor:
        return model.density(model.encode_keys(images, k, maps), given.points, k)

    def rendered(images: Tensor) -> Tensor:
        return model.render_depth(model.encode_keys(images, k, maps), k, size)

    uses = {"occupancy": Use(occupancy, given.images), "rendered_depth": Use(rendered, given.images)}
    branch = model.depth_branch
    if branch is not None:
        needs = branch.needs_prior
        uses["depth_branch"] = Use(
            lambda images: model.refine_depth(images, given.prior) if needs else model.refine_depth(images),
            given.images,
        )
    return uses
