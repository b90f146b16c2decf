"""The command `train`."""

from __future__ import annotations

from pathlib import Path

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
@click.option(
    "--deterministic", is_flag=True, help="The same bits every time, at some cost; -o training.deterministic=true."
)
@click.option(
    "--profile-trace", is_flag=True, help="Record a trace of some steps in the run's folder, and its top ten."
)
@click.option(
    "--reproduce",
    type=click.Path(path_type=Path),
    metavar="DUMP",
    help="Only do the step again that was not finite, from the folder nonfinite-step_N of a run.",
)
@workspace_options
@pass_app
def train(
    app: App,
    resume: str | None,
    name: str | None,
    steps: int | None,
    device: str | None,
    no_auto: bool,
    deterministic: bool,
    profile_trace: bool,
    reproduce: Path | None,
) -> None:
    """Train the occupancy model on what `vipocc priors` prepared.

    Needs the frames, pseudo-depth and anchors of the training split; what is missing is one error with the command
    that makes it. A run is kept in runs/ and can be stopped at any time and gone on with by --resume. On several GPUs:
    `torchrun --nproc-per-node N -m -- vipocc train ...`.
    """
    from vipocc.errors import UsageError

    if reproduce is not None:
        _reproduce(app, reproduce, device)
        return
    if deterministic:
        app.overrides += ("training.deterministic=true",)
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

    from vipocc.errors import NonFiniteError
    from vipocc.training.distributed import rank_here
    from vipocc.training.session import start_training

    try:
        summary = start_training(
            workspace,
            config,
            resume=resume,
            overrides=app.overrides,
            name=name,
            device=device,
            auto=not no_auto,
            profile=profile_trace,
            say=app.say,
        )
    except (NonFiniteError, KeyboardInterrupt) as error:
        # Every process meets these, and the first one tells.
        if rank_here() == 0:
            raise
        raise click.exceptions.Exit(getattr(error, "exit_code", 130)) from None
    if rank_here() > 0:
        return
    shown = ", ".join(
        f"{key} {summary.figures[key]:.4g}" for key in sorted(summary.figures) if key == "loss" or "/abs_rel" in key
    )
    app.say(f"trained {summary.steps} steps: {shown}; checkpoint {summary.checkpoint}")
    app.say("next: vipocc eval occupancy")


def _reproduce(app: App, dump: Path, device: str | None) -> None:
    """Do the step of a dump again and say what came out; what is not finite again is the error it was."""
    import torch

    from vipocc.errors import NonFiniteError
    from vipocc.priors.devices import resolve_devices
    from vipocc.training.failure import reproduce

    found = reproduce(dump, torch.device(resolve_devices(device or "auto")[0]))
    for line in found.lines():
        app.say(line)
    if not found.finite:
        raise NonFiniteError(
            f"step {found.step} is not finite here either", where=dump, fix="see the lines above for where it begins"
        )
