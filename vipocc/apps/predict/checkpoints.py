"""The checkpoint that predicts, and the camera that it was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vipocc import config as configuration
from vipocc.apps.predict.calibration import read_calibration
from vipocc.apps.predict.cameras import KNOWN
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.views import camera_tilt, prepared_intrinsics, rig
from vipocc.errors import UsageError
from vipocc.evaluation.inputs import Checkpoint
from vipocc.geometry.cameras import Pinhole
from vipocc.model.checkpoint import find_checkpoint, read_config
from vipocc.model.hub import find_model
from vipocc.workspace import FILE, Workspace


@dataclass(frozen=True)
class TrainingCamera:
    """The camera that pictures are brought to."""

    camera: Pinhole
    """Of the prepared images."""
    tilt: float
    """Degrees that it looks down against the road."""
    origin: str
    dataset: str
    """Whose camera it is or is like, a key of `cameras.KNOWN`."""


def open_checkpoint(
    name: str | Path, overrides: Sequence[str] = (), *, revision: str | None = None
) -> tuple[Checkpoint, Workspace | None]:
    """Return a checkpoint and the workspace that it lies in, if it lies in one.

    Args:
        name: a checkpoint's folder, a run's (its best checkpoint), or the id of a hub repository.
        overrides: `section.key=value` strings over its own configuration.
        revision: of a hub repository.

    Raises:
        CheckpointError: there is none.
    """
    folder = Path(name).expanduser()
    if (folder / "checkpoints").is_dir():
        folder, rule = find_checkpoint(folder.parent, "best", folder.resolve().name), f"the best of run {folder.name}"
    else:
        folder, rule = find_model(name, revision=revision), "named by the user"
    values = read_config(folder)
    if not {"training", "evaluation"} <= values.keys():
        # An exported or imported checkpoint says only the model and the pixel convention.
        known = configuration.as_dict(configuration.load())
        values = {**known, **values, "data": {**known["data"], **values.get("data", {})}}
    resolved = folder.resolve()
    home = next((parent for parent in resolved.parents if (parent / FILE).is_file()), None)
    config = configuration.load(base=values, overrides=overrides)
    return Checkpoint(folder, rule, config, named=True), None if home is None else Workspace.open(home)


def training_camera(
    config: Any, workspace: Workspace | None, named: str | None = None, camera: str | None = None
) -> TrainingCamera:
    """Return the camera of the images that a checkpoint was trained on.

    Args:
        config: the checkpoint's.
        workspace: that the checkpoint lies in; its manifest knows the camera.
        named: instead, the name of a dataset or a calibration file that states its image size.
        camera: which camera of that file.

    Raises:
        UsageError: no such dataset, or a file that does not state the size of the images.
    """
    size, convention = config.data.image_size, config.data.convention
    if named is not None and named not in KNOWN:
        if not Path(named).is_file():
            raise UsageError(
                f"--training-camera '{named}' is neither a calibration file nor one of {', '.join(KNOWN)}",
                fix="name the dataset that the checkpoint was trained on",
            )
        found = read_calibration(Path(named), camera)
        if found.size is None:
            raise UsageError(f"{named} does not state the size of its images", fix="add image_width and image_height")
        whole = Pinhole.from_matrix(found.matrix, found.size)
        return TrainingCamera(whole.resized(size, convention), 0.0, f"of {Path(named).name}", "kitti-360")
    if named is None and config.camera is not None and (config.camera.height, config.camera.width) == tuple(size):
        held = config.camera
        values = {name: getattr(held, name) for name in ("fx", "fy", "cx", "cy", "width", "height")}
        like = held.dataset if held.dataset in KNOWN else "kitti-360"
        return TrainingCamera(Pinhole(**values), held.tilt, f"{held.dataset}'s, as the checkpoint says", like)
    if named is None and workspace is not None and workspace.manifest.is_file():
        manifest = Manifest.load(workspace.manifest, dataset=workspace.dataset, root=workspace.root)
        left = rig(workspace.dataset).left
        sequence = next(one for one, name in manifest.needed("all") if name == left)
        matrix = prepared_intrinsics(manifest, sequence, left, config.data)
        like = workspace.dataset if workspace.dataset in KNOWN else "kitti-360"
        return TrainingCamera(
            Pinhole.from_matrix(matrix, size),
            camera_tilt(workspace.dataset),
            f"{workspace.dataset}'s, of {sequence}",
            like,
        )
    dataset = named or (workspace.dataset if workspace is not None else _dataset_of(str(config.preset)))
    if dataset not in KNOWN:
        raise UsageError(
            f"the camera of {dataset} is in its manifest, which is not there",
            fix="index it with `vipocc data index`, or give --training-camera FILE",
        )
    said = (
        "as asked" if named else ("the workspace's dataset" if workspace else f"as preset '{config.preset}' suggests")
    )
    return TrainingCamera(
        KNOWN[dataset].resized(size, convention), camera_tilt(dataset), f"{dataset}'s, {said}", dataset
    )


def _dataset_of(preset: str) -> str:
    """Return the dataset that a preset is made for, by its name: a checkpoint says no more."""
    if "kitti_raw" in preset or "kitti-raw" in preset:
        return "kitti-raw"
    return "synthetic" if preset in ("demo", "synthetic") else "kitti-360"
