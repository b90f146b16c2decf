"""Validation while training: figures on a fixed subset of val keys, from whatever truth is in the stores.

Rendered depth against LiDAR and occupancy against LiDAR's ground truth need no prior; the refined depth needs the
pseudo-depth of val frames. The exact truth of the synthetic world is never looked at: choosing a checkpoint by it
would leak it into the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.preparation import occupancy_group
from vipocc.data_manifests.views import prepared_intrinsics, rig
from vipocc.evaluation.metrics import density_precision, depth_metrics, occupancy_metrics
from vipocc.evaluation.occupancy import predict_density
from vipocc.geometry.ndc import intrinsics_to_ndc
from vipocc.model.heads.interface import channels_first
from vipocc.model.network import ViPOcc
from vipocc.stores.reader import StoreReader
from vipocc.workspace import Workspace

OCCUPIED = 0.5
"""Density in 1/m above which a cell is predicted to be occupied (published_system 7.1)."""
SHOWN_DEPTH = ("abs_rel", "rmse", "a1")
SHOWN_OCCUPANCY = ("o_acc", "ie_acc", "ie_rec", "balanced_accuracy", "average_precision")


@dataclass(frozen=True)
class ValidationFrame:
    """A val key and which truths and priors of it are in the stores."""

    group: str
    """`<sequence>/<camera>`."""
    row: int
    occupancy_group: str
    lidar: bool
    occupancy: bool
    prior: bool

    @property
    def truths(self) -> int:
        """How many kinds of truth it has."""
        return int(self.lidar) + int(self.occupancy)


class Validation:
    """Measures a model on a fixed set of frames."""

    def __init__(
        self, workspace: Workspace, manifest: Manifest, config: Any, frames: list[ValidationFrame], batch: int = 4
    ) -> None:
        self.workspace, self.manifest, self.config, self.frames, self.batch = workspace, manifest, config, frames, batch
        self._readers: dict[str, StoreReader] = {}

    @classmethod
    def open(cls, workspace: Workspace, manifest: Manifest, config: Any) -> Validation:
        """Return a validation on `training.validation_frames` val keys, evenly spaced among those with most truth."""
        found = list(_candidates(workspace, manifest, config)) if config.training.validation_frames else []
        most = max((frame.truths for frame in found), default=0)
        found = [frame for frame in found if frame.truths == most] if most else []
        count = min(config.training.validation_frames, len(found))
        chosen = [found[int(at)] for at in np.linspace(0, len(found) - 1, count)] if count else []
        return cls(workspace, manifest, config, chosen)

    @property
    def measures(self) -> bool:
        """Whether there is anything to measure."""
        return bool(self.frames)

    def describe(self) -> str:
        """Return one sentence: what is measured on how many frames, what is not and why."""
        if not self.config.training.validation_frames:
            return "no validation (training.validation_frames is 0); the newest checkpoint counts as the best"
        if not self.frames:
            return (
                "no validation: no val frame has LiDAR depth or occupancy ground truth in the stores (make them with "
                "`vipocc data prepare --split val`); the newest checkpoint counts as the best"
            )
        first = self.frames[0]
        kinds = [("rendered depth", first.lidar), ("occupancy", first.occupancy)]
        measured = [name for name, there in kinds if there]
        refined = sum(self._refines(frame) for frame in self.frames)
        if first.lidar and refined:
            measured.append("refined depth" + ("" if refined == len(self.frames) else f" (of {refined})"))
        text = f"validation on {len(self.frames)} val frames: {', '.join(measured)}"
        if first.lidar and not refined and self.config.model.depth_branch.kind != "none":
            text += "; refined depth not, since val frames have no pseudo-depth (`vipocc priors depth --split val`)"
        if self.config.training.best_metric.partition("/")[0] not in {name.replace(" ", "_") for name in measured}:
            text += (
                f"; {self.config.training.best_metric} is not among them, so the newest checkpoint counts as the best"
            )
        return text

    @torch.no_grad()
    def __call__(self, model: ViPOcc) -> dict[str, float]:
        """Return means over the frames: `rendered_depth/…`, `refined_depth/…` and `occupancy/…`, those there are."""
        training = model.training
        model.eval()
        try:
            values = [figures for batch in self._batches() for figures in self._measure(model, batch)]
        finally:
            model.train(training)
        names = dict.fromkeys(name for figures in values for name in figures)
        return {name: _mean([figures[name] for figures in values if name in figures]) for name in names}

    def _batches(self) -> Iterator[list[ValidationFrame]]:
        for first in range(0, len(self.frames), self.batch):
            yield self.frames[first : first + self.batch]

    def _measure(self, model: ViPOcc, frames: list[ValidationFrame]) -> list[dict[str, float]]:
        size, device = self.config.data.image_size, model.device
        stored = np.stack([self._read("frames", frame.group, frame.row, "rgb") for frame in frames])
        images = torch.from_numpy(stored).to(device).permute(0, 3, 1, 2).float() / 255.0
        intrinsics = torch.from_numpy(np.stack([self._intrinsics(frame) for frame in frames])).to(device)
        maps = {
            name: channels_first(
                torch.from_numpy(
                    np.stack([self._read(where.store, frame.group, frame.row, where.array) for frame in frames])
                ).to(device)
            )
            for name, where in self.config.model.head.maps.items()
        }
        figures: list[dict[str, float]] = [{} for _ in frames]
        if any(frame.lidar for frame in frames):
            rendered = model.render_depth(model.encode_keys(images, intrinsics, maps), intrinsics, size)
            self._compare_depth("rendered_depth", rendered, frames, figures)
            branch = self.config.model.depth_branch
            known = [at for at, frame in enumerate(frames) if self._refines(frame)]
            if known:
                prior = None
                if branch.needs_prior:
                    stored = np.stack([self._read("depth", frames[at].group, frames[at].row, "depth") for at in known])
                    prior = torch.from_numpy(stored).to(device).float()[:, None]
                refined = model.refine_depth(images[known], prior)
                self._compare_depth(
                    "refined_depth", refined, [frames[at] for at in known], [figures[at] for at in known]
                )
        if any(frame.occupancy for frame in frames):
            density = predict_density(model, images, intrinsics, maps)
            for at, frame in enumerate(frames):
                occupied = self._read("occupancy", frame.occupancy_group, frame.row, "occupied").astype(bool)
                visible = self._read("occupancy", frame.occupancy_group, frame.row, "visible").astype(bool)
                measured = occupancy_metrics(density[at] > OCCUPIED, occupied, visible)
                measured["average_precision"] = density_precision(density[at], occupied, visible)
                figures[at].update({f"occupancy/{name}": measured[name] for name in SHOWN_OCCUPANCY})
        return figures

    def _refines(self, frame: ValidationFrame) -> bool:
        """Return whether the model's depth branch, if it has one, can be measured on a frame."""
        branch = self.config.model.depth_branch
        return branch.kind != "none" and (frame.prior or not branch.needs_prior)

    def _compare_depth(
        self, name: str, predicted: Tensor, frames: list[ValidationFrame], figures: list[dict[str, float]]
    ) -> None:
        maps = predicted[:, 0].float().cpu().numpy()
        for at, frame in enumerate(frames):
            if frame.lidar:
                measured = depth_metrics(maps[at], self._read("lidar", frame.group, frame.row, "depth"))
                figures[at].update({f"{name}/{metric}": measured[metric] for metric in SHOWN_DEPTH})

    def _read(self, kind: str, group: str, row: int, array: str) -> NDArray[Any]:
        if kind not in self._readers:
            self._readers[kind] = StoreReader(self.workspace.store(kind))
        return self._readers[kind].read(group, row, array)

    def _intrinsics(self, frame: ValidationFrame) -> NDArray[np.float32]:
        sequence, camera = frame.group.split("/")
        pixels = prepared_intrinsics(self.manifest, sequence, camera, self.config.data)
        ndc = intrinsics_to_ndc(pixels, self.config.data.image_size, self.config.data.convention)
        return np.asarray(ndc, dtype=np.float32)


