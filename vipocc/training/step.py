"""One optimisation step: from a batch to the losses of section 3.5 of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vipocc.errors import ConfigError
from vipocc.model.config import DepthBranchConfig
from vipocc.model.heads.interface import HeadInputs
from vipocc.model.network import ViPOcc
from vipocc.model.renderer import ColourViews
from vipocc.training import losses
from vipocc.training.batch import Batch, mirror, share_choices, to_batch, vary_colours
from vipocc.training.config import TrainingConfig
from vipocc.training.rays import patch_colours, patch_depth_factors, patch_pixels, patch_rays, patch_values


def needs_depth_branch(config: TrainingConfig, branch: DepthBranchConfig) -> bool:
    """Return whether any loss looks at the depth branch; without a branch none does, whatever the weights."""
    return branch.kind != "none" and (config.loss.depth > 0 or config.loss.temporal > 0)


def needs_prior(config: TrainingConfig, branch: DepthBranchConfig) -> bool:
    """Return whether the pseudo-depth of the keys is needed."""
    return branch.needs_prior and needs_depth_branch(config, branch)


def prepare(raw: Mapping[str, Tensor], config: TrainingConfig, device: torch.device) -> Batch:
    """Return a collated batch on the device, augmented as configured."""
    batch = to_batch(raw, device)
    if config.shared_patches:
        batch = share_choices(batch)
    if "colour_factors" in raw:
        batch = replace(batch, images=vary_colours(batch.images, raw["colour_factors"]))
    return mirror(batch) if config.flip == "geometry" else batch


def training_losses(
    model: ViPOcc, batch: Batch, config: TrainingConfig, *, jitter: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Return the losses of a batch, each a scalar: `total` and its unweighted terms.

    These are `rgb` and, as far as they are asked for, `depth`, `temporal` and `smoothness`.

    Args:
        model: the model, in training mode and with its own precision of the 2D networks; the rest is float32.
        batch: what `prepare` returned.
        config: weights and variants of the losses, patches.
        jitter: generator of the places of samples in their bins, None for mid-bin samples.
    """
    return combine(training_means(model, batch, config, jitter=jitter), config)


def combine(means: Mapping[str, losses.Mean], config: TrainingConfig) -> dict[str, Tensor]:
    """Return `total` and its unweighted terms from what `training_means` returned.

    With the counts of a whole optimiser step in place of those of a part of its batch, these are the part's shares:
    they add up to the losses of the whole step, and so do their gradients.
    """
    terms = {"rgb": means["rgb"].value}
    if "depth" in means:
        terms["depth"] = means["depth"].value
    if "temporal" in means:
        terms["temporal"] = means["temporal"].value
    if "smoothness" in means:
        terms["smoothness"] = means["smoothness"].value
    if "temporal/geometry" in means:
        parts = means["temporal"], means["temporal/geometry"]
        terms["temporal"] = losses.official_value(parts[0]) + losses.official_value(parts[1])
    weights = (config.loss.rgb, config.loss.depth, config.loss.temporal, config.loss.smoothness)
    others = (terms.get(name) for name in ("depth", "temporal", "smoothness"))
    return {"total": losses.total(terms["rgb"], *others, weights=weights), **terms}


def training_means(
    model: ViPOcc, batch: Batch, config: TrainingConfig, *, jitter: torch.Generator | None = None
) -> dict[str, losses.Mean]:
    """Return what the losses of a batch are means of, by name; `combine` makes losses of them.

    `rgb`, `depth`, `temporal` and `smoothness`, those that are asked for, and `temporal/geometry` of the released
    temporal loss.
    Arguments as `training_losses`.
    """
    features = _encode(model, batch, config)
    means = _colour_terms(model, features, batch, config, jitter)
    if needs_depth_branch(config, model.config.depth_branch):
        refined = _refine(model, batch, config)
        if config.loss.depth > 0:
            means["depth"] = _depth_term(model, features, refined[:, 0], batch, config, jitter)
        if config.loss.temporal > 0:
            temporal = _temporal_term(model, refined, batch, config)
            means["temporal"] = temporal.photometric
            if config.loss.temporal_kind == "official":
                means["temporal/geometry"] = temporal.geometry
    return means


def _encode(model: ViPOcc, batch: Batch, config: TrainingConfig) -> HeadInputs:
    """Return the features of the source views that the head asks for, the key view first."""
    wanted, views = model.head.needs.views, batch.images.shape[1]
    if wanted > views:
        raise ConfigError(
            f"the density head {model.config.head.kind} asks for {wanted} source views, but a sample has {views}",
            fix="lower the number of its views",
        )
    return model.encode_views(
        batch.images[:, :wanted],
        batch.intrinsics[:, :wanted],
        invert_rigid(batch.key_from_view[:, :wanted]),
        batch.maps,
        # The released augmentation shows the encoder a mirrored image and mirrors its answer back.
        mirrored=batch.mirrored if config.flip == "features" else None,
    )


