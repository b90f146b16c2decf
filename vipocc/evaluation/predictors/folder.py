"""Anybody's predictions from a folder, scored by the same code as our own; the layout is in `layout`."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor

from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.errors import DataError, MissingInputError, UsageError
from vipocc.evaluation.inputs import frame_of
from vipocc.evaluation.predictors.checks import unsound_depth, unsound_occupancy
from vipocc.evaluation.predictors.interface import Batch, Unit
from vipocc.evaluation.predictors.layout import META, SUFFIXES, ZARR, frame_file, listed, points_digest, read_meta
from vipocc.evaluation.report import Frame, Kind

_REMEMBERED = 256 << 20
"""Bytes of arrays that are kept between being checked and being asked for: more than a batch."""


class PredictionFolder:
    """A folder of predictions: which frames it has, and their arrays."""

    def __init__(self, folder: Path, name: str | None = None) -> None:
        """Open a folder.

        Args:
            folder: in the layout.
            name: of the row, by default `meta.json`'s.

        Raises:
            MissingInputError: there is no folder, or no `meta.json` in it.
            DataError: `meta.json` or the Zarr group is damaged.
        """
        self.folder, self.meta = folder, read_meta(folder)
        self.name = name or self.meta.name
        self._places: dict[str, int] = {}
        self._group = self._opened() if (folder / ZARR).exists() else None

    def expect(self, dataset: str) -> None:
        """Raise `UsageError` if the predictions are another dataset's."""
        if self.meta.dataset != dataset:
            raise UsageError(
                f"the predictions are of dataset '{self.meta.dataset}', not '{dataset}'",
                where=self.folder / META,
                fix="evaluate them in a workspace of their dataset",
            )

    def has(self, frame: Frame) -> bool:
        """Whether there is a prediction of a frame, of use or not."""
        return _key(frame) in self._places or any(path.is_file() for path in self._files(frame))

    def read(self, frame: Frame) -> NDArray[Any] | str:
        """Return a frame's array as it lies there, or the reason why there is none."""
        found = [path for path in self._files(frame) if path.is_file()]
        place = self._places.get(_key(frame))
        if len(found) + (place is not None) > 1:
            return "more than one prediction"
        if place is not None and self._group is not None:
            array: Any = self._group[f"{frame.sequence}/{frame.camera}/{self.meta.quantity}"]
            return np.asarray(array[place])
        return self._load(found[0]) if found else "no prediction"

    def strangers(self, frames: Iterable[Frame]) -> list[str]:
        """Return the files and Zarr rows that belong to none of `frames`, relative to the folder; no hidden ones."""
        wanted, known = set(), set()
        for frame in frames:
            wanted |= {str(path) for path in self._files(frame)}
            known.add(_key(frame))
        there = [
            path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(self.folder).parts)
        ]
        files = [
            path.relative_to(self.folder).as_posix()
            for path in there
            if str(path) not in wanted and path != self.folder / META and not path.is_relative_to(self.folder / ZARR)
        ]
        return files + [f"{ZARR}/{one}" for one in sorted(self._places) if one not in known]

    def _files(self, frame: Frame) -> list[Path]:
        return [self.folder / frame_file(frame.sequence, frame.camera, frame.frame_id, one) for one in SUFFIXES]

    def _load(self, path: Path) -> NDArray[Any] | str:
        try:
            # Opened here, for np.load leaves a file open that turns out to be damaged.
            with path.open("rb") as file:
                held = np.load(file, allow_pickle=False)
                if isinstance(held, np.ndarray):
                    return held
                with held:
                    if self.meta.quantity not in held.files:
                        return f"the .npz has no array named {self.meta.quantity}"
                    return np.asarray(held[self.meta.quantity])
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return f"the {path.suffix} file is damaged"

    def _opened(self) -> Any:
        path, quantity = self.folder / ZARR, self.meta.quantity
        fix = f"write the arrays frame_id [F] and {quantity} [F, ...] below {ZARR}/<sequence>/<camera>"
        try:
            group: Any = zarr.open_group(str(path), mode="r")
            for sequence, inside in group.groups():
                for camera, one in inside.groups():
                    ids, values = np.asarray(one["frame_id"][:]), one[quantity]
                    if ids.ndim != 1 or ids.dtype.kind not in "iu" or len(ids) != values.shape[0]:
                        raise DataError(
                            f"frame_id {ids.dtype} {ids.shape} does not count the rows of {quantity} {values.shape}",
                            where=path / sequence / camera,
                            fix=fix,
                        )
                    if len(np.unique(ids)) != len(ids):
                        raise DataError("a frame id stands twice in frame_id", where=path / sequence / camera, fix=fix)
                    self._places |= {f"{sequence}/{camera}/{int(number)}": at for at, number in enumerate(ids)}
        except DataError:
            raise
        except Exception as error:  # zarr raises of many kinds, by what it meets in the file
            raise DataError(
                f"the Zarr group cannot be read ({type(error).__name__}: {error})", where=path, fix=fix
            ) from None
        return group


def _key(frame: Frame) -> str:
    return f"{frame.sequence}/{frame.camera}/{frame.frame_id}"