def _candidates(workspace: Workspace, manifest: Manifest, config: Any) -> Iterator[ValidationFrame]:
    """Yield the val keys that are prepared, in order, with what else there is of them."""
    held = {kind: _Held(workspace, kind) for kind in ("frames", "lidar", "occupancy", "depth")}
    left = rig(manifest.dataset).left
    for key in manifest.keys("val"):
        group, truth = f"{key.sequence}/{key.camera}", occupancy_group(config.data, key.sequence)
        if held["frames"].has(group, key.row):
            yield ValidationFrame(
                group=group,
                row=key.row,
                occupancy_group=truth,
                lidar=held["lidar"].has(group, key.row),
                # Occupancy ground truth lies in the left camera's frame.
                occupancy=key.camera == left and held["occupancy"].has(truth, key.row),
                prior=held["depth"].has(group, key.row),
            )


class _Held:
    """Which rows of a store are there; none where there is no store."""

    def __init__(self, workspace: Workspace, kind: str) -> None:
        path = workspace.store(kind)
        self.reader = StoreReader(path) if path.is_dir() else None
        self.known: dict[str, NDArray[np.bool_] | None] = {}

    def has(self, group: str, row: int) -> bool:
        if self.reader is None:
            return False
        if group not in self.known:
            self.known[group] = self.reader.rows(group) if self.reader.has(group) else None
        rows = self.known[group]
        return rows is not None and row < len(rows) and bool(rows[row])


def _mean(values: list[float]) -> float:
    kept = [value for value in values if not math.isnan(value)]
    return sum(kept) / len(kept) if kept else math.nan


def figures_line(figures: Mapping[str, float]) -> str:
    """Return validation figures as one short line."""
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
