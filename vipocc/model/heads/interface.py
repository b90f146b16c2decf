"""What a density head is: it says what it needs, gets it, and turns points into densities and perhaps colours.

Renderer and training step know heads by this interface alone. `docs/adding-a-head.md` shows how one is added.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vipocc.errors import UsageError

if TYPE_CHECKING:
    from vipocc.model.config import ModelConfig
    from vipocc.model.field import PointQuery
    from vipocc.model.renderer import Rays


@dataclass(frozen=True)
class HeadNeeds:
    """What a head asks for besides the features of the key image, so that data side and encoder know."""

    views: int = 1
    """Source views that are encoded for it in training: the key view and those that follow it in a sample."""
    fewest_views: int = 1
    """With how many it still works, so in evaluation: 1 where the key image alone will do."""
    images: bool = False
    """Whether it looks at the colours of its source views, too."""
    maps: tuple[str, ...] = ()
    """Names of per-pixel maps of the key view (labels, features of another model); `model.head.maps` names the store
    of each."""


@dataclass(frozen=True)
class HeadInputs:
    """What is known of the V source views of B samples; the key view is the first."""

    features: Tensor
    """[B, V, C, H, W] the encoder's, float32, or for a head that `fuses` in the precision of the networks."""
    intrinsics_ndc: Tensor
    """[B, V, 3, 3] normalised intrinsics."""
    view_from_key: Tensor
    """[B, V, 4, 4] rigid transforms in metres."""
    images: Tensor | None = None
    """[B, V, 3, H, W] colours in [0, 1]."""
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    """By name, [B, C, H', W'] maps of the key view, in the type they are stored in."""

    @classmethod
    def of_key(cls, features: Tensor, intrinsics_ndc: Tensor) -> HeadInputs:
        """Return the inputs of key views alone, features [B, C, H, W] and intrinsics [B, 3, 3]."""
        pose = torch.eye(4, device=features.device, dtype=intrinsics_ndc.dtype).expand(len(features), 1, 4, 4)
        return cls(features[:, None], intrinsics_ndc[:, None], pose)

    def check(self, needs: HeadNeeds, head: str) -> None:
        """Raise `UsageError` unless everything that a head cannot do without is there."""
        views = self.features.shape[1]
        if views < needs.fewest_views:
            raise UsageError(
                f"the density head {head} needs at least {needs.fewest_views} source views and was given {views}",
                fix="pass what `ViPOcc.encode_views` returns in place of features",
            )
        if needs.images and self.images is None:
            raise UsageError(
                f"the density head {head} needs the colours of its source views",
                fix="pass what `ViPOcc.encode_views` returns in place of features",
            )
        missing = [name for name in needs.maps if name not in self.maps]
        if missing:
            raise UsageError(
                f"the density head {head} needs the per-pixel map '{missing[0]}' of the key view",
                fix=f"name its store with -o 'model.head.maps.{missing[0]}={{store: NAME, array: NAME}}', or pass it "
                "to `ViPOcc.encode_views`",
            )


def channels_first(stored: Tensor) -> Tensor:
    """Return per-pixel maps as stored, [B, H, W] or [B, H, W, C], as heads get them: [B, C, H, W]."""
    return stored[:, None] if stored.ndim == 3 else stored.permute(0, 3, 1, 2)


class DensityHead(nn.Module, ABC):
    """What turns image features and points into densities, and perhaps colours.

    A call goes `prepare` once for a batch of images, `gather` once for all points of the call, then `forward` (or
    `radiance`) for one part of the points after another.
    """

    needs: HeadNeeds = HeadNeeds()
    """What it asks for; an instance may replace it according to its options."""
    predicts_colour: bool = False
    """Whether `radiance` gives colours; else they are looked up in the render views."""
    fuses: bool = False
    """Whether there is a `fused_density`; features then come in the precision of the network that made them."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: ModelConfig, channels: int) -> DensityHead:
        """Build a head of the configuration's kind for features of so many channels."""

    @abstractmethod
    def prepare(self, features: Tensor, inputs: HeadInputs | None = None) -> Any:
        """Do once for a batch of images what does not depend on points.

        features [B, C, H, W] of the key views; `inputs` holds them, too, and all else that `needs` names. A head that
        needs nothing else works without. Returns whatever the other methods take.
        """

    def gather(self, prepared: Any, queries: Iterable[PointQuery]) -> Any:
        """Return `prepared` with what the head must know of all points of a call before it is asked about any.

        The parts of the call come one after another, each with whole rays. Most heads look at nothing but the points
        of one part and leave this as it is; then the parts are not even made.
        """
        return prepared

    @abstractmethod
    def forward(self, prepared: Any, query: PointQuery) -> Tensor:
        """Densities [B, P, S] in 1/m, not negative, float32.

        Points of one ray always come together (`PointQuery.along_rays`); other points of the call only by `gather`.
        """

    def radiance(self, prepared: Any, query: PointQuery) -> tuple[Tensor, Tensor]:
        """Densities [B, P, S] as `forward`, and colours [B, P, S, 3] in [0, 1]; only where `predicts_colour`."""
        raise NotImplementedError(f"{type(self).__name__} predicts no colour")

    def fused_density(self, prepared: Any, rays: Rays, distances: Tensor, intrinsics_ndc: Tensor) -> Tensor:
        """Densities [B, R, S] at distances [B, R, S] along rays, by a kernel (`vipocc.model.fused`), on CUDA alone.

        intrinsics_ndc [B, 3, 3] of the key camera. `forward` is its plain twin.
        """
        raise NotImplementedError(f"{type(self).__name__} has no kernel")

    def unseen(self, prepared: Any, query: PointQuery) -> Tensor:
        """Points of which the head knows nothing, bool [B, P, S]: by default those that the key image does not show.

        Rays that end mostly in such points carry no photometric error.
        """
        return query.unseen
