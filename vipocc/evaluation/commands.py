"""The commands `vipocc eval ...`, each loaded when it is called: most need torch, which takes seconds."""

from __future__ import annotations

import click

from vipocc.cli import LazyGroup

#: Command name, which is its package's: its line in `vipocc eval --help`.
COMMANDS: dict[str, str] = {
    "occupancy": "Occupancy in front of the camera: published metrics, rings of distance, precision.",
    "depth": "Metric depth: rendered, the depth branch and the prior itself.",
    "priors": "Pseudo-depth against the truth (Table 4), and the instances.",
    "sampler": "How many distinct rays the samplers use, and where: random beside SNOG (Table 10).",
    "speed": "Parameters, and images per second of occupancy and depth (Table 9).",
    "points": "Write a protocol's frames and query points for a method that runs elsewhere.",
    "compare": "Put reports and published rows side by side, with paired differences.",
    "figures": "Draw Figures 1 and 3 to 10 of the paper from reports.",
}


@click.group(
    "eval",
    cls=LazyGroup,
    table={name: (f"vipocc.evaluation.{name}.commands:{name}", told) for name, told in COMMANDS.items()},
)
def eval_() -> None:
    """Evaluate occupancy, depth, priors, the ray sampler and speed.

    Every report states its protocol with a digest and the frames that were left out, and puts published rows beside
    ours.
    """
