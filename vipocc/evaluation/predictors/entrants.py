"""Who enters an evaluation beside our network: baselines by name, predictions from folders; and what is saved of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.errors import MissingInputError, UsageError
from vipocc.evaluation.inputs import frame_of
from vipocc.evaluation.predictors.depth_shell import THICKNESS, DepthShell, OncePerBatch, shells
from vipocc.evaluation.predictors.folder import FolderDepth, FolderOccupancy, PredictionFolder
from vipocc.evaluation.predictors.interface import DepthPredictor, OccupancyPredictor
from vipocc.evaluation.predictors.layout import FolderWriter, Meta, points_digest
from vipocc.evaluation.protocols import Protocol
from vipocc.evaluation.report import Frame
from vipocc.geometry.ndc import Convention

DEPTHS = ("prior", "rendered", "branch")
"""Depths that a baseline can be made of."""
FREE = ("prior", f"prior+{THICKNESS:g}m")
"""Baselines that are evaluated unasked where there is pseudo-depth: they take no network."""
NONE = "none"

_BASELINE = re.compile(rf"({'|'.join(DEPTHS)})(?:\+(\d+(?:\.\d+)?)m)?")


@dataclass(frozen=True)
class Entrants:
    """What the user wants evaluated."""

    predictions: Sequence[str] = ()
    """Folders, each `FOLDER` or `NAME=FOLDER`."""
    baselines: Sequence[str] = ()
    """Names; none named means `FREE`, where it can be had; `none` means none."""
    save: Path | None = None
    """Where the predictions of our networks go, a folder for each row; None for nowhere."""

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            UsageError: a baseline is unknown, or `none` stands beside others.
        """
        for name in self.baselines:
            if name != NONE and _BASELINE.fullmatch(name) is None:
                raise UsageError(
                    f"there is no baseline '{name}'",
                    fix=f"use --baseline {', '.join(DEPTHS)}, each also with a thickness as in {FREE[1]}, or {NONE}",
                )
        if NONE in self.baselines and len(set(self.baselines)) > 1:
            raise UsageError(f"--baseline {NONE} and other baselines exclude each other", fix="leave one of them out")
        if self.save is not None and self.save.exists() and (not self.save.is_dir() or any(self.save.iterdir())):
            raise UsageError("there is something already", where=self.save, fix="name a new --save-predictions folder")

    def wants_network(self, run: str | None, checkpoint: Path | None) -> bool:
        """Whether our network is evaluated: predictions from folders need none, unless it is named beside them."""
        needed = self.save is not None or any(not name.startswith(("prior", NONE)) for name in self.baselines)
        return not self.predictions or needed or run is not None or checkpoint is not None

    def savers(self, metas: Sequence[Meta]) -> Savers | None:
        """Return what writes the rows that `metas` are of, None if nothing is to be saved."""
        return None if self.save is None else Savers(self.save, metas)

    def open(self, dataset: str) -> list[PredictionFolder]:
        """Open the folders of predictions; errors as `PredictionFolder` and its `expect`."""
        folders = []
        for text in self.predictions:
            name, equals, path = text.partition("=")
            named = bool(equals) and not Path(text).exists()
            folders.append(PredictionFolder(Path(path if named else text), name if named else None))
        names = [folder.name for folder in folders]
        for folder in folders:
            folder.expect(dataset)
            if names.count(folder.name) > 1:
                raise UsageError(
                    f"two folders of predictions are named '{folder.name}'", fix="use --predictions NAME=FOLDER"
                )
        return folders

    def depth_baselines(
        self, sources: Mapping[str, Callable[[], DepthPredictor]], why_not: Mapping[str, str], convention: Convention
    ) -> list[DepthShell]:
        """Return the baselines that are made of depth.

        Args:
            sources: makes the depth predictor of each name of `DEPTHS` that can be had.
            why_not: the command or flag that would make the others available.
            convention: of the pixels.

        Raises:
            MissingInputError: a baseline was asked for by name whose depth cannot be had.
        """
        asked = [name for name in self.baselines if name != NONE]
        if not self.baselines and "prior" in sources:
            asked = list(FREE)
        made: dict[str, OncePerBatch] = {}
        rows: dict[str, DepthShell] = {}
        for name in asked:
            found = _BASELINE.fullmatch(name)
            assert found is not None
            depth, thickness = found.groups()
            if depth not in sources:
                raise MissingInputError(f"baseline {name} has no depth to be made of", fix=why_not.get(depth))
            if depth not in made:
                made[depth] = OncePerBatch(sources[depth]())
            shell = DepthShell(made[depth], None if thickness is None else float(thickness), convention=convention)
            rows.setdefault(shell.name, shell)
        return list(rows.values())