class _FolderPredictor:
    """What occupancy and depth of a folder share."""

    kind: Kind = "measured"

    def __init__(self, folder: PredictionFolder, manifest: Manifest, frames: Sequence[Frame]) -> None:
        folder.expect(manifest.dataset)
        self.folder, self.name, self._manifest = folder, folder.name, manifest
        if frames and not any(folder.has(frame) for frame in frames):
            first = frame_file(frames[0].sequence, frames[0].camera, frames[0].frame_id)
            raise MissingInputError(
                f"there is no prediction of any of the {len(frames):,} frames to evaluate",
                where=folder.folder,
                fix=f"the first belongs at {first}; `vipocc eval points` lists them all",
            )
        self._reasons: dict[Frame, str | None] = {}
        self._kept: dict[Frame, Tensor] = {}
        self._lock = threading.Lock()  # frames are judged in threads
        strangers = folder.strangers(frames)
        parts = [
            folder.meta.note,
            f"left aside, of no frame evaluated here: {listed(strangers)} ({len(strangers):,} in all)"
            if strangers
            else "",
        ]
        self.note = "; ".join(filter(None, parts))

    def missing(self, key: FrameKey) -> str | None:
        """Return why a frame's prediction cannot be used: it is absent, damaged, of a wrong shape, NaN, ..."""
        frame = frame_of(self._manifest, key)
        with self._lock:
            if frame not in self._reasons:
                self._sound(frame)
            return self._reasons[frame]

    def _arrays(self, frames: Sequence[Frame]) -> list[Tensor | None]:
        """Return the frames' arrays, None where there is none of use."""
        with self._lock:
            return [self._sound(frame) for frame in frames]

    def _sound(self, frame: Frame) -> Tensor | None:
        if frame in self._kept:
            return self._kept[frame]
        read = self.folder.read(frame)
        reason = read if isinstance(read, str) else self._reason(read)
        self._reasons[frame] = reason
        if reason is not None or isinstance(read, str):
            return None
        self._kept[frame] = torch.from_numpy(read.astype(np.float32))
        while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > _REMEMBERED:
            del self._kept[next(iter(self._kept))]
        return self._kept[frame]

    def _reason(self, values: NDArray[Any]) -> str | None:
        raise NotImplementedError


class FolderOccupancy(_FolderPredictor):
    """Occupancy at a protocol's points, from a folder."""

    def __init__(
        self,
        folder: PredictionFolder,
        manifest: Manifest,
        frames: Sequence[Frame],
        points: NDArray[Any],
        grid: tuple[int, ...],
        protocol: str,
    ) -> None:
        """Take predictions for points.

        Args:
            folder: the predictions.
            manifest: the dataset's.
            frames: those that will be asked for.
            points: the protocol's [N, 3], in the key camera's frame.
            grid: shape that those points form, whose product is N.
            protocol: its name.

        Raises:
            UsageError: they are depth maps, of another dataset, or were made at other points.
            MissingInputError: there is none of any of the frames.
        """
        if folder.meta.unit == "metres":
            raise UsageError("the predictions are depth maps", where=folder.folder, fix="use `vipocc eval depth`")
        self.unit: Unit = folder.meta.unit
        self._shapes: tuple[tuple[int, ...], ...] = tuple(dict.fromkeys(((len(points),), tuple(grid))))
        self._digest = points_digest(points)
        if folder.meta.points_digest != self._digest:
            of = f"those of protocol {folder.meta.protocol}" if folder.meta.protocol else "others"
            raise UsageError(
                f"occupancy was predicted at other points ({of}, {folder.meta.points_digest}) than those of {protocol} "
                f"({self._digest})",
                where=folder.folder / META,
                fix=f"predict at the points that `vipocc eval points --protocol {protocol} --output FILE` writes",
            )
        super().__init__(folder, manifest, frames)

    def occupancy(self, batch: Batch, points: Tensor) -> Tensor:
        """Return [B, N] in `unit`, NaN for a frame that `missing` speaks of; see `OccupancyPredictor`."""
        if points_digest(points.cpu().numpy()) != self._digest:
            raise UsageError(f"'{self.name}' has no predictions at these points", where=self.folder.folder)
        nothing = torch.full((len(points),), torch.nan)
        rows = [nothing if one is None else one.reshape(-1) for one in self._arrays(batch.frames)]
        return torch.stack(rows).to(points.device)

    def _reason(self, values: NDArray[Any]) -> str | None:
        return unsound_occupancy(values, self.folder.meta, self._shapes)


class FolderDepth(_FolderPredictor):
    """Depth maps from a folder."""

    def __init__(self, folder: PredictionFolder, manifest: Manifest, frames: Sequence[Frame]) -> None:
        """Take depth maps, see `FolderOccupancy`.

        Raises:
            UsageError: they are occupancy, or of another dataset.
            MissingInputError: there is none of any of the frames.
        """
        if folder.meta.unit != "metres":
            raise UsageError(
                f"the predictions are occupancy ({folder.meta.unit}), not depth in metres",
                where=folder.folder,
                fix="use `vipocc eval occupancy`",
            )
        super().__init__(folder, manifest, frames)

    def depth(self, batch: Batch) -> Sequence[Tensor]:
        """Return [H, W] of any size for each frame, NaN for one that `missing` speaks of; see `DepthPredictor`."""
        found, device = self._arrays(batch.frames), batch.images.device
        return [torch.full((1, 1), torch.nan) if one is None else one.to(device) for one in found]

    def _reason(self, values: NDArray[Any]) -> str | None:
        return unsound_depth(values, holes=self.folder.meta.holes)
