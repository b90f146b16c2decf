"""`python -m vipocc.apps.embedded`: train the small foundation models that lie in the package (docs/priors.md)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from vipocc.errors import VipoccError
from vipocc.priors.embedded import MODELS, EmbeddedModel


@click.group()
def main() -> None:
    """Train the embedded Depth Anything, Grounding DINO and SAM on synthetic streets."""


_FOLDER = click.Path(file_okay=False, path_type=Path)
_common = [
    click.option(
        "--work", type=_FOLDER, required=True, help="Folder for pictures, states and models; goes on from it."
    ),
    click.option("--device", default="cpu", show_default=True, help="cpu or cuda."),
    click.option("--steps", type=click.IntRange(min=1), help="Steps of the schedule instead of the recipe's."),
    click.option("--batch", type=click.IntRange(min=1), help="Pictures of a step instead of the recipe's."),
    click.option(
        "--seconds", type=click.FloatRange(min=1), help="Time it may take; steps that do not fit are given up."
    ),
    click.option("--commit", help="Commit of the code for the records [default: what git says]."),
]
_pictures = [
    click.option("--drives", type=click.IntRange(min=1), default=100, show_default=True, help="Training drives."),
    click.option("--rows", type=click.IntRange(min=1), default=16, show_default=True, help="Stereo pairs of each."),
    click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that render."),
]


def _with(*options: Any) -> Any:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@main.command("all")
@click.option("--out", type=_FOLDER, required=True, help="Folder for the packed models, metrics and a sheet.")
@_with(*_common, *_pictures)
def everything(out: Path, work: Path, commit: str | None, **options: Any) -> None:
    """Take the pictures, train all three models side by side, measure and pack them."""
    from vipocc.apps.embedded.recipes import run_all

    click.echo(json.dumps(run_all(out, work, commit=commit or _commit(), **options), indent=1))


@main.command()
@_with(_common[0], *_pictures)
def pictures(work: Path, **options: Any) -> None:
    """Take the pictures alone."""
    from vipocc.apps.embedded.recipes import shoot

    click.echo(json.dumps(shoot(work / "pictures", **options)))


@main.command("train")
@click.argument("name", type=click.Choice(MODELS))
@_with(*_common)
def train_one(
    name: EmbeddedModel,
    work: Path,
    device: str,
    steps: int | None,
    batch: int | None,
    seconds: float | None,
    commit: str | None,
) -> None:
    """Train one model on the pictures that `pictures` took, and measure it."""
    from vipocc.apps.embedded.recipes import PLANS, train_model, with_changes

    plan = with_changes(PLANS[name], steps, seconds, batch)
    record = train_model(name, plan, work / "pictures", work, device, commit or _commit())
    click.echo(json.dumps({key: record[key] for key in ("model", "steps", "seconds", "metrics")}))


def _commit() -> str:
    """Return the commit of the checkout that this runs from, `unknown` outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


if __name__ == "__main__":
    try:
        main()
    except VipoccError as error:
        sys.exit(f"error: {error}")
