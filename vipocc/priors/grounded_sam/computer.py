"""Computes the rows of instances.zarr from prepared frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vipocc.priors.config import SamConfig
from vipocc.priors.grounded_sam.records import Detections, pack
from vipocc.priors.image_computer import ImageComputer
from vipocc.stores import Unit

if TYPE_CHECKING:
    from vipocc.priors.grounded_sam.detector import GroundingDino
    from vipocc.priors.grounded_sam.segmenter import Sam


@dataclass
class InstancesComputer(ImageComputer):
    """Grounding DINO and SAM on prepared frames."""

    config: SamConfig
    _models: tuple[GroundingDino, Sam] | None = field(default=None, init=False, repr=False)

    def load(self, device: str) -> None:
        """Load both networks onto `device`."""
        from vipocc.priors.grounded_sam.detector import GroundingDino
        from vipocc.priors.grounded_sam.segmenter import Sam

        self._models = GroundingDino(self.config, device), Sam(self.config, device)

    def unload(self) -> None:
        """Let go of both networks."""
        self._models = None

    def infer(
        self, unit: Unit, rows: Sequence[int], images: NDArray[np.uint8]
    ) -> tuple[list[Detections], list[NDArray[np.bool_]]]:
        """Return the detections of each image and their masks."""
        detector, segmenter = self._open_models()
        detections = detector(images)
        return detections, segmenter(images, detections)

    def pack(self, found: Any, images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        """Return the padded records and the map of masks of every image."""
        detections, masks = found
        return pack(detections, masks, images.shape[1], images.shape[2])

    def notes(self) -> dict[str, Any]:
        """Return what a unit's record says of the computation besides what decides it."""
        detector, segmenter = self._open_models()
        return {"batch_size": {"detector": detector.batch.size, "segmenter": segmenter.batch.size}}

    def trial(self, images: NDArray[np.uint8]) -> object:
        """Run both networks, eight boxes in each image: noise itself may hold none, and SAM would not run."""
        detector, segmenter = self._open_models()
        boxes = np.tile(np.array([0.2, 0.2, 0.6, 0.6]) * np.tile(images.shape[2:0:-1], 2), (8, 1)).astype(np.float32)
        found = [Detections(boxes, np.ones(8, np.float32), np.zeros(8, np.int16))] * len(images)
        detector(images)
        return segmenter(images, found)

    def _open_models(self) -> tuple[GroundingDino, Sam]:
        assert self._models is not None, "the computer is not open"
        return self._models
