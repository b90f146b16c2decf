"""What evaluations take in: the checkpoint with its configuration, and the prepared frames of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vipocc import config as configuration
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.data_manifests.views import prepared_intrinsics, rig
from vipocc.errors import DataError, MissingInputError, StoreError
from vipocc.evaluation.report import Frame, Skipped
from vipocc.geometry.ndc import intrinsics_to_ndc
from vipocc.model.checkpoint import find_checkpoint, load_into, read_config
from vipocc.model.heads.interface import channels_first
from vipocc.model.network import ViPOcc
from vipocc.priors.devices import resolve_devices
from vipocc.stores.reader import StoreReader
from vipocc.workspace import Workspace

_IMAGE_KEYS = ("image_size", "convention", "resize", "fisheye_pitch")
"""Of the data section: what a network's images are like."""


class RowReader(Protocol):
    """The part of `stores.StoreReader` that evaluations use."""

    def has(self, group: str) -> bool:
        """Whether the store has a group."""

    def rows(self, group: str) -> NDArray[np.bool_]:
        """Which rows of a group are committed."""

    def read(self, group: str, row: int, array: str | None = None) -> NDArray[Any]:
        """One row of an array."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and what it was trained with."""

    path: Path
    rule: str
    """How it was chosen, in words."""
    config: Any
    """The whole configuration: the checkpoint's own, then the overrides of the evaluation."""
    named: bool = False
    """Whether the user named the folder, so that nothing is known of how it was chosen."""

    def describe(self, workspace: Workspace) -> dict[str, Any]:
        """Return what the report says of it."""
        inside = self.path.is_relative_to(workspace.path)
        return {"path": str(self.path.relative_to(workspace.path) if inside else self.path), "rule": self.rule}


def choose_checkpoint(
    workspace: Workspace, fallback: Any, *, path: Path | None, run: str | None, overrides: Sequence[str] = ()
) -> Checkpoint:
    """Return the checkpoint at `path`, else the best of the run named `run`, else of the newest run.

    Args:
        workspace: whose runs.
        fallback: the workspace's configuration, for what a checkpoint does not say (an exported one says only the
            model and the pixel convention).
        path: folder of a checkpoint.
        run: name of a run.
        overrides: `section.key=value` strings that win over the checkpoint's configuration.

    Raises:
        MissingInputError: nothing was trained yet.
        CheckpointError: the folder is no checkpoint.
    """
    if path is not None:
        folder, rule = path.resolve(), "named by the user"
    else:
        folder = find_checkpoint(workspace.runs, "best", run)
        rule = f"the best on validation frames of {'the newest run' if run is None else f'run {run}'}"
    values = read_config(folder)
    if not {"training", "evaluation"} <= values.keys():
        known = configuration.as_dict(fallback)
        values = {**known, **values, "data": {**known["data"], **values.get("data", {})}}
    if not folder.is_relative_to(workspace.path):
        values = {**values, "data": _of_another_workspace(values["data"], configuration.as_dict(fallback)["data"])}
    return Checkpoint(folder, rule, configuration.load(base=values, overrides=overrides), named=path is not None)


