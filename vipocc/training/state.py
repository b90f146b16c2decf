"""Checkpoints of a run: written aside, made durable and renamed, so that a kill at any moment leaves whole ones only.

    checkpoints/step_N/{model.safetensors, config.yaml, state.pt, contents.json}
    checkpoints/best        name of the best checkpoint's folder

`contents.json` lists the files and their sizes: a folder that was damaged afterwards is passed over by name.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from vipocc.errors import CheckpointError, StoreError
from vipocc.model.card import CARD
from vipocc.progress import say

STATE, CONTENTS, BEST = "state.pt", "contents.json", "best"
_NAME = re.compile(r"step_(\d+)")
_ASIDE = ".partial-"


@dataclass(frozen=True)
class RunState:
    """Where a run stands, beside the weights. Random draws need no state: each is seeded by its place in the run."""

    step: int
    """Optimiser steps done."""
    samples: int
    """Samples seen, which is the position of the next one and the place in the learning-rate schedule."""
    batch_size: int
    accumulate: int
    world: int
    """Processes that shared each batch."""
    keys: int
    """Training keys of the dataset, which the order of samples depends on."""
    best: float | None
    """Best value of the validation figure so far."""
    best_step: int | None
    optimiser: dict[str, Any]
    weights: dict[str, torch.Tensor] | None = None
    """The trained weights, where the model beside it is their running average."""


def write_checkpoint(
    folder: Path, state: RunState, write_model: Callable[[Path], None], *, keep: int, best: bool
) -> Path:
    """Write `folder/step_N` whole or not at all, then drop old ones.

    Args:
        folder: the run's `checkpoints` folder.
        state: where the run stands.
        write_model: writes model.safetensors and config.yaml into a folder.
        keep: how many of the newest stay; the best stays too.
        best: mark this one as the best.

    Raises:
        StoreError: the disk is full or not writable; checkpoints written before are untouched.
    """
    final = folder / f"step_{state.step}"
    aside = folder / f"{_ASIDE}step_{state.step}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        aside.mkdir()
        write_model(aside)
        torch.save(asdict(state), aside / STATE)
        # The card is for people, who may edit it.
        sizes = {path.name: path.stat().st_size for path in sorted(aside.iterdir()) if path.name != CARD}
        (aside / CONTENTS).write_text(json.dumps({"format_version": 1, "files": sizes}), encoding="utf-8")
        for path in aside.iterdir():
            _sync(path)
        _sync(aside)
        if final.exists():  # a run that went on from an older checkpoint passes this step again
            os.replace(final, folder / f"{_ASIDE}replaced-{state.step}-{os.getpid()}")
        os.replace(aside, final)
        _sync(folder)
        if best:
            _mark(folder, final.name)
        _drop_old(folder, keep)
        _sweep(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StoreError(
            f"the checkpoint of step {state.step} cannot be written ({error.strerror or error})",
            where=folder,
            fix="free some space or check its permissions, then go on with `vipocc train --resume`",
        ) from None
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints of a run, oldest first; damaged ones are named and passed over."""
    return list(_newest_first(folder))[::-1]


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in a run's `checkpoints` folder, or None."""
    return next(_newest_first(folder), None)


def read_state(checkpoint: Path) -> RunState:
    """Return the training state of a checkpoint, reading plain values and tensors only.

    Raises:
        CheckpointError: the file is not the state of a run, or holds more than plain values.
    """
    path = checkpoint / STATE
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        return RunState(**{field.name: values[field.name] for field in fields(RunState)})
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"the training state cannot be read ({type(error).__name__})",
            where=path,
            fix="resume from another run, or start anew and keep the weights for evaluation",
        ) from None


def best_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint marked as the best of a run, or None."""
    marker = folder / BEST
    if not marker.is_file():
        return None
    path = folder / marker.read_text(encoding="utf-8").strip()
    return path if _damage(path) is None else None


def _newest_first(folder: Path) -> Iterator[Path]:
    found = [(int(match[1]), path) for path in _listing(folder) if (match := _NAME.fullmatch(path.name))]
    for _, path in sorted(found, reverse=True):
        damage = _damage(path)
        if damage is None:
            yield path
        else:
            say(f"passing over {path}: {damage}")


def _listing(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _damage(path: Path) -> str | None:
    try:
        files = json.loads((path / CONTENTS).read_text(encoding="utf-8"))["files"]
        wrong = [name for name, size in files.items() if (path / name).stat().st_size != size]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it is not whole ({type(error).__name__})"
    return f"{wrong[0]} has another size than when it was written" if wrong else None


def _mark(folder: Path, name: str) -> None:
    aside = folder / f"{_ASIDE}{BEST}-{os.getpid()}"
    aside.write_text(name + "\n", encoding="utf-8")
    _sync(aside)
    os.replace(aside, folder / BEST)
    _sync(folder)


def _drop_old(folder: Path, keep: int) -> None:
    best = best_checkpoint(folder)
    for path in checkpoints(folder)[:-keep]:
        if path != best:
            # Renamed first, so that a kill while it is being removed leaves nothing that looks like a checkpoint.
            os.replace(path, folder / f"{_ASIDE}dropped-{path.name}-{os.getpid()}")


def _sweep(folder: Path) -> None:
    """Remove what killed writers left behind; a run has one writer."""
    for path in _listing(folder):
        if path.name.startswith(_ASIDE):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
