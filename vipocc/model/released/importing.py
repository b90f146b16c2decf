"""A released file into a checkpoint folder of ours."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vipocc import config as configuration
from vipocc.errors import CheckpointError
from vipocc.model import checkpoint
from vipocc.model.network import ViPOcc
from vipocc.model.released import layout
from vipocc.model.released.reading import Released, read_released

SOURCE = "source.json"
"""File of an imported checkpoint that says what it was made of."""
IMAGE_SIZE = (192, 640)
"""Height and width that all released checkpoints were trained at; no file says it."""


@dataclass(frozen=True)
class Imported:
    """What an import made of what."""

    folder: Path
    released: Released
    read: int
    """Parameters that were taken over."""
    unused: int
    """Parameters that were left behind, for nothing reads them."""


def import_released(file: Path, output: Path | None = None, *, overwrite: bool = False) -> Imported:
    """Convert a released checkpoint file to our format.

    The folder holds model.safetensors, config.yaml (profile `official`; the sizes that the file's shapes imply),
    source.json (file, digest, steps) and a model card.

    Args:
        file: a `.pt` of the released ViPOcc or BTS code.
        output: the folder to make; by default one of the file's name, here.
        overwrite: replace a checkpoint that is there already.

    Raises:
        CheckpointError: the file cannot be read (see `read_released`), or the folder is there already.
    """
    released = read_released(file)
    folder = Path(released.path.stem) if output is None else output.expanduser()
    _refuse_existing(folder, overwrite)
    model = ViPOcc(released.config, "official", initialise=False)
    model.load_state_dict(released.state())
    unused = layout.count({name: shape for name, shape in released.unused.items() if name in released.tensors})
    source = {
        "format_version": 1,
        "file": released.path.name,
        "sha256": _sha256(released.path),
        "system": released.system,
        "iteration": released.iteration,
        "epoch": released.epoch,
        "parameters": released.parameters,
        "unused_parameters": unused,
        "not_read": list(released.beside),
    }
    aside = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        aside.mkdir(parents=True)
        checkpoint.save_with_card(model, aside, saved_config(released), source)
        (aside / SOURCE).write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(aside, folder)
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint cannot be written ({error.strerror or error})",
            where=folder,
            fix="free some space, or name another folder with --output",
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Imported(folder, released, released.parameters - unused, unused)


def saved_config(released: Released) -> dict[str, Any]:
    """Return the configuration that is saved: what a released checkpoint implies, and nothing of a workspace's."""
    return {
        "preset": "vipocc" if released.system == "ViPOcc" else "bts",
        "profile": "official",
        "data": {"image_size": list(IMAGE_SIZE), "convention": "official", "resize": "bilinear"},
        "model": configuration.as_dict(released.config),
    }


def read_source(folder: Path) -> dict[str, Any] | None:
    """Return what an imported checkpoint says of the file it was made of, None for one that was trained here."""
    try:
        values = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return dict(values) if isinstance(values, dict) else None


def _refuse_existing(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    ours = (folder / checkpoint.WEIGHTS).is_file() and (folder / checkpoint.CONFIG).is_file()
    if ours and overwrite:
        return
    fix = "name another folder with --output" + (", or replace it with --overwrite" if ours else "")
    raise CheckpointError("there is something of that name already", where=folder, fix=fix)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
