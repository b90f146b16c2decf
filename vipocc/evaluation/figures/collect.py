"""Collects pictured frames while an evaluation runs, and puts figures and frames into its report.

What the evaluation computes is taken as it passes by. Cubes are the one thing it does not compute: the pictured frames,
a handful, are asked again for the points of `VOLUME`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vipocc.data_manifests.ground_truth.occupancy import SLICE_GRID
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.errors import UsageError
from vipocc.evaluation.figures import drawing
from vipocc.evaluation.figures.choosing import Chosen, parse_picture, wanted
from vipocc.evaluation.figures.depths import Distributions
from vipocc.evaluation.figures.pictured import DISTRIBUTIONS, Pictured
from vipocc.evaluation.figures.voxels import VOLUME
from vipocc.evaluation.inputs import FrameSource, frame_of
from vipocc.evaluation.predictors.folder import FolderOccupancy
from vipocc.evaluation.predictors.interface import OccupancyPredictor
from vipocc.evaluation.report import Frame, Report
from vipocc.evaluation.stream import stream_reference

Keep = Callable[[Frame, NDArray[np.uint8], dict[str, NDArray[np.float32]], Any], None]


class Chain:
    """Hands a frame on to several that keep something of it; tells beforehand whether any of them wants it."""

    def __init__(self, *keeps: Keep | None) -> None:
        self._keeps = [one for one in keeps if one is not None]

    def wants(self, frame: Frame) -> bool:
        """Whether any of them wants a frame."""
        answers = [wanted(one, frame) for one in self._keeps]  # all are asked: they count the frames
        return any(answers)

    def __call__(self, frame: Frame, image: NDArray[np.uint8], values: Any, truth: Any) -> None:
        """Hand a frame on."""
        for one in self._keeps:
            if wanted(one, frame):
                one(frame, image, values, truth)


def check_named(pictures: Sequence[str], manifest: Manifest, keys: Sequence[FrameKey]) -> list[tuple[str, int]]:
    """Return the sequence and frame id of each SEQ/FRAME.

    Raises:
        UsageError: it is not of that form, or none of the frames to evaluate.
    """
    named = [parse_picture(text) for text in pictures]
    there = {(one.sequence, one.frame_id) for one in (frame_of(manifest, key) for key in keys)} if named else set()
    for sequence, number in named:
        if (sequence, number) not in there:
            some = ", ".join(f"{s}/{n}" for s, n in sorted(there)[:3])
            raise UsageError(f"{sequence}/{number} is not evaluated here", fix=f"name one that is, such as {some}")
    return named


class OccupancyPictures:
    """Pictures of an evaluation of occupancy."""

    def __init__(
        self, predictors: Sequence[OccupancyPredictor], thresholds: Mapping[str, float], count: int,
        named: Sequence[tuple[str, int]] = (),
    ) -> None:  # fmt: skip
        """Prepare to keep `count` frames and the named ones; a value above its predictor's threshold is occupied.

        Untrained networks and constant guesses are not pictured: they look the same on every frame.
        """
        self._predictors = [one for one in predictors if one.kind not in ("untrained", "constant")]
        self._thresholds = {one.name: thresholds[one.name] for one in self._predictors}
        self._chosen: Chosen[Pictured] = Chosen(count, named)

    def wants(self, frame: Frame) -> bool:
        """Whether a frame is pictured; asked of each, in order."""
        return self._chosen.wants(frame)

    def __call__(self, frame: Frame, image: NDArray[np.uint8], values: Mapping[str, NDArray[Any]], truth: Any) -> None:
        """Take a frame that `wants` agreed to, see `evaluate_occupancy`."""
        one = Pictured(frame, image.copy())
        if truth.occupied.shape == SLICE_GRID.shape:
            one.occupied, one.visible = truth.occupied, truth.visible
            one.slices = {
                name: np.asarray(found.reshape(SLICE_GRID.shape) > self._thresholds[name])
                for name, found in values.items()
                if name in self._thresholds and np.isfinite(found).all()
            }
        self._chosen.add(frame, one)

    def put_into(self, report: Report, source: FrameSource, device: torch.device) -> None:
        """Ask for the cubes of the pictured frames and put everything into the report."""
        frames = [one for _, one in self._chosen.picked()]
        for one in frames:
            one.volumes = self._volumes(one.frame, source, device)
        figures = [drawing.scene(one) for one in frames]
        figures += [one for one in (drawing.compared_occupancy(frames),) if one is not None]
        _put(report, figures, frames, self._chosen.unmet())

    @torch.no_grad()
    def _volumes(self, frame: Frame, source: FrameSource, device: torch.device) -> dict[str, NDArray[np.bool_]]:
        key = FrameKey(frame.sequence, frame.camera, frame.row)
        (batch,) = stream_reference(source, [key], 1, device)
        inside = VOLUME.in_image(batch.intrinsics_ndc[0].cpu().numpy())
        points = torch.from_numpy(VOLUME.camera_points()[inside.reshape(-1)]).to(device)
        volumes = {}
        for one in self._predictors:
            # A folder has predictions at the protocol's points alone.
            if one.missing(key) is not None or isinstance(one, FolderOccupancy):
                continue
            found = one.occupancy(batch, points)[0]
            volume = np.zeros(VOLUME.shape, np.bool_)
            volume[inside] = found.float().cpu().numpy() > self._thresholds[one.name]
            volumes[one.name] = volume
        return volumes


class DepthPictures:
    """Pictures of an evaluation of depth, and the distributions over all of its frames."""

    def __init__(self, count: int, named: Sequence[tuple[str, int]] = ()) -> None:
        self._chosen: Chosen[Pictured] = Chosen(count, named)
        self._distributions = Distributions()

    def __call__(
        self, frame: Frame, image: NDArray[np.uint8], maps: Mapping[str, NDArray[Any]], truth: NDArray[Any]
    ) -> None:
        """Take a frame that passes by, see `evaluate_depth`."""
        self._distributions.add(maps, truth)
        if self._chosen.wants(frame):
            self._chosen.add(frame, Pictured(frame, image.copy(), dict(maps), truth))

    def put_into(self, report: Report) -> None:
        """Put everything into the report."""
        frames = [one for _, one in self._chosen.picked()]
        figures = [drawing.maps(one) for one in frames]
        counts, of = self._distributions.counts, self._distributions.frames
        more = (drawing.compared_depth(frames), drawing.depth_distributions(counts, of))
        _put(report, figures + [one for one in more if one is not None], frames, self._chosen.unmet())
        if self._chosen.count or self._chosen.named:
            report.attachments = {**report.attachments, DISTRIBUTIONS: self._distributions.content()}


def _put(report: Report, figures: Sequence[drawing.Drawn], frames: Sequence[Pictured], unmet: Sequence[str]) -> None:
    if unmet:
        report.notes = [*report.notes, f"Not pictured, for it was left out: {', '.join(unmet)}."]
    report.figures = [*report.figures, *(one.figure() for one in figures)]
    files = {one.file: one.content() for one in frames}
    report.attachments = {**report.attachments, **files, **drawing.png_files(figures)}
