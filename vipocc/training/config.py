"""Schema of the `training` section: schedule, ray sampling, losses, checkpoints and logging.

Every length that depends on the amount of data is counted in samples, so that another batch size leaves the schedule
where it was. Values of the two profiles stand in `presets/profiles/`; the defaults here are those of `paper`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from vipocc.config import Schema


class LossConfig(Schema):
    """Weights and variants of the training losses (paper, section 3.5; published_system 5)."""

    rgb: float = Field(default=1.0, ge=0.0)
    """Weight of the photometric error of rendered patches (Eq. 11)."""
    depth: float = Field(default=0.0025, ge=0.0)
    """Weight of the consistency of rendered and refined depth (Eq. 10)."""
    temporal: float = Field(default=0.005, ge=0.0)
    """Weight of the temporal alignment of the refined depth (Eq. 9)."""
    smoothness: float = Field(default=0.0, ge=0.0)
    """Weight of the edge-aware smoothness of rendered patches, BTS's (published_system 5.4; its value is .001)."""
    temporal_kind: Literal["paper", "official"] = "paper"
    """`paper`: weight mask only, points in front of the camera; `official`: with geometry term and clamps."""
    criterion: Literal["l1+ssim", "l1", "l2"] = "l1+ssim"
    """Photometric error of a pixel: Eq. 11, or the mean absolute or squared difference of its channels."""
    invalid_rays: Literal["weight_guided", "weight_guided_diverse", "strict", "none"] = "weight_guided"
    """Which rays carry no photometric error: most weight outside all render views (`diverse`: or colours that hardly
    differ along the ray), any sample outside, or none."""
    depth_kind: Literal["metric", "near", "normalised"] = "metric"
    """Eq. 10 in metres, weighted towards near pixels, or of both depths stretched to 0..1 over the batch."""
    average: Literal["valid", "all"] = "valid"
    """Photometric mean over the rays that carry an error, or (the released code) over all rays."""


class TrainingConfig(Schema):
    """How the model is trained."""

    epochs: float = Field(default=25.0, gt=0.0)
    """Length of the run in passes over the training keys."""
    max_steps: int | None = Field(default=None, ge=1)
    """Length of the run in optimiser steps, instead of `epochs`."""
    batch_size: int = Field(default=8, ge=1)
    """Samples in one optimiser step, over all processes and `accumulate` parts."""
    accumulate: int = Field(default=1, ge=1)
    """Parts in which each process takes its share of a batch through the model one after another: the same gradient
    (but for batch normalisation, which sees a part) in less memory, for a third more time."""
    learning_rate: float = Field(default=1e-4, gt=0.0)
    """Initial learning rate of Adam."""
    decay_factor: float = Field(default=0.1, gt=0.0, le=1.0)
    """What the learning rate is multiplied by at each decay."""
    decay_last: float = Field(default=0.4, ge=0.0, le=1.0)
    """Share of the run, at its end, that is trained after one decay (10 of 25 epochs); unused with `decay_every`."""
    decay_every: int | None = Field(default=None, ge=1)
    """Decay after each so many samples instead (the released code: 120,000 steps of 8 samples)."""
    gradient_clip: float | None = Field(default=None, gt=0.0)
    """Largest norm of the gradient, or null for none (published)."""
    ema: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Decay of a running average of the weights, for example 0.999, which is then what is validated and saved; null
    for none (published)."""

    patches: int = Field(default=64, ge=1)
    """Colour patches of each sample, shared evenly among its loss views (64: 16 of each of four)."""
    patch_size: int = Field(default=8, ge=3)
    """Side of a patch in pixels; it covers centre - size/2 to centre + size/2 - 1."""
    depth_patches: int = Field(default=32, ge=1)
    """Patches of view 0 on which rendered and refined depth are compared."""
    sampler: Literal["snog", "uniform"] = "snog"
    """Colour patches at SNOG's anchors (uniform in a view that has none, as fisheye views), or uniform in all."""
    depth_sampler: Literal["snog", "uniform"] = "snog"
    """Depth patches at anchors of view 0, or uniform."""
    patch_bounds: Literal["inclusive", "exclusive"] = "inclusive"
    """Uniform patches anywhere in the image, or never over its last row and column (released code)."""
    view_split: Literal["crosswise", "official"] = "crosswise"
    """Loss and render views alternate over cameras and time steps; `official` does so with eight views only and else
    draws two render views at random (the released code's mode for KITTI Raw)."""
    view_share: Literal["even", "random"] = "even"
    """Patches per loss view: the same number for each, or each patch in a view drawn at random (released code)."""
    shared_patches: bool = False
    """Use one set of uniform patches for the whole batch (released code) instead of one per sample."""
    sample_jitter: bool = True
    """Move the samples of a ray at random inside their bins."""

    flip: Literal["geometry", "features", "none"] = "geometry"
    """Mirror half of the samples with their calibration, or only the encoder's input and output (released code)."""
    colour_jitter: bool = False
    """Vary brightness, contrast and saturation by up to 20 % and hue by up to 0.1, alike in all views of a sample."""

    loss: LossConfig = LossConfig()
    """Weights and variants of the losses."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` takes a CUDA device if there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the 2D networks (`auto`: bfloat16 on CUDA); geometry, rendering and losses are always float32."""
    workers: int = Field(default=4, ge=0)
    """Processes that read samples, in each of the processes that train; 0 reads in the trainer's own."""
    prefetch: int = Field(default=2, ge=1)
    """Batches that each worker reads ahead; shared memory holds as many for each, and one more."""
    compile: Literal["auto", "always", "never"] = "auto"
    """Compile the 2D networks, which takes a minute; `auto` does on CUDA in runs of at least 2,000 steps."""
    cuda_graph: bool = True
    """Start a step's kernels by one call, on CUDA, alone and without `accumulate`; else each by its own."""
    fused: bool = True
    """Render by kernels that keep nothing per sample, on CUDA with a density head that has some."""
    deterministic: bool = False
    """Only operations that give the same bits every time: slower on CUDA, and one that has no such form is an error."""

    log_every: int = Field(default=10, ge=1)
    """Steps between lines of metrics.jsonl."""
    tensorboard: bool = True
    """Also write TensorBoard event files."""
    wandb: str | None = None
    """Also send the figures to this project of Weights & Biases, which must be installed."""
    checkpoint_every: int = Field(default=1000, ge=1)
    """Steps between checkpoints; one is always written at the end."""
    save_in_background: bool = True
    """Write checkpoints from a copy in memory while training goes on."""
    keep: int = Field(default=3, ge=1)
    """Newest checkpoints that are kept, besides the best."""
    validate_every: int = Field(default=2000, ge=1)
    """Steps between validations; one is always made at the end."""
    validation_frames: int = Field(default=64, ge=0)
    """Size of the fixed subset of val keys; 0 never validates."""
    best_metric: Literal[
        "rendered_depth/abs_rel", "refined_depth/abs_rel", "occupancy/o_acc", "occupancy/balanced_accuracy"
    ] = "rendered_depth/abs_rel"
    """Validation figure that chooses the best checkpoint (abs_rel: the smaller the better)."""

    @model_validator(mode="after")
    def _patches_can_be_cut(self) -> Self:
        if self.patch_size % 2:
            raise ValueError("patch_size must be even, since a patch covers centre - size/2 to centre + size/2 - 1")
        return self
