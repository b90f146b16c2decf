"""`vipocc view`: opens a workspace or predictions, serves the page or writes it as one file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vipocc.apps.view.frames import Box, FrameScenes, drive
from vipocc.apps.view.page import standalone
from vipocc.apps.view.predictions import find_predictions, prediction_scene
from vipocc.apps.view.scene import Scene
from vipocc.apps.view.server import SceneServer
from vipocc.data_manifests.manifest import FrameKey
from vipocc.data_manifests.stage import ensure_indexed
from vipocc.errors import MissingInputError
from vipocc.evaluation.inputs import FrameSource, choose_checkpoint, choose_device, load_model, map_readers, select_keys
from vipocc.progress import progress
from vipocc.stores import StoreReader
from vipocc.workspace import Workspace

Say = Callable[[str], None]


def open_drive(
    workspace: Workspace,
    config: Any,
    *,
    say: Say,
    split: str = "test",
    sequence: str | None = None,
    first: int | None = None,
    count: int | None = None,
    run: str | None = None,
    checkpoint: Path | None = None,
    no_model: bool = False,
    device: str | None = None,
    x: tuple[float, float] = Box.x,
    y: tuple[float, float] = Box.y,
    z: tuple[float, float] = Box.z,
    cell: float = Box.cell,
    overrides: Sequence[str] = (),
) -> tuple[FrameScenes, list[FrameKey]]:
    """Return what makes scenes, and the frames; the options are those of the command.

    Raises:
        MissingInputError: a run or a checkpoint was named and is not there.
        UsageError: there is no such drive or frame, or the box is too large.
    """
    box = Box(x, y, z, cell)
    box.centres()
    model, note, where = None, "", choose_device(device)
    if not no_model:
        try:
            found = choose_checkpoint(workspace, config, path=checkpoint, run=run, overrides=overrides)
        except MissingInputError:
            if run is not None or checkpoint is not None:
                raise
            say("nothing was trained here yet: the data is shown without a prediction")
        else:
            model, config = load_model(found, where), found.config
            note = f"{found.describe(workspace)['path']}, {found.rule}"
    manifest = ensure_indexed(workspace, config)
    keys = drive(select_keys(manifest, split, None), sequence, first, count or len(manifest.keys(split)), manifest)

    def store(kind: str) -> StoreReader | None:
        return StoreReader(workspace.store(kind)) if workspace.store(kind).is_dir() else None

    frames = store("frames")
    source = None if frames is None else FrameSource(manifest, frames, config, map_readers(workspace, config))
    scenes = FrameScenes(
        manifest,
        source,
        config,
        box,
        model=model,
        model_note=note,
        device=where,
        occupancy=store("occupancy"),
        depth=store("depth"),
    )
    return scenes, keys


@dataclass(frozen=True)
class Shown:
    """What is looked at: so many scenes, each made when it is asked for."""

    title: str
    count: int
    make: Callable[[int], Scene]


def of_dataset(workspace: Workspace, config: Any, *, say: Say, **options: Any) -> Shown:
    """Return the frames of a workspace's drive; options and errors as `open_drive`."""
    scenes, keys = open_drive(workspace, config, say=say, **options)
    return Shown(f"{workspace.dataset}: {keys[0].sequence}", len(keys), lambda number: scenes(keys[number]))


def of_predictions(folders: Sequence[Path], count: int | None = None) -> Shown:
    """Return what `vipocc predict` wrote below folders; raises `MissingInputError` if that is nothing."""
    found = find_predictions(folders)[:count]
    return Shown(folders[0].name, len(found), lambda number: prediction_scene(found[number]))


def serve(shown: Shown, *, port: int, say: Say, ready: Callable[[SceneServer], None] | None = None) -> None:
    """Serve the page until it is interrupted; `ready` is called with the server before it begins.

    Raises:
        UsageError: the port is taken.
    """
    with SceneServer(shown.make, shown.count, shown.title, port=port) as server:
        at = server.server_address[1]
        say(f"{shown.title}, {shown.count:,} frames, at {server.address} (Ctrl-C ends)")
        say(f"from another machine: ssh -L {at}:localhost:{at} {os.uname().nodename}, then open {server.address}")
        if ready is not None:
            ready(server)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            say("stopped")


def write_html(shown: Shown, path: Path) -> int:
    """Write one HTML file of all scenes and return its size in bytes; errors as making them raises."""
    made = []
    with progress("scenes", shown.count, "frames") as bar:
        for number in range(shown.count):
            made.append(shown.make(number))
            bar.advance()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(standalone(made), encoding="utf-8")
    os.replace(aside, path)
    return path.stat().st_size
