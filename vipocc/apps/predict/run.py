"""A whole run of `vipocc predict`: batches, what is done already, and what went wrong with which picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vipocc.apps.predict.cameras import Intrinsics, Known
from vipocc.apps.predict.checkpoints import TrainingCamera
from vipocc.apps.predict.framing import undistorted
from vipocc.apps.predict.grid import Grid
from vipocc.apps.predict.outputs import is_done, settings_digest, write_prediction, write_whole
from vipocc.apps.predict.pictures import Item, Pictures
from vipocc.apps.predict.predictor import Prediction, Predictor, View
from vipocc.apps.predict.prior import LivePrior
from vipocc.errors import DataError, NonFiniteError, UsageError, VipoccError
from vipocc.evaluation.inputs import Checkpoint
from vipocc.model.checkpoint import WEIGHTS
from vipocc.progress import progress

SUMMARY = "predictions.json"
_CELLS_AT_ONCE = 16_000_000


@dataclass(frozen=True)
class Wanted:
    """What is written of each picture."""

    grid: Grid | None
    """None for no occupancy."""
    depth: bool = True
    threshold: float = 0.5
    """Density in 1/m above which a cell is occupied."""
    full_size: bool = False
    """Whether depth is also written at the pixels of the picture itself."""
    batch_size: int = 4
    overwrite: bool = False


@dataclass
class Summary:
    """How a run went."""

    output: Path
    predicted: int = 0
    skipped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Name of each picture that could not be predicted, and why."""

    @property
    def exit_code(self) -> int:
        """0: all pictures are there; 3: some could not be predicted; 2: none could."""
        if not self.failed:
            return 0
        return 3 if self.predicted or self.skipped else 2

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        failed = [{"name": name, "error": why} for name, why in self.failed]
        return {
            "output": str(self.output), "predicted": self.predicted, "skipped": self.skipped, "failed": failed,
            "exit_code": self.exit_code,
        }  # fmt: skip


@dataclass(frozen=True)
class _Ready:
    item: Item
    known: Known
    view: View


def run_settings(
    checkpoint: Checkpoint, training: TrainingCamera, prior: LivePrior | None, intrinsics: Intrinsics, wanted: Wanted
) -> dict[str, Any]:
    """Return everything that decides the results but the pictures, as JSON values."""
    weights = (checkpoint.path / WEIGHTS).stat()
    said = {name: str(value) for name, value in asdict(intrinsics).items() if value is not None}
    if intrinsics.file is not None:
        said["file_mtime_ns"] = str(intrinsics.file.stat().st_mtime_ns) if intrinsics.file.exists() else ""
    return {
        "checkpoint": str(checkpoint.path),
        "weights": {"bytes": weights.st_size, "mtime_ns": weights.st_mtime_ns},
        "training_camera": {**asdict(training.camera), "origin": training.origin},
        "depth_model": None if prior is None else prior.fingerprint,
        "intrinsics": said,
        "grid": None if wanted.grid is None else asdict(wanted.grid),
        "depth": wanted.depth,
        "threshold": wanted.threshold,
        "full_size": wanted.full_size,
    }


