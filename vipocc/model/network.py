"""The whole model: an occupancy branch (features, density field, renderer) and a depth branch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import torch
from torch import Tensor, nn

from vipocc.errors import DeviceError, UsageError
from vipocc.geometry.ndc import Convention, check_convention, ndc_grid, ray_directions
from vipocc.model.config import ModelConfig
from vipocc.model.decoder import Decoder, Pyramid
from vipocc.model.depth_branch import DepthBranch
from vipocc.model.encoder import ResNetEncoder, pretrained_encoder
from vipocc.model.field import PointQuery, density_at
from vipocc.model.fused.rendering import can_fuse, render_rays_fused
from vipocc.model.heads.interface import HeadInputs
from vipocc.model.heads.registry import build_head
from vipocc.model.precision import at_least_float32
from vipocc.model.renderer import (
    ColourViews,
    Rays,
    Rendered,
    ray_query,
    rays_at_once,
    render_rays,
    sample_distances,
)

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
SMALLEST_SIDE = 64
"""Images of a shorter side would leave the deepest level without the two rows that reflection needs."""

_CPU_CHUNK = 65_536
"""Points at once on the CPU: their intermediates stay small enough for the allocator to use the same memory again,
which a step over 300,000 points repays with a third of its time."""


class ViPOcc(nn.Module):
    """Single-image occupancy and metric depth.

    The 2D networks run in the precision set by `use_precision` (by default bfloat16 on CUDA); projection, density
    field, rendering and refinement always run in float32, also under a caller's autocast.
    """

    def __init__(self, config: ModelConfig, convention: Convention = "centre", *, initialise: bool = True) -> None:
        """Build the model.

        Args:
            config: the `model` section.
            convention: pixel convention of the data it is used with (`data.convention`).
            initialise: give encoders their pretrained weights; False when a checkpoint follows.

        Raises:
            CheckpointError: pretrained weights cannot be had.
        """
        super().__init__()
        check_convention(convention)
        self.config = config
        self.convention: Convention = convention
        self.encoder = (
            pretrained_encoder(config.encoder, "model.encoder") if initialise else ResNetEncoder(config.encoder)
        )
        self.decoder: Decoder | Pyramid
        if config.decoder.kind == "pyramid":
            self.encoder.drop_deepest()
            self.decoder = Pyramid(self.encoder.channels)
        else:
            self.decoder = Decoder(self.encoder.channels, config.decoder.widths, config.decoder.channels)
        self.head = build_head(config, self.decoder.channels)
        self.depth_branch: DepthBranch | None = None
        if config.depth_branch.kind != "none":
            self.depth_branch = DepthBranch(config.depth_branch, initialise=initialise)
        self.precision: Precision = "auto"
        self.fused = True
        """Whether rays are rendered by kernels where there are some (CUDA, a head that `fuses`)."""
        self._compiled: dict[str, Any] = {}
        self.loaded_config: Mapping[str, Any] = {}
        """The whole configuration of the checkpoint that this model was loaded from, as plain values."""

    def use_precision(self, precision: Precision) -> Self:
        """Set the precision of the 2D networks: `auto` is bfloat16 on CUDA, float32 elsewhere. Returns self."""
        if precision not in ("auto", "float32", "bfloat16"):
            raise UsageError(f"precision must be auto, float32 or bfloat16, not {precision!r}")
        self.precision = precision
        return self

    def compile_networks(self) -> Self:
        """Let the 2D networks be compiled for training, at their first use and for each shape anew. Returns self.

        Takes about a minute on CUDA. In evaluation mode they run as they are.
        """
        for function in (self._features, self._residual):
            self._compiled[function.__name__] = torch.compile(function, dynamic=False)
        return self

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def encode(self, images: Tensor, *, flip: bool = False) -> Tensor:
        """Reconstruction features F_r [B, C, H, W], float32, of images [B, 3, H, W] in [0, 1].

        With the decoder `pyramid` they have half that size. With `flip` the encoder sees the mirrored images and its
        output is mirrored back (the released augmentation).
        """
        given = images.flip(-1) if flip else images
        features = at_least_float32(self._network(given, self._features))
        return features.flip(-1) if flip else features

    def encode_views(
        self,
        images: Tensor,
        intrinsics_ndc: Tensor,
        view_from_key: Tensor,
        maps: Mapping[str, Tensor] | None = None,
        *,
        mirrored: Tensor | None = None,
    ) -> HeadInputs:
        """Encode source views for a head that asks for more than the key image; the key view comes first.

        Args:
            images: [B, V, 3, H, W] in [0, 1].
            intrinsics_ndc: [B, V, 3, 3].
            view_from_key: [B, V, 4, 4] in metres.
            maps: per-pixel maps [B, C, H', W'] of the key view, by name.
            mirrored: bool [B], samples whose images the encoder sees mirrored and whose features are mirrored back.
        """
        shown = images
        if mirrored is not None:
            chosen = mirrored[:, None, None, None, None]
            shown = torch.where(chosen, images.flip(-1), images)
        features = self._network(shown.flatten(0, 1), self._features).unflatten(0, shown.shape[:2])
        if not (self.fused and self.head.fuses):
            features = at_least_float32(features)
        if mirrored is not None:
            features = torch.where(chosen, features.flip(-1), features)
        return HeadInputs(features, intrinsics_ndc, view_from_key, images, maps or {})

    def encode_keys(
        self, images: Tensor, intrinsics_ndc: Tensor, maps: Mapping[str, Tensor] | None = None
    ) -> HeadInputs:
        """Encode key images [B, 3, H, W] alone, as evaluation has them; intrinsics_ndc [B, 3, 3], maps [B, C, H', W'].

        For a head that looks at neither colours nor maps, `encode` and its features are enough.
        """
        pose = torch.eye(4, device=images.device, dtype=intrinsics_ndc.dtype).expand(len(images), 1, 4, 4)
        return self.encode_views(images[:, None], intrinsics_ndc[:, None], pose, maps)

    def density(
        self, features: Tensor | HeadInputs, points: Tensor, intrinsics_ndc: Tensor, *, chunk: int | None = None
    ) -> Tensor:
        """Density sigma [B, N] in 1/m at points [B, N, 3] in the key camera's frame.

        features [B, C, H, W] from `encode`, or what `encode_views` returned; intrinsics_ndc [B, 3, 3]; at most `chunk`
        points at once, by default what suits the device.
        """
        with _full_precision(points):
            if chunk is None:
                chunk = self._chunk()
            query = PointQuery.of_points(points, intrinsics_ndc)
            return density_at(self.head, self._prepare(features, intrinsics_ndc), query, chunk)[..., 0]

    def refine_depth(self, images: Tensor, prior: Tensor | None = None) -> Tensor:
        """Refined depth [B, 1, H, W] in metres, of images [B, 3, H, W] in [0, 1] and pseudo-depth [B, 1, H, W].

        A branch of kind `depth` needs no pseudo-depth and looks at none.

        Raises:
            UsageError: the model has no depth branch, or the prior is missing or of another shape.
        """
        if self.depth_branch is None:
            raise UsageError(
                "this model has no depth branch (model.depth_branch.kind is none)", fix="use its rendered depth"
            )
        if prior is not None and tuple(prior.shape) != (images.shape[0], 1, *images.shape[-2:]):
            raise UsageError(
                f"the prior must be [B, 1, H, W] like its images {list(images.shape)}, not {list(prior.shape)}"
            )
        residual = at_least_float32(self._network(images, self._residual))
        with _full_precision(images):
            return self.depth_branch.refine(prior, residual)

    def render(
        self,
        features: Tensor | HeadInputs,
        intrinsics_ndc: Tensor,
        rays: Rays,
        views: ColourViews | None = None,
        *,
        jitter: torch.Generator | None = None,
        keep_samples: bool = False,
        per_sample: bool = False,
    ) -> Rendered:
        """Render rays given in the key camera's frame, with colours if there are `views` or the head predicts them.

        features [B, C, H, W] from `encode`, or what `encode_views` returned; intrinsics_ndc [B, 3, 3] of the key
        camera; `jitter` moves samples inside their bins, without it they stand in the middle; with `keep_samples` the
        colours of the samples come too. Kernels keep nothing per sample, unless `per_sample` asks for what they do not.
        """
        with _full_precision(rays.directions):
            shape = (rays.directions.shape[0], rays.directions.shape[1])
            distances = self._distances(shape, jitter, rays.directions.device)
            prepared, hard_cap = self._prepare(features, intrinsics_ndc), self.config.renderer.hard_cap
            if self._fuses(distances) and not (keep_samples or per_sample):
                return render_rays_fused(self.head, prepared, intrinsics_ndc, rays, distances, views, hard_cap=hard_cap)
            return render_rays(
                self.head,
                prepared,
                intrinsics_ndc,
                rays,
                distances,
                views,
                hard_cap=hard_cap,
                chunk=self._chunk(),
                keep_samples=keep_samples,
            )

    @torch.no_grad()
    def render_depth(
        self,
        features: Tensor | HeadInputs,
        intrinsics_ndc: Tensor,
        size: tuple[int, int],
        *,
        jitter: torch.Generator | None = None,
    ) -> Tensor:
        """Rendered depth along the optical axis [B, 1, H, W] in metres of the key view, without gradient.

        `features` as for `render`; `size` is (H, W). Rays go through in chunks and only their depth is kept.
        """
        batch, device = len(intrinsics_ndc), intrinsics_ndc.device
        with _full_precision(intrinsics_ndc):
            intrinsics_ndc = at_least_float32(intrinsics_ndc)
            xy = ndc_grid(size, self.convention, device=device).reshape(-1, 2)
            directions = ray_directions(intrinsics_ndc, xy)
            if self._fuses(directions):
                rays = Rays(torch.zeros_like(directions), directions, central=True)
                depth = self.render(features, intrinsics_ndc, rays, jitter=jitter).distance * directions[..., 2]
                return depth.reshape(batch, 1, *size)
            parts = directions.split(rays_at_once(self.config.renderer, batch), dim=1)

            def rays_of(some: Tensor, generator: torch.Generator | None) -> tuple[Rays, Tensor]:
                distances = self._distances((batch, some.shape[1]), generator, device)
                return Rays(torch.zeros_like(some), some, central=True), distances

            # All rays of the image are one call; a head that gathers draws the same distances once more.
            again = None if jitter is None else jitter.clone_state()
            queries = (ray_query(*rays_of(some, again), intrinsics_ndc) for some in parts)
            prepared = self.head.gather(self._prepare(features, intrinsics_ndc), queries)
            depths = []
            for some in parts:
                rays, distances = rays_of(some, jitter)
                rendered = render_rays(
                    self.head,
                    prepared,
                    intrinsics_ndc,
                    rays,
                    distances,
                    hard_cap=self.config.renderer.hard_cap,
                    gathered=True,
                )
                depths.append(rendered.distance * some[..., 2])
            return torch.cat(depths, dim=1).reshape(batch, 1, *size)

    def save_pretrained(self, path: str | Path, config: Mapping[str, Any] | None = None) -> None:
        """Write `model.safetensors`, `config.yaml` and a model card; see `vipocc.model.checkpoint.save_with_card`."""
        from vipocc.model import checkpoint

        checkpoint.save_with_card(self, Path(path), config)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
    ) -> ViPOcc:
        """Read a model that `save_pretrained` wrote, in evaluation mode.

        Args:
            path: its folder, which needs no network, or the id of a hub repository (see `vipocc.model.hub.find_model`).
            device: where it goes.
            revision: branch, tag or commit of a hub repository.
            cache_dir: the hub's cache.

        Raises:
            CheckpointError: there is no such model, it cannot be fetched, or it is damaged.
            DeviceError: the device is not there.
        """
        from vipocc.model import checkpoint, hub

        return checkpoint.load(hub.find_model(path, revision=revision, cache_dir=cache_dir), device)

    def _fuses(self, like: Tensor) -> bool:
        return self.fused and can_fuse(self.head, self.config.renderer.samples, like)

    def _prepare(self, features: Tensor | HeadInputs, intrinsics_ndc: Tensor) -> Any:
        inputs = HeadInputs.of_key(features, intrinsics_ndc) if isinstance(features, Tensor) else features
        inputs.check(self.head.needs, self.config.head.kind)
        return self.head.prepare(inputs.features[:, 0], inputs)

    def _network(self, images: Tensor, function: Any) -> Tensor:
        height, width = images.shape[-2:]
        if images.ndim != 4 or images.shape[1] != 3 or min(height, width) < SMALLEST_SIDE:
            raise UsageError(
                f"images must be [B, 3, H, W] with sides of at least {SMALLEST_SIDE} pixels, not {list(images.shape)}"
            )
        with self._autocast(images.device.type):
            if images.device.type == "cuda":
                images = images.contiguous(memory_format=torch.channels_last)
            else:
                # Not channels last, as a batch comes: on the CPU the gradient of the networks then corrupts memory
                # (torch 2.14; not without oneDNN; seen with one image of 192x640).
                images = images.contiguous()
            if self.training:
                function = self._compiled.get(function.__name__, function)
            result: Tensor = function(images)
        return result[..., :height, :width]

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = self.decoder(self.encoder(images))
        return features

    def _residual(self, images: Tensor) -> Tensor:
        assert self.depth_branch is not None
        residual: Tensor = self.depth_branch(images)
        return residual

    def _autocast(self, device: str) -> AbstractContextManager[Any]:
        reduced = self.precision == "bfloat16" or (self.precision == "auto" and device == "cuda")
        if reduced and device == "cuda" and not torch.cuda.is_bf16_supported():
            raise DeviceError("this GPU has no bfloat16", fix="use --dtype float32")
        return torch.autocast(device, dtype=torch.bfloat16, enabled=reduced)

    def _distances(self, shape: tuple[int, int], jitter: torch.Generator | None, device: torch.device) -> Tensor:
        field, samples = self.config.field, self.config.renderer.samples
        return sample_distances(field.near, field.far, samples, shape, jitter=jitter, device=device)

    def _chunk(self) -> int | None:
        if self.device.type == "cpu":
            return min(self.config.renderer.chunk, _CPU_CHUNK)
        # With gradients every chunk's intermediates live until the backward pass, so cutting would save nothing.
        return None if torch.is_grad_enabled() else self.config.renderer.chunk


def _full_precision(like: Tensor) -> AbstractContextManager[Any]:
    return torch.autocast(like.device.type, enabled=False)
