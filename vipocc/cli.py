"""The `vipocc` command: the root Click group, options that commands share, and errors turned into messages.

Sub-commands are loaded when they are called, so `vipocc --help` imports neither torch nor zarr. Exit codes: 0 done,
1 a fault of ours, 2 a mistake on the user's side, 3 the answer is no (`data check --for` found a gap, a report does not
keep to `eval --fail-under`, `predict` could not do some pictures), 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import click

from vipocc import __version__
from vipocc.errors import VipoccError
from vipocc.workspace import Workspace

#: Command name: (where it lives, its line in `vipocc --help`), in the order a user meets them.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("vipocc.apps.commands:init", "Make a workspace for a dataset, or for the synthetic world."),
    "data": ("vipocc.data_manifests.commands:data", "Check, index and prepare a dataset."),
    "priors": ("vipocc.priors.commands:priors", "Compute pseudo-depth, instances and sampling anchors."),
    "train": ("vipocc.training.commands:train", "Train the occupancy model on prepared data."),
    "eval": ("vipocc.evaluation.commands:eval_", "Evaluate occupancy, depth and the ray sampler."),
    "predict": ("vipocc.apps.predict.commands:predict", "Depth and occupancy of anybody's pictures and videos."),
    "checkpoints": ("vipocc.model.commands:checkpoints", "Show checkpoints; import and export released ones."),
    "export": ("vipocc.model.commands:export_programs", "Write a checkpoint as torch.export or ONNX programs."),
    "stores": ("vipocc.stores.commands:stores", "Show, verify and repair the Zarr stores."),
    "config": ("vipocc.apps.commands:config", "Show the resolved configuration, compare configurations."),
    "view": ("vipocc.apps.view.commands:view", "Look round frames and predictions in 3D, in the browser."),
    "demo": ("vipocc.apps.commands:demo", "Run the whole path on a small synthetic world, with pictures."),
    "doctor": ("vipocc.apps.commands:doctor", "Say what this machine offers, whether a workspace is sound, what next."),
    "completion": ("vipocc.apps.commands:completion", "Print what lets a shell complete commands and options."),
}

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class App:
    """What every command gets: the workspace and the configuration, each resolved when first asked for."""

    workspace_dir: str | None = None
    preset: str | None = None
    profile: str | None = None
    overrides: tuple[str, ...] = ()
    verbosity: int = 0
    said: list[str] = field(default_factory=list)

    @cached_property
    def workspace(self) -> Workspace:
        """The workspace of -C, $VIPOCC_WORKSPACE or the nearest parent folder."""
        return Workspace.find(self.workspace_dir)

    @cached_property
    def config(self) -> Any:
        """The resolved root configuration: preset, the workspace's own overrides, then those of the command line."""
        from vipocc import config

        workspace = self.workspace
        overrides = (*workspace.overrides, *self.overrides)
        return config.load(self.preset or workspace.preset, profile=self.profile, overrides=overrides)

    def say(self, text: str) -> None:
        """Write one line to standard output."""
        self.said.append(text)
        click.echo(text)


pass_app = click.make_pass_decorator(App, ensure=True)


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a Click callback that stores an option on the `App`; a later, more specific place wins."""

    def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        app = context.ensure_object(App)
        if value:
            setattr(app, name, getattr(app, name) + value if name in ("overrides", "verbosity") else value)
        return value

    return callback


def workspace_options(command: F) -> F:
    """Add the options that every command on a workspace takes; they end up on the `App`."""
    options = [
        click.option(
            "-C", "--workspace", metavar="DIR", expose_value=False, callback=_set("workspace_dir"),
            help="Workspace folder [default: $VIPOCC_WORKSPACE, else the nearest parent with vipocc.yaml].",
        ),
        click.option(
            "--preset", metavar="NAME", expose_value=False, callback=_set("preset"),
            help="Configuration preset, a name or a .yaml file [default: the workspace's].",
        ),
        click.option(
            "--profile", metavar="NAME", expose_value=False, callback=_set("profile"),
            help="'paper' (the method as written) or 'official' (as the released code does it).",
        ),
        click.option(
            "-o", "--override", "override", multiple=True, metavar="KEY=VALUE", expose_value=False,
            callback=_set("overrides"), help="Set one configuration key, e.g. -o training.batch_size=4.",
        ),
        click.option(
            "-v", "verbose", count=True, expose_value=False, callback=_set("verbosity"),
            help="Say more; -vv shows tracebacks.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not when they are listed."""

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]] = COMMANDS, **kwargs: Any) -> None:
        """Take commands from `table`, which is made as `COMMANDS`."""
        super().__init__(*args, **kwargs)
        self.table = table

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep what was typed, for those that write down how they were called."""
        if ctx.parent is None:
            ctx.meta["vipocc.arguments"] = tuple(args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the table, in its order."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in self.table:
            return None
        module, _, attribute = self.table[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="vipocc")
@workspace_options
def cli() -> None:
    """Driving datasets in, a trained and evaluated single-image 3D occupancy model out.

    \b
    vipocc init --dataset synthetic
    vipocc priors depth --split train
    vipocc priors sam
    vipocc train
    vipocc eval occupancy
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: the entry point of the `vipocc` script."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code, errors written to standard error as one sentence each."""
    # Threads of PyTorch's that wait by spinning stop each other wherever anything else wants a core: measured on two
    # cores beside one other process, a training step took ten times as long as with threads that sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app = App()
    try:
        result = cli.main(args=list(arguments), prog_name="vipocc", standalone_mode=False, obj=app)
    except VipoccError as error:
        _complain(str(error), app)
        return error.exit_code
    except click.exceptions.Abort:
        _complain("interrupted; what was committed is kept, run the same command to go on", app)
        return 130
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "vipocc"
        _complain(f"{error.format_message().rstrip('.')}; see `{command} --help`", app)
        return 2
    except click.ClickException as error:
        _complain(error.format_message(), app)
        return 2
    except KeyboardInterrupt:
        _complain("interrupted; what was committed is kept, run the same command to go on", app)
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        _complain(
            f"a fault in vipocc ({type(error).__name__}: {str(error) or 'no message'}); "
            "run again with -vv and report the traceback",
            app,
        )
        return 1
    return result if isinstance(result, int) else 0


def _complain(sentence: str, app: App) -> None:
    # The group's own -v is parsed before an error can happen further down, so the App knows about it here.
    if app.verbosity >= 2:
        traceback.print_exc()
    click.echo(f"vipocc: error: {sentence}", err=True)


def path_option(*names: str, help: str, **more: Any) -> Callable[[F], F]:
    """Return a Click option for a path, existing or not: components check paths and say what they expected there."""
    return click.option(*names, type=click.Path(path_type=Path), help=help, **more)