class Run:
    """Predicts pictures into a folder."""

    def __init__(
        self,
        predictor: Predictor,
        intrinsics: Intrinsics,
        wanted: Wanted,
        output: Path,
        settings: Mapping[str, Any],
        warn: Callable[[str], None],
    ) -> None:
        """Prepare a run.

        Args:
            predictor: the network.
            intrinsics: what is known of the camera.
            wanted: what is written.
            output: the folder; made if need be.
            settings: see `run_settings`.
            warn: takes sentences about pictures that were predicted all the same.

        Raises:
            UsageError: the output is a file.
        """
        if output.exists() and not output.is_dir():
            raise UsageError(f"the output {output} is a file", fix="name a folder with -o")
        self.predictor, self.intrinsics, self.wanted, self.output = predictor, intrinsics, wanted, output
        self.settings, self.warn = settings, warn
        self.digest = settings_digest(settings)
        self._warned: dict[str, int] = {}
        cells = 0 if wanted.grid is None else wanted.grid.cells
        self._batch = max(1, min(wanted.batch_size, _CELLS_AT_ONCE // max(1, cells)))

    def all(self, pictures: Pictures) -> Summary:
        """Predict all pictures that are not done yet; what is wrong with one is told, and the others go on.

        Raises:
            StoreError: the output cannot be written.
        """
        summary = Summary(self.output)
        waiting: list[_Ready] = []
        with progress("predict", len(pictures), "pictures") as bar:
            for item in pictures.items():
                if isinstance(item, Item):
                    ready = self._ready(item, summary)
                    if ready is None:
                        bar.advance(1, **_told(summary))
                        continue
                    waiting.append(ready)
                    if len(waiting) >= self._batch:
                        self._predict(waiting, summary)
                        bar.advance(len(waiting), **_told(summary))
                        waiting = []
                else:
                    name, _, error = item
                    self._fail(name, error, summary)
                    bar.advance(1, **_told(summary))
            if waiting:
                self._predict(waiting, summary)
                bar.advance(len(waiting), **_told(summary))
        for warning, count in self._warned.items():
            if count > 1:
                self.warn(f"warning: so for {count:,} pictures in all: {warning}")
        self.output.mkdir(parents=True, exist_ok=True)
        record = {**summary.as_dict(), "settings": self.settings, "warnings": self._warned}
        write_whole(self.output / SUMMARY, (json.dumps(record, indent=1, default=str) + "\n").encode())
        return summary

    def _ready(self, item: Item, summary: Summary) -> _Ready | None:
        """Return a picture brought to the training camera; None if it is done already, or cannot be."""
        try:
            if not self.wanted.overwrite and is_done(self.output / item.name, item.source(), self.digest):
                summary.skipped += 1
                return None
            picture = item.read()
            known = self.intrinsics.of_picture(
                (picture.image.shape[0], picture.image.shape[1]), item.path, picture.exif
            )
            image = undistorted(picture.image, known.camera, known.distortion)
            view = self.predictor.view(image, known.camera)
        except DataError as error:
            self._fail(item.name, error, summary)
            return None
        except OSError as error:
            self._fail(item.name, DataError(f"cannot be read ({error.strerror})", where=item.path), summary)
            return None
        if known.warning:
            self._say_once(known.warning, item)
        if told := view.framing.sentence():
            self._say_once(told, item)
        if any(known.distortion):
            self._say_once("lens distortion is taken out first, by the calibration", item)
        return _Ready(item, known, view)

    def _predict(self, waiting: list[_Ready], summary: Summary) -> None:
        """Predict a batch; where it fails for one picture, each of them alone."""
        try:
            found = self.predictor.predict([one.view for one in waiting], self.wanted.grid, depth=self.wanted.depth)
            self._check(found)
        except NonFiniteError as error:
            if len(waiting) == 1:
                self._fail(waiting[0].item.name, error, summary)
                return
            for one in waiting:
                self._predict([one], summary)
            return
        for one, prediction in zip(waiting, found, strict=True):
            write_prediction(
                self.output / one.item.name,
                prediction,
                source=one.item.source(),
                known=one.known,
                grid=self.wanted.grid,
                threshold=self.wanted.threshold,
                full_size=self.wanted.full_size,
                settings=self.settings,
                about_depth={"by": self.predictor.depth_kind},
            )
            summary.predicted += 1

    def _check(self, found: list[Prediction]) -> None:
        for prediction in found:
            if prediction.density is not None and not np.isfinite(prediction.density).all():
                raise NonFiniteError("the network gave densities that are not finite", fix="use another checkpoint")
            if prediction.depth is not None and not np.isfinite(prediction.depth).any():
                raise NonFiniteError("the network gave no finite depth at all", fix="use another checkpoint")

    def _fail(self, name: str, error: VipoccError, summary: Summary) -> None:
        summary.failed.append((name, str(error)))
        self.warn(f"{name}: {error}")

    def _say_once(self, warning: str, item: Item) -> None:
        self._warned[warning] = self._warned.get(warning, 0) + 1
        if self._warned[warning] == 1:
            self.warn(f"{item.name}: {warning}")


def _told(summary: Summary) -> dict[str, object]:
    return {"failed": len(summary.failed)} if summary.failed else {}
