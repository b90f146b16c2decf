"""The command `train`."""

from __future__ import annotations

import click

from vipocc.cli import App, pass_app, workspace_options


@click.command()
@click.option(
    "--resume",
    is_flag=False,
    flag_value="latest",
    metavar="[RUN]",
    help="Go on with a run, by name or path, or without one with the latest; its own configuration is used.",
)
@click.option("--run", "name", metavar="NAME", help="Name of the new run [default: <time>-<preset>].")
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Train N steps in all; -o training.max_steps=N.")
@click.option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N [default: training.device].")
@click.option("--no-auto", is_flag=True, help="Refuse to prepare images that are missing.")
@workspace_options
@pass_app
def train(app: App, resume: str | None, name: str | None, steps: int | None, device: str | None, no_auto: bool) -> None:
    """Train the occupancy model on what `vipocc priors` prepared.

    Needs the frames, pseudo-depth and anchors of the training split; what is missing is one error with the command
    that makes it. A run is kept in runs/ and can be stopped at any time and gone on with by --resume.
    """
    from vipocc.errors import UsageError

    if steps is not None:
        app.overrides += (f"training.max_steps={steps}",)
    if resume is None:
        config = app.config
    else:
        if name is not None:
            raise UsageError("--run names a new run and --resume goes on with an old one", fix="give one of them")
        if app.preset is not None or app.profile is not None:
            raise UsageError(
                "a resumed run keeps its own preset and profile", fix="leave --preset and --profile out, or start anew"
            )
        config = None  # the checkpoint's own
    workspace = app.workspace

    from vipocc.training.session import start_training

    summary = start_training(
        workspace,
        config,
        resume=resume,
        overrides=app.overrides,
        name=name,
        device=device,
        auto=not no_auto,
        say=app.say,
    )
    shown = ", ".join(
        f"{key} {summary.figures[key]:.4g}" for key in sorted(summary.figures) if key == "loss" or "/abs_rel" in key
    )
    app.say(f"trained {summary.steps} steps: {shown}; checkpoint {summary.checkpoint}")
    app.say("next: vipocc eval occupancy")
