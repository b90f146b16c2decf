"""The commands `vipocc eval ...`."""

from __future__ import annotations

import click

from vipocc.evaluation.compare.commands import compare
from vipocc.evaluation.depth.commands import depth
from vipocc.evaluation.figures.commands import figures
from vipocc.evaluation.occupancy.commands import occupancy
from vipocc.evaluation.points.commands import points
from vipocc.evaluation.priors.commands import priors
from vipocc.evaluation.sampler.commands import sampler
from vipocc.evaluation.speed.commands import speed


@click.group("eval")
def eval_() -> None:
    """Evaluate occupancy, depth, priors, the ray sampler and speed.

    Every report states its protocol with a digest and the frames that were left out, and puts published rows beside
    ours.
    """


for command in (occupancy, depth, priors, sampler, speed, points, compare, figures):
    eval_.add_command(command)