def folder_occupancy(
    folders: Sequence[PredictionFolder],
    manifest: Manifest,
    frames: Sequence[Frame],
    points: NDArray[Any],
    grid: tuple[int, ...],
    protocol: str,
    convention: Convention,
) -> list[OccupancyPredictor]:
    """Return the rows of folders: occupancy as it is, depth maps as both published ways of turning them into it.

    Arguments and errors as `FolderOccupancy`.
    """
    rows: list[OccupancyPredictor] = []
    for folder in folders:
        if folder.meta.quantity == "depth":
            rows += shells(FolderDepth(folder, manifest, frames), convention=convention, kind="measured")
        else:
            rows.append(FolderOccupancy(folder, manifest, frames, points, grid, protocol))
    return rows


def folder_depth(
    folders: Sequence[PredictionFolder], manifest: Manifest, frames: Sequence[Frame]
) -> list[DepthPredictor]:
    """Return the rows of folders of depth maps; errors as `FolderDepth`."""
    return [FolderDepth(folder, manifest, frames) for folder in folders]


def distinct(names: Sequence[str]) -> None:
    """Raise `UsageError` if two rows have one name."""
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two rows are named '{name}'", fix="name folders as in --predictions NAME=FOLDER")


def frames_of(manifest: Manifest, keys: Iterable[FrameKey]) -> list[Frame]:
    """Return keys with their frame ids."""
    return [frame_of(manifest, key) for key in keys]


class Savers:
    """Writes what our networks predict, in the layout that `--predictions` reads: `<folder>/<row>/...`."""

    def __init__(self, folder: Path, metas: Sequence[Meta]) -> None:
        """Write into a folder for each row that `metas` name, made when the first frame comes."""
        self._folder, self._metas = folder, {meta.name: meta for meta in metas}
        self._writers: dict[str, FolderWriter] = {}

    def keep(self, frame: Frame, _image: object, predicted: Mapping[str, NDArray[Any]], _truth: object) -> None:
        """Write a frame's predictions by name of the row, others are left: a `keep` of the evaluations.

        Raises:
            UsageError: there is something in the folder already.
            StoreError: the disk is full or may not be written.
        """
        for name, values in predicted.items():
            if name in self._metas:
                if name not in self._writers:
                    self._writers[name] = FolderWriter(self._folder / slug(name), self._metas[name])
                self._writers[name].add(frame, np.asarray(values, np.float32))


def occupancy_meta(predictor: OccupancyPredictor, dataset: str, points: NDArray[Any], protocol: Protocol) -> Meta:
    """Return the `meta.json` of occupancy at a protocol's points."""
    return Meta(
        name=predictor.name,
        dataset=dataset,
        unit=predictor.unit,
        points_digest=points_digest(points),
        protocol=protocol.name,
        protocol_digest=protocol.digest,
        note=predictor.note,
    )


def depth_meta(predictor: DepthPredictor, dataset: str) -> Meta:
    """Return the `meta.json` of depth maps."""
    return Meta(name=predictor.name, dataset=dataset, unit="metres", holes=True, note=predictor.note)


def slug(name: str) -> str:
    """Return a row's name as a folder's."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", name).strip("-") or "row"
