"""The command `vipocc eval sampler`."""

from __future__ import annotations

from typing import Any

import click

from vipocc.cli import App, pass_app, workspace_options
from vipocc.evaluation.options import frame_options, limit_options, show, speaker


@click.command()
@frame_options
@limit_options("n_v", "n_vc", "psi_v")
@workspace_options
@pass_app
def sampler(app: App, /, as_json: bool, **options: Any) -> None:
    """How many distinct rays 64 patches use and how many lie on critical instances: random beside SNOG (Table 10)."""
    from vipocc.evaluation.sampler.run import run_sampler

    report, folder = run_sampler(app.workspace, app.config, say=speaker(app, as_json), **options)
    show(app, report, folder, as_json)
