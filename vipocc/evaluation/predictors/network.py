"""Our networks as what is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vipocc.data_manifests.manifest import FrameKey
from vipocc.errors import DeviceError
from vipocc.evaluation.predictors.interface import Batch, Unit
from vipocc.evaluation.predictors.prior import NO_PRIOR, Priors
from vipocc.evaluation.report import Kind
from vipocc.model.heads.interface import HeadInputs
from vipocc.model.network import ViPOcc
from vipocc.model.replay import Replayed
from vipocc.progress import say

MOST_REPLAYED = 1 << 20
"""Points of a batch above which a network is called as it is: starting its kernels is then no part of the time."""


class NetworkOccupancy:
    """The density of a network in evaluation mode."""

    unit: Unit = "density"

    def __init__(self, name: str, kind: Kind, model: ViPOcc, note: str = "") -> None:
        self.name, self.kind, self.model, self.note = name, kind, model, note
        self._batch: Batch | None = None
        self._encoded: HeadInputs | None = None
        self._replayed: Replayed | None = Replayed(self._density)
        self._shapes: set[tuple[torch.Size, ...]] = set()
        self._maps: tuple[str, ...] = ()

    def missing(self, key: FrameKey) -> str | None:
        """Return None: a network needs the image alone."""
        return None

    @torch.no_grad()
    def occupancy(self, batch: Batch, points: Tensor) -> Tensor:
        """Return sigma in 1/m at the points, see `OccupancyPredictor`.

        On CUDA the network is replayed as a graph from the second batch of a shape on: recording one for the short
        batch at a split's end would take longer than that batch.
        """
        self._maps = tuple(sorted(batch.maps))
        given = (batch.images, batch.intrinsics_ndc, points, *(batch.maps[name] for name in self._maps))
        shapes = tuple(tensor.shape for tensor in given)
        few = batch.images.is_cuda and len(batch.images) * len(points) <= MOST_REPLAYED
        if few and self._replayed is not None and shapes in self._shapes:
            try:
                # What a graph gives is overwritten by its next replay.
                return self._replayed(*given).clone()
            except DeviceError as error:
                self._replayed = None
                say(f"'{self.name}' is evaluated more slowly than it could be: {error.what}")
        self._shapes.add(shapes)
        density = self.model.density(
            self._features(batch), points.expand(len(batch.images), -1, -1), batch.intrinsics_ndc
        )
        return density.float()

    def _density(self, images: Tensor, intrinsics_ndc: Tensor, points: Tensor, *maps: Tensor) -> Tensor:
        features = self.model.encode_keys(images, intrinsics_ndc, dict(zip(self._maps, maps, strict=True)))
        return self.model.density(features, points.expand(len(images), -1, -1), intrinsics_ndc).float()

    @torch.no_grad()
    def depth(self, batch: Batch) -> Sequence[Tensor]:
        """Return the depth [H, W] that the density renders to: what `slice-20` takes for visible lies before it."""
        size = (batch.images.shape[-2], batch.images.shape[-1])
        return list(self.model.render_depth(self._features(batch), batch.intrinsics_ndc, size)[:, 0].float())

    def _features(self, batch: Batch) -> HeadInputs:
        # One batch is encoded once, whether its occupancy, its depth or both are asked for.
        if self._encoded is None or batch is not self._batch:
            self._encoded = self.model.encode_keys(batch.images, batch.intrinsics_ndc, batch.maps)
            self._batch = batch
        return self._encoded


class NetworkDepth:
    """The depth of a network in evaluation mode: rendered from its density, or its depth branch's."""

    def __init__(
        self,
        model: ViPOcc,
        which: Literal["rendered", "branch"],
        priors: Priors | None = None,
        *,
        name: str = "",
        kind: Kind = "measured",
        note: str = "",
    ) -> None:
        """Evaluate `which` depth of a network.

        Args:
            model: the network; `branch` needs one with a depth branch.
            which: `rendered` (as published) or `branch`.
            priors: what a branch refines; one that predicts depth from the image alone needs none.
            name: of the row, by default `which`.
            kind: of the row.
            note: what the table says of it.
        """
        self.model, self.which, self.priors = model, which, priors
        self.name, self.kind, self.note = name or which, kind, note

    @property
    def needs_prior(self) -> bool:
        """Whether a frame without pseudo-depth has no prediction."""
        branch = self.model.depth_branch
        return self.which == "branch" and branch is not None and branch.needs_prior

    def missing(self, key: FrameKey) -> str | None:
        """Return why there is no prediction of a frame, None if there is one."""
        there = not self.needs_prior or (self.priors is not None and self.priors.has(key))
        return None if there else NO_PRIOR

    @torch.no_grad()
    def depth(self, batch: Batch) -> Sequence[Tensor]:
        """Return metres along the optical axis at the pixels of the image, see `DepthPredictor`."""
        model, images = self.model, batch.images
        if self.which == "rendered":
            jitter = None
            if model.config.renderer.evaluation_jitter:
                jitter = torch.Generator(images.device).manual_seed(0)
            encoded = model.encode_keys(images, batch.intrinsics_ndc, batch.maps)
            size = (images.shape[-2], images.shape[-1])
            return list(model.render_depth(encoded, batch.intrinsics_ndc, size, jitter=jitter)[:, 0].float())
        prior = None
        if self.priors is not None and self.needs_prior:
            stacked = np.stack([np.asarray(self.priors.read(key), np.float32) for key in batch.keys])
            prior = torch.from_numpy(stacked)[:, None].to(images.device)
        return list(model.refine_depth(images, prior)[:, 0].float())
