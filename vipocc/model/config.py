"""Schema of the `model` section: encoder, decoder, density field, depth branch and renderer.

Defaults are those of the `paper` profile; what `official` changes stands in `presets/profiles/`.
"""

from __future__ import annotations

import difflib
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from vipocc.config import Schema
from vipocc.model.heads.registry import head_kinds


class EncoderConfig(Schema):
    """An image encoder of the ResNet family."""

    name: Literal["resnet18", "resnet34", "resnet50"] = "resnet50"
    """Architecture, torchvision's, without the classifier."""
    width: float = Field(default=1.0, gt=0.0, le=4.0)
    """Multiplier of all channel counts; other than 1 makes a network for which no pretrained weights exist."""
    pretrained: str = "imagenet"
    """Initial weights: `imagenet` (torchvision's, fetched once; of ResNet-50 version 2, as the released ViPOcc),
    `imagenet-v1` (as BTS), `none`, or the path of a state dict in torchvision's names (.pth, .safetensors)."""

    @model_validator(mode="after")
    def _weights_fit_the_width(self) -> Self:
        if self.width != 1.0 and self.pretrained in ("imagenet", "imagenet-v1"):
            raise ValueError("there are no ImageNet weights for a width other than 1: use pretrained=none or a path")
        return self


class DecoderConfig(Schema):
    """What makes the features of the occupancy branch from its encoder's levels."""

    kind: Literal["monodepth", "pyramid"] = "monodepth"
    """`monodepth`: Monodepth2's decoder, features of the image's size; `pyramid`: PixelNeRF's, the first four levels
    enlarged to half the image's size and stacked, without weights of its own."""
    widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 64, 64, 128, 256)
    """Channels from the finest to the coarsest stage (the released 32, 32, 64, 128, 256, raised to 64 as it does)."""
    channels: PositiveInt = 64
    """Channels of the reconstruction features F_r; those of `pyramid` follow from the encoder."""


class FieldConfig(Schema):
    """The density field: code of a point and the network that reads it (published_system 3.3)."""

    frequencies: PositiveInt = 6
    """Octaves of the positional encoding."""
    base_frequency: float = Field(default=1.5, gt=0.0)
    """Its lowest frequency, in radians per unit of normalised coordinate; each octave doubles it."""
    hidden: PositiveInt = 64
    """Width of the one hidden layer of the head `mlp`."""
    near: float = Field(default=3.0, gt=0.0)
    """Distance in metres where rays begin and the depth code is 1."""
    far: float = Field(default=80.0, gt=0.0)
    """Distance in metres where rays end and the depth code is -1."""

    @model_validator(mode="after")
    def _near_before_far(self) -> Self:
        if self.near >= self.far:
            raise ValueError("near must be smaller than far")
        return self


class PixelNeRFConfig(Schema):
    """PixelNeRF's head; the defaults are those of its adaptation to KITTI-360 (comparison_methods 4.1)."""

    width: PositiveInt = 512
    """Width of its residual blocks."""
    blocks: PositiveInt = 5
    """How many of them."""
    conditioning: Literal["concat", "add"] = "concat"
    """How features enter: beside the code of the point, or (the published network) added before each of the first
    `conditioned_blocks` blocks."""
    conditioned_blocks: PositiveInt = 3
    """Blocks behind which several source views are averaged, and before which `add` adds features."""
    view_directions: bool = False
    """Whether the direction of the ray is read as well (the published network does)."""
    density: Literal["relu", "softplus"] = "relu"
    """What makes densities of the network's output."""
    views: PositiveInt = 1
    """Source views in training."""

    @model_validator(mode="after")
    def _blocks_to_condition(self) -> Self:
        if self.conditioned_blocks > self.blocks:
            raise ValueError("conditioned_blocks must not be larger than blocks")
        return self