def _of_another_workspace(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data section for a checkpoint from elsewhere: it says what images look like, the workspace the rest.

    Which frames, which poses and which ground truth are the dataset's, and a network may have been trained on another.
    """
    return {**ours, **{name: theirs[name] for name in _IMAGE_KEYS if name in theirs}}


def choose_device(name: str | None) -> torch.device:
    """Return the device of that name; by default CUDA where there is one. Errors as `resolve_devices`."""
    return torch.device(resolve_devices(name or "auto")[0])


def load_model(checkpoint: Checkpoint, device: torch.device) -> ViPOcc:
    """Return the checkpoint's network in evaluation mode, built by its configuration with the overrides on top.

    Raises:
        CheckpointError: the weights are damaged, or of another shape than that configuration's.
    """
    config = checkpoint.config
    model = ViPOcc(config.model, config.data.convention, initialise=False)
    load_into(model, checkpoint.path)
    return _placed(model, config, device)


def untrained_model(config: Any, device: torch.device) -> ViPOcc:
    """Return a network of the same configuration with random weights, the same for the same `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = ViPOcc(config.model, config.data.convention, initialise=False)
    return _placed(model, config, device)


def _placed(model: ViPOcc, config: Any, device: torch.device) -> ViPOcc:
    model = model.use_precision(config.training.dtype).to(device).eval()
    # On CUDA the images come channels last, and weights that do not would be turned at every call.
    return model.to(memory_format=torch.channels_last) if device.type == "cuda" else model


def frame_of(manifest: Manifest, key: FrameKey) -> Frame:
    """Return a key with its frame id."""
    return Frame(key.sequence, key.camera, key.row, int(manifest.frame_ids(key.sequence)[key.row]))


def select_keys(manifest: Manifest, split: str, limit: int | None) -> list[FrameKey]:
    """Return the split's keys of the left camera, in order; with `limit`, so many evenly spaced over the split.

    The protocols speak of the left camera only (published_system.md 1.6: val and test list no other).

    Raises:
        DataError: there are none.
    """
    left = rig(manifest.dataset).left
    keys = [key for key in manifest.keys(split) if key.camera == left]
    if not keys:
        raise DataError(f"split {split} has no key frame of {left}", where=manifest.dataset, fix="use another --split")
    if limit is not None and limit < len(keys):
        keys = [keys[int(at)] for at in np.linspace(0, len(keys) - 1, limit)]
    return keys


def group_of(key: FrameKey) -> str:
    """Return the group of frames.zarr, depth.zarr, ... that holds a key."""
    return f"{key.sequence}/{key.camera}"


def committed(reader: RowReader, group: str, row: int) -> bool:
    """Whether a store has a row."""
    if not reader.has(group):
        return False
    rows = reader.rows(group)
    return row < len(rows) and bool(rows[row])


def map_readers(workspace: Workspace, config: Any) -> dict[str, tuple[RowReader, str]]:
    """Return the stores of the per-pixel maps that `model.head.maps` names, each with its array, by their names."""
    return {
        name: (StoreReader(workspace.store(where.store)), where.array) for name, where in config.model.head.maps.items()
    }


class FrameSource:
    """Prepared images of chosen keys with their normalised intrinsics."""

    def __init__(
        self,
        manifest: Manifest,
        reader: RowReader,
        config: Any,
        maps: Mapping[str, tuple[RowReader, str]] | None = None,
    ) -> None:
        """Read prepared images from `reader`, and the per-pixel maps of the density head from their own stores.

        `maps` holds a store and the name of its array for each name that the head gives a map; see `map_readers`.
        """
        self.manifest, self.reader, self.config, self._maps = manifest, reader, config, maps or {}
        self.size: tuple[int, int] = tuple(config.data.image_size)
        self._intrinsics: dict[tuple[str, str], NDArray[np.float32]] = {}

    def split(self, keys: Sequence[FrameKey]) -> tuple[list[FrameKey], list[Skipped]]:
        """Return the keys that are prepared, and the others with the reason.

        Raises:
            MissingInputError: none is prepared.
        """
        there, missing = [], []
        for key in keys:
            if committed(self.reader, group_of(key), key.row):
                there.append(key)
            else:
                missing.append(Skipped(frame_of(self.manifest, key), "image not prepared"))
        if not there:
            raise MissingInputError("no frame of this split is prepared", fix="run `vipocc data prepare`")
        return there, missing

    def intrinsics(self, key: FrameKey) -> NDArray[np.float32]:
        """Return normalised intrinsics [3, 3] of a key's camera."""
        camera = (key.sequence, key.camera)
        if camera not in self._intrinsics:
            data = self.config.data
            pixels = prepared_intrinsics(self.manifest, *camera, data)
            self._intrinsics[camera] = np.asarray(
                intrinsics_to_ndc(pixels, data.image_size, data.convention), np.float32
            )
        return self._intrinsics[camera]

    def image(self, key: FrameKey) -> NDArray[np.uint8]:
        """Return an image [H, W, 3].

        Raises:
            StoreError: the store holds images of another size than the configuration's.
        """
        image = np.asarray(self.reader.read(group_of(key), key.row, "rgb"))
        self._expect(image.shape)
        return image

    def read_images(self, keys: Sequence[FrameKey], out: NDArray[np.uint8]) -> None:
        """Read images into `out` [B, H, W, 3]; errors as `image`."""
        if isinstance(self.reader, StoreReader):
            self._expect(self.reader.spec.array("rgb").shape)
            self.reader.gather([(group_of(key), key.row) for key in keys], "rgb", out)
        else:
            for at, key in enumerate(keys):
                out[at] = self.image(key)

    def maps(self, keys: Sequence[FrameKey], device: torch.device) -> dict[str, Tensor]:
        """Return the per-pixel maps [B, C, H', W'] of keys, by name."""
        return {
            name: channels_first(
                torch.from_numpy(np.stack([reader.read(group_of(key), key.row, array) for key in keys])).to(device)
            )
            for name, (reader, array) in self._maps.items()
        }

    def _expect(self, shape: Sequence[int]) -> None:
        if tuple(shape[:2]) != self.size:
            raise StoreError(
                f"the prepared images are {shape[0]}x{shape[1]}, not {self.size[0]}x{self.size[1]} as the "
                "checkpoint's configuration says",
                fix="evaluate in the workspace that the model was trained in, or prepare another one",
            )


def settings_of(config: Any, device: torch.device, **more: Any) -> Mapping[str, Any]:
    """Return the settings that a report states."""
    evaluation = config.evaluation
    return {
        "device": str(device),
        "precision": config.training.dtype,
        "batch_size": evaluation.batch_size,
        "resamples": evaluation.resamples,
        "confidence": evaluation.confidence,
        "profile": config.profile,
        "preset": config.preset,
        **more,
    }
