"""SNOG: the semantic-guided non-overlapping Gaussian mixture sampler of ray-patch anchors (paper, section 3.4)."""

from vipocc.priors.snog.config import SnogConfig
from vipocc.priors.snog.figures import SamplerFigures, summarise, valid_rays
from vipocc.priors.snog.mixture import Instances, Mixture, density, mixture
from vipocc.priors.snog.sampler import (
    check_image,
    draw_anchors,
    draw_anchors_reference,
    draw_sets,
    draw_uniform,
)

__all__ = [
    "Instances",
    "Mixture",
    "SamplerFigures",
    "SnogConfig",
    "check_image",
    "density",
    "draw_anchors",
    "draw_anchors_reference",
    "draw_sets",
    "draw_uniform",
    "mixture",
    "summarise",
    "valid_rays",
]
