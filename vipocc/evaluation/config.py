"""Schema of the `evaluation` section: how an evaluation runs. What it measures is the protocol's, and frozen."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vipocc.config import Schema

Count = Annotated[int, Field(ge=1)]


class EvaluationConfig(Schema):
    """How evaluations run; none of this changes what a metric means."""

    batch_size: Count = 4
    """Images that go through the network at once."""
    untrained: bool = True
    """Whether an untrained network of the same configuration is evaluated beside the checkpoint."""
    resamples: Count = 1000
    """Bootstrap resamples of a confidence interval."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Coverage of confidence intervals."""
    iterations: Count = 1000
    """Draws over which the sampler's figures are averaged (Table 10)."""
    pictures: Annotated[int, Field(ge=0, le=64)] = 4
    """Frames that a report of occupancy or depth pictures, evenly spaced over the evaluated; `--picture` adds some."""
