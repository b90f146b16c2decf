"""Pictures in, depth and occupancy out: the one path that the command and the Python interface take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vipocc.apps.predict.checkpoints import TrainingCamera
from vipocc.apps.predict.framing import Framing, frame
from vipocc.apps.predict.grid import Grid
from vipocc.apps.predict.prior import Prior
from vipocc.errors import UsageError
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.ndc import intrinsics_to_ndc
from vipocc.model.heads.interface import DensityHead, HeadInputs
from vipocc.model.network import ViPOcc

DepthKind = Literal["refined", "predicted", "rendered"]
_POINTS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class View:
    """A picture as the network gets it."""

    image: NDArray[np.uint8]
    """[H, W, 3]."""
    framing: Framing


@dataclass(frozen=True)
class Prediction:
    """What the network says of one view."""

    view: View
    depth: NDArray[np.float32] | None
    """[H, W] metres along the optical axis; NaN where the picture shows nothing or there is no depth."""
    prior: NDArray[np.float32] | None
    """[H, W] pseudo-depth, where a depth model was given."""
    density: NDArray[np.float32] | None
    """[nx, ny, nz] in 1/m, of the grid's cells."""


class Predictor:
    """A network with the camera it knows, and perhaps a depth model."""

    def __init__(
        self,
        model: ViPOcc,
        training: TrainingCamera,
        *,
        resize: str = "area",
        prior: Prior | None = None,
    ) -> None:
        """Take a network in evaluation mode.

        Raises:
            UsageError: its density head needs more than one picture tells.
        """
        needs = model.head.needs
        if needs.maps or needs.fewest_views > 1:
            lacks = f"per-pixel maps ({', '.join(needs.maps)})" if needs.maps else f"{needs.fewest_views} views"
            raise UsageError(
                f"the density head {model.config.head.kind} needs {lacks}, which a single picture does not bring",
                fix="use a checkpoint with another head, or the stages of a workspace",
            )
        self.model, self.training, self.resize, self.prior = model, training, resize, prior
        intrinsics = intrinsics_to_ndc(training.camera.matrix, training.camera.size, model.convention)
        self._intrinsics = torch.from_numpy(np.asarray(intrinsics, np.float32)).to(model.device)

    @property
    def depth_kind(self) -> DepthKind:
        """How depth comes about: the branch's on pseudo-depth, the branch's own, or rendered from the density."""
        branch = self.model.depth_branch
        if branch is None or (branch.needs_prior and self.prior is None):
            return "rendered"
        return "refined" if branch.needs_prior else "predicted"

    def view(self, image: NDArray[np.uint8], camera: Pinhole) -> View:
        """Bring a picture uint8 [h, w, 3] to the training camera; raises `DataError` where that makes no sense."""
        framing = frame(camera, self.training.camera, self.model.convention)
        return View(framing.apply(image, self.resize), framing)

    @torch.no_grad()
    def predict(self, views: Sequence[View], grid: Grid | None = None, *, depth: bool = True) -> list[Prediction]:
        """Predict views together.

        Args:
            views: of `view`.
            grid: cells whose density is wanted; None for none.
            depth: whether depth is wanted.
        """
        images = self._images(views)
        intrinsics = self._intrinsics.expand(len(views), 3, 3)
        features: HeadInputs | None = None
        if grid is not None or (depth and self.depth_kind == "rendered"):
            features = self.features(views)
        found: Tensor | None = None
        priors: NDArray[np.float32] | None = None
        if depth:
            if self.prior is not None:
                priors = self.prior(np.stack([view.image for view in views]), self.training.camera.matrix)
            found = self._depth(images, intrinsics, features, priors)[:, 0].float().cpu()
        densities: NDArray[np.float32] | None = None
        if grid is not None:
            assert features is not None
            points = torch.from_numpy(grid.points())
            densities = self._density(features, points, intrinsics).reshape(len(views), *grid.shape)
        predictions = []
        for at, view in enumerate(views):
            one = None if found is None else np.asarray(found[at].numpy(), np.float32)
            if one is not None:
                one = np.where(view.framing.seen & np.isfinite(one) & (one > 0), one, np.float32(np.nan))
            predictions.append(
                Prediction(
                    view,
                    one,
                    None if priors is None else priors[at],
                    None if densities is None else densities[at],
                )
            )
        return predictions

    @torch.no_grad()
    def features(self, views: Sequence[View]) -> HeadInputs:
        """Return what the networks make of views, for `density_of`."""
        return self.model.encode_keys(self._images(views), self._intrinsics.expand(len(views), 3, 3))

    @torch.no_grad()
    def density_of(self, features: HeadInputs, points: NDArray[Any]) -> NDArray[np.float32]:
        """Return the density [N] in 1/m at points [N, 3] in the camera's frame, metres, of one view's features."""
        given = torch.from_numpy(np.ascontiguousarray(points, dtype=np.float32))
        return np.asarray(self._density(features, given, self._intrinsics[None])[0])

    def _images(self, views: Sequence[View]) -> Tensor:
        stacked = torch.from_numpy(np.stack([view.image for view in views])).to(self.model.device)
        return stacked.permute(0, 3, 1, 2).float() / 255.0

    def _depth(
        self, images: Tensor, intrinsics: Tensor, features: HeadInputs | None, priors: NDArray[np.float32] | None
    ) -> Tensor:
        if self.depth_kind == "rendered":
            assert features is not None
            height, width = images.shape[-2:]
            return self.model.render_depth(features, intrinsics, (height, width), jitter=self._jitter())
        if self.depth_kind == "predicted":
            return self.model.refine_depth(images)
        return self.model.refine_depth(images, torch.from_numpy(np.asarray(priors))[:, None].to(images.device))

    def _density(self, features: HeadInputs, points: Tensor, intrinsics: Tensor) -> NDArray[np.float32]:
        """Densities [B, N] at the same points [N, 3] for all views, in parts unless the head must know all of them."""
        apart = type(self.model.head).gather is DensityHead.gather
        step = max(1, _POINTS_AT_ONCE // len(intrinsics)) if apart else max(1, len(points))
        parts = []
        for some in points.split(step):
            given = some.to(self.model.device).expand(len(intrinsics), -1, -1)
            parts.append(self.model.density(features, given, intrinsics).float().cpu())
        return np.asarray(torch.cat(parts, dim=1).numpy()) if parts else np.zeros((len(intrinsics), 0), np.float32)

    def _jitter(self) -> torch.Generator | None:
        # The released code moves samples in evaluation too; the same picture gets the same depth all the same.
        if not self.model.config.renderer.evaluation_jitter:
            return None
        return torch.Generator(self.model.device).manual_seed(0)
