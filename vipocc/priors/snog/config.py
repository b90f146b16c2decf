"""Schema of `priors.snog`: the mixture that anchors are drawn from and how many are kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vipocc.config import Schema


class SnogConfig(Schema):
    """The SNOG sampler (paper, equations 4-6, A.3, A.4)."""

    patch: Annotated[int, Field(ge=2, le=64)] = 8
    """Side l of a patch in pixels; it covers centre - l/2 to centre + l/2 - 1, and anchors keep sqrt(2) l apart."""
    anchors: Annotated[int, Field(ge=1, le=4096)] = 64
    """Anchors of one draw: the patches of one image in one iteration."""
    draws: Annotated[int, Field(ge=1, le=1024)] = 25
    """Independent draws stored for each image, one for each of 25 epochs."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Weight of the uniform part of the mixture; the Gaussians share the rest."""
    uniform_area: Literal["outside_gaussian", "image"] = "outside_gaussian"
    """Where the uniform part lies: outside the masks of Gaussian-kind instances (area s of Eq. A.4), or, as the
    released code does it, over the whole image."""