def _refine(model: ViPOcc, batch: Batch, config: TrainingConfig) -> Tensor:
    """Return the refined depth [B, n, 1, H, W] of the key camera at t and, where a loss looks at it, t + 1."""
    images, prior = batch.images[:, :2], None if batch.prior_depth is None else batch.prior_depth[:, :, None]
    if config.loss.temporal > 0 and config.loss.temporal_kind == "official":
        both = model.refine_depth(images.flatten(0, 1), None if prior is None else prior.flatten(0, 1))
        steps: Tensor = both.unflatten(0, (-1, 2))
        return steps

    def refine(view: int) -> Tensor:
        return model.refine_depth(images[:, view], None if prior is None else prior[:, view])

    depths = [refine(0)]
    if config.loss.temporal > 0:
        # The depth at t + 1 only enters the weight mask of Eq. 9, through which no gradient goes.
        with torch.no_grad():
            depths.append(refine(1))
    return torch.stack(depths, dim=1)


def _colour_terms(
    model: ViPOcc, features: HeadInputs, batch: Batch, config: TrainingConfig, jitter: torch.Generator | None
) -> dict[str, losses.Mean]:
    pixels = patch_pixels(batch.centres, config.patch_size)
    rays = patch_rays(pixels, batch.patch_views, batch.intrinsics, batch.key_from_view, batch.size, model.convention)
    keep = config.loss.invalid_rays == "weight_guided_diverse"
    views = None if model.head.predicts_colour else _render_views(batch)
    policy = config.loss.invalid_rays
    rendered = model.render(
        features,
        batch.intrinsics[:, 0],
        rays,
        views,
        jitter=jitter,
        keep_samples=keep,
        per_sample=policy not in ("weight_guided", "none"),
    )
    assert rendered.colours is not None
    patches = pixels.shape[:-1]  # [B, P, size, size]
    target = patch_colours(batch.images, pixels, batch.patch_views)
    error = losses.colour_error(rendered.colours.unflatten(1, patches[1:]), target, config.loss.criterion)
    if rendered.unseen is not None:
        invalid = losses.mostly_unseen(rendered.unseen, policy)
    else:
        assert rendered.weights is not None
        assert rendered.invalid is not None
        invalid = losses.invalid_rays(rendered.weights, rendered.invalid, policy, rendered.samples)
    invalid = invalid.reshape(patches)
    means = {"rgb": losses.colour_loss(error, invalid, config.loss.average)}
    if config.loss.smoothness > 0:
        distance = rendered.distance.reshape(patches)
        means["smoothness"] = losses.smoothness(distance, target, invalid, config.loss.average)
    return means


def _render_views(batch: Batch) -> ColourViews:
    """Return the views that colours are looked up in."""
    sample = torch.arange(len(batch.images), device=batch.images.device)[:, None]
    return ColourViews(
        images=batch.images[sample, batch.render_views],
        intrinsics_ndc=batch.intrinsics[sample, batch.render_views],
        view_from_key=invert_rigid(batch.key_from_view[sample, batch.render_views]),
    )


def _depth_term(
    model: ViPOcc,
    features: HeadInputs,
    refined: Tensor,
    batch: Batch,
    config: TrainingConfig,
    jitter: torch.Generator | None,
) -> losses.Mean:
    pixels = patch_pixels(batch.depth_centres, config.patch_size)
    key = torch.zeros_like(batch.depth_centres[..., 0])
    rays = patch_rays(pixels, key, batch.intrinsics, batch.key_from_view, batch.size, model.convention)
    # All of them start at the key camera, so that features are looked up once per ray and not per sample.
    rays = replace(rays, central=True)
    distance = model.render(features, batch.intrinsics[:, 0], rays, jitter=jitter).distance
    factor = patch_depth_factors(pixels, batch.intrinsics[:, 0], batch.size, model.convention)
    wanted = patch_values(refined, pixels)
    return losses.depth_consistency(distance.reshape(factor.shape), factor, wanted, config.loss.depth_kind)


def _temporal_term(model: ViPOcc, refined: Tensor, batch: Batch, config: TrainingConfig) -> losses.Temporal:
    target, reference = (2.0 * batch.images[:, view] - 1.0 for view in (0, 1))
    intrinsics, next_from_key = batch.intrinsics[:, 0], invert_rigid(batch.key_from_view[:, 1])
    depths = refined[:, 0], refined[:, 1]
    if config.loss.temporal_kind == "official":
        return losses.temporal_loss_official(target, reference, *depths, intrinsics, next_from_key)
    return losses.temporal_loss(target, reference, *depths, intrinsics, next_from_key, model.convention)


def invert_rigid(transform: Tensor) -> Tensor:
    """Return the inverse of rigid transforms [..., 4, 4], with the transposed rotation: no solver, no device wait."""
    turn = transform[..., :3, :3].transpose(-1, -2)
    shift = -(turn * transform[..., None, :3, 3]).sum(-1, keepdim=True)
    last = torch.zeros_like(transform[..., 3:, :])
    last[..., 3] = 1.0
    return torch.cat([torch.cat([turn, shift], dim=-1), last], dim=-2)
