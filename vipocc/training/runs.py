"""Folders of runs: naming a new one, finding one to resume."""

from __future__ import annotations

import re
import time
from pathlib import Path

from vipocc.errors import CheckpointError, MissingInputError, UsageError
from vipocc.training.state import latest_checkpoint

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def new_run(runs: Path, preset: str, name: str | None = None) -> Path:
    """Make the folder of a new run, `<time>-<preset>` unless it is named.

    Raises:
        UsageError: the name is no plain file name, or such a run exists.
    """
    if name is not None:
        if not _NAME.fullmatch(name):
            raise UsageError(f"'{name}' cannot name a run", fix="use letters, digits, '.', '_' and '-' in --run")
        if (runs / name).exists():
            raise UsageError(
                "there is a run of this name", where=runs / name, fix=f"go on with `vipocc train --resume {name}`"
            )
        (runs / name).mkdir(parents=True)
        return runs / name
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{Path(preset).stem}"
    for attempt in range(1, 1000):
        folder = runs / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise UsageError("too many runs were started in one second", where=runs, fix="name this one with --run")


def find_run(runs: Path, which: str) -> tuple[Path, Path]:
    """Return the folder and the newest whole checkpoint of a run to resume.

    Args:
        runs: the workspace's folder of runs.
        which: `latest`, a run's name or its path.

    Raises:
        MissingInputError: there is no run to resume.
        CheckpointError: the run has no whole checkpoint.
    """
    if which == "latest":
        for folder in sorted((path for path in _runs(runs)), key=_age, reverse=True):
            checkpoint = latest_checkpoint(folder / "checkpoints")
            if checkpoint is not None:
                return folder, checkpoint
        raise MissingInputError(
            "no run here has a checkpoint to resume from", where=runs, fix="start one with `vipocc train`"
        )
    for folder in (runs / which, Path(which).resolve()):
        if folder.is_dir():
            checkpoint = latest_checkpoint(folder / "checkpoints")
            if checkpoint is None:
                raise CheckpointError(
                    "this run has no whole checkpoint", where=folder, fix="start anew with `vipocc train`"
                )
            return folder, checkpoint
    known = ", ".join(path.name for path in _runs(runs)) or "none"
    raise MissingInputError(f"there is no run '{which}'", where=runs, fix=f"runs here: {known}")


def _runs(runs: Path) -> list[Path]:
    return sorted(path for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []


def _age(folder: Path) -> float:
    # A run's newest checkpoint, since a resumed run is younger than its name.
    checkpoint = latest_checkpoint(folder / "checkpoints")
    return checkpoint.stat().st_mtime if checkpoint is not None else 0.0
