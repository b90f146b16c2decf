"""Commands that stand on top of the rest: init, config, demo, doctor."""

from __future__ import annotations

from pathlib import Path

import click

from vipocc.cli import App, pass_app, path_option, workspace_options
from vipocc.workspace import Workspace


@click.command()
@click.option(
    "--dataset",
    required=True,
    metavar="NAME",
    help="kitti-360, kitti-raw, ddad or synthetic, which needs no files at all.",
)
@path_option("--root", metavar="FOLDER", help="Folder the dataset was unpacked into; never written to.")
@click.option(
    "--scale", type=click.FloatRange(0.05, 1.0), help="Synthetic world: image size relative to KITTI-360's (1: native)."
)
@click.option(
    "--world",
    metavar="NAME",
    help="Synthetic world: tiny, small, default or large, instead of the preset's; says frames, time and disk.",
)
@click.option("--full-fisheye", is_flag=True, help="Synthetic world: fill the whole image circle of the fisheyes.")
@workspace_options
@pass_app
def init(app: App, dataset: str, root: Path | None, scale: float | None, world: str | None, full_fisheye: bool) -> None:
    """Make a workspace: the folder of -C, by default this one.

    --preset and -o are written into it and hold for every command there. The synthetic world is generated later, by
    the first command that needs it.
    """
    from vipocc import config
    from vipocc.data_manifests.datasets import adapter
    from vipocc.errors import UsageError

    adapter(dataset)  # an unknown dataset is refused before anything is written
    if dataset != "synthetic" and (scale is not None or world is not None or full_fisheye):
        raise UsageError(
            f"--scale, --world and --full-fisheye are of the synthetic world, not of {dataset}", fix="leave them out"
        )
    overrides = app.overrides
    if world is not None:
        from vipocc.data_manifests.synthetic.worlds import named

        overrides = named(world).overrides() + overrides  # what is set by itself wins
    if scale is not None:
        overrides += (f"data.world.scale={scale}",)
    if full_fisheye:
        overrides += ("data.world.full_fisheye=true",)
    if app.profile is not None:
        overrides += (f"profile={app.profile}",)
    if dataset == "synthetic":
        overrides = _synthetic_priors() + overrides  # what is set by itself wins
    config.load(app.preset, overrides=overrides)  # an unknown preset or key is refused before anything is written
    workspace = Workspace.create(Path(app.workspace_dir or "."), dataset, root, app.preset, overrides)
    own = f", {', '.join(workspace.overrides)}" if workspace.overrides else ""
    app.say(
        f"workspace {workspace.path}: dataset {workspace.dataset} at {workspace.root}, preset '{workspace.preset}'{own}"
    )
    if dataset == "synthetic":
        from vipocc.data_manifests.stage import cores
        from vipocc.data_manifests.synthetic.generate import estimate
        from vipocc.priors.config import SYNTHETIC_PRIORS
        from vipocc.progress import duration, size

        chosen = config.load(workspace.preset, overrides=workspace.overrides).data.world
        seconds, count = estimate(chosen, cores())
        app.say(
            f"world: {chosen.drives} drives, {chosen.frames:,} frames, to be generated in about {duration(seconds)} "
            f"on {cores()} cores, {size(count)}"
        )
        app.say(f"priors: {_SYNTHETIC_PRIORS[SYNTHETIC_PRIORS]}")
        app.say("next: vipocc priors depth --split train")
    else:
        app.say("next: vipocc data check")


_SYNTHETIC_PRIORS = {
    "simulated": "simulated from the exact truth (no network runs); this package holds no trained embedded models",
    "embedded": "by the package's own small networks, trained on other synthetic streets; `--prior simulated` degrades "
    "the exact truth instead",
}


def _synthetic_priors() -> tuple[str, ...]:
    """Return what a new synthetic workspace says of its priors, nothing where they are simulated."""
    from vipocc.priors.config import SYNTHETIC_PRIORS
    from vipocc.priors.embedded import OVERRIDES

    return OVERRIDES if SYNTHETIC_PRIORS == "embedded" else ()


@click.group()
def config() -> None:
    """Show the resolved configuration."""


@config.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of YAML.")
@workspace_options
@pass_app
def show(app: App, as_json: bool) -> None:
    """Print the configuration that commands in this workspace use, as YAML, every default written out."""
    import json

    import yaml

    from vipocc.config import as_dict

    values = as_dict(app.config)
    click.echo(json.dumps(values, indent=1) + "\n" if as_json else yaml.safe_dump(values, sort_keys=False), nl=False)


@config.command("diff")
@click.argument("this", metavar="[ONE]", required=False)
@click.argument("other", metavar="[OTHER]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@workspace_options
@pass_app
def diff(app: App, this: str | None, other: str | None, as_json: bool) -> None:
    """Print the keys in which two configurations differ.

    ONE and OTHER are presets, runs of the workspace, checkpoints or YAML files. With one, it is compared with the
    workspace's; with none, the workspace's with its preset.
    """
    import json

    from vipocc.apps.config_diff import as_text, differences, named

    first = named(this, app) if this is not None and other is not None else named(None, app)
    second = named(other or this or app.workspace.preset, app)
    found = differences(first.values, second.values)
    if as_json:
        click.echo(json.dumps({"one": first.name, "other": second.name, "differences": found}, indent=1))
    else:
        click.echo(as_text(first.name, second.name, found))


@config.command("presets")
def presets() -> None:
    """List the packaged presets and profiles."""
    from vipocc.config import available, summaries

    click.echo(f"presets:\n{summaries()}")
    click.echo(f"profiles: {', '.join(available('profile'))}")


@click.command()
@path_option(
    "--output", default=Path("demo-output"), show_default=True, help="Folder for the workspace, pictures and tables."
)
@click.option("--steps", type=click.IntRange(min=1), help="Training steps [default: the demo preset's].")
@click.option("-v", "verbose", count=True, help="Say more; -vv shows tracebacks.")
@pass_app
def demo(app: App, output: Path, steps: int | None, verbose: int) -> None:
    """Take a small synthetic world through every stage, from images to an evaluated model, with pictures.

    The same code as the commands a user types, in one process; at most six minutes on two CPU cores. A second run
    in the same folder goes on where the first stopped.
    """
    from vipocc.apps.demo import run_demo

    app.verbosity += verbose
    run_demo(output, steps=steps, say=app.say)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@workspace_options
@pass_app
def doctor(app: App, as_json: bool) -> None:
    """Say what this machine offers, whether the workspace, if there is one, is sound, and what to do next.

    Looks at Python and packages, GPUs, disk, the weights that the configuration names, stores, runs and reports; reads
    no array and changes nothing. Exit code 2 if something is wrong.
    """
    import json

    from vipocc.apps.doctor import as_dict, examine, is_sound
    from vipocc.apps.doctor.findings import as_text

    findings, step = examine(app)
    app.say(json.dumps(as_dict(findings, step), indent=1) if as_json else f"{as_text(findings)}\n\nnext: {step}")
    if not is_sound(findings):
        raise click.exceptions.Exit(2)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets a shell complete commands, options and their values.

    \b
    bash: echo 'eval "$(vipocc completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(vipocc completion zsh)"' >> ~/.zshrc
    fish: vipocc completion fish > ~/.config/fish/completions/vipocc.fish
    """
    from click.shell_completion import get_completion_class

    from vipocc.cli import cli

    made = get_completion_class(shell)
    assert made is not None  # the three that click knows
    click.echo(made(cli, {}, "vipocc", "_VIPOCC_COMPLETE").source())