class MapConfig(Schema):
    """Where a per-pixel map of the key view is read from."""

    store: str = Field(min_length=1)
    """Store of the workspace, `NAME` of `NAME.zarr`; its groups and rows are those of the frames."""
    array: str = Field(min_length=1)
    """Array in it, [N, H, W] or [N, H, W, C]."""


class HeadConfig(Schema):
    """The density head: which one, and what it reads."""

    kind: str = "mlp"
    """`mlp` (BTS's), `pixelnerf`, or one that another package registers (entry-point group `vipocc.heads`)."""
    pixelnerf: PixelNeRFConfig = PixelNeRFConfig()
    """Options of `pixelnerf`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of a head that another package registers, checked by that head."""
    maps: dict[str, MapConfig] = Field(default_factory=dict)
    """Stores of the per-pixel maps that the head asks for, by the name that it gives them."""

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        kinds = head_kinds()
        if kind not in kinds:
            near = difflib.get_close_matches(kind, kinds, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(kinds)}"
            raise ValueError(f"there is no such density head ({hint})")
        return kind


class DepthBranchConfig(Schema):
    """The branch that aligns a pseudo-depth with the scene (paper, section 3.3)."""

    kind: Literal["inverse_residual", "residual", "depth", "none"] = "inverse_residual"
    """What its network predicts: a residual of inverse depth or of depth, both on a pseudo-depth, or depth itself
    without any (Monodepth2). With `none` there is no branch, and losses that look at it are left out."""
    encoder: EncoderConfig = EncoderConfig(name="resnet18")
    """Its own image encoder."""
    widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (16, 32, 64, 128, 256)
    """Decoder channels from the finest to the coarsest stage."""
    decoder: Literal["paper", "official"] = "paper"
    """`paper`: Table 7's decoder to the features F_s, then a 1x1 convolution; `official`: one 3x3 to the residual."""
    channels: PositiveInt = 64
    """Channels of F_s in the `paper` decoder."""
    refinement: Literal["paper", "official"] = "paper"
    """`paper`: 1/D = clamp(1/D_p + r, 1/max_depth, 1/min_depth); `official`: 1/D = 1/D_p + r/10 + 1e-8. Of `residual`:
    D = clamp(D_p + r) and D = D_p + 80 sigmoid(r) + .5, whose two numbers are learnt."""
    min_depth: float = Field(default=0.1, gt=0.0)
    """Smallest depth in metres, of the prior and of what comes out."""
    max_depth: float = Field(default=80.0, gt=0.0)
    """Largest depth in metres, likewise."""

    @property
    def needs_prior(self) -> bool:
        """Whether it refines a pseudo-depth, and does not predict depth from the image alone."""
        return self.kind in ("inverse_residual", "residual")

    @model_validator(mode="after")
    def _min_before_max(self) -> Self:
        if self.min_depth >= self.max_depth:
            raise ValueError("min_depth must be smaller than max_depth")
        return self


class RendererConfig(Schema):
    """Volume rendering along rays (published_system 4)."""

    samples: int = Field(default=64, ge=2)
    """Samples of a ray, spread evenly in inverse distance."""
    hard_cap: bool = True
    """Let each ray end at its last sample at the latest, so that its weights sum to 1."""
    evaluation_jitter: bool = False
    """Move samples at random in evaluation too (the released code); else they stand in the middle of their bins."""
    chunk: PositiveInt = 262_144
    """Points evaluated at once where no gradient is asked for; bounds memory, changes no value."""


class ModelConfig(Schema):
    """Everything that is learned."""

    encoder: EncoderConfig = EncoderConfig()
    """Encoder of the occupancy branch."""
    decoder: DecoderConfig = DecoderConfig()
    """Decoder of the occupancy branch."""
    field: FieldConfig = FieldConfig()
    """Density field: where rays run, and the code of a point that every head reads."""
    head: HeadConfig = HeadConfig()
    """Density head."""
    depth_branch: DepthBranchConfig = DepthBranchConfig()
    """Depth branch."""
    renderer: RendererConfig = RendererConfig()
    """Volume renderer."""
