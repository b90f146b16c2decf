"""Runs the network that a source loads: batches that fit the device, results checked before they are stored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.views import prepared_intrinsics
from vipocc.errors import ConfigError, NonFiniteError
from vipocc.priors.arithmetic import arithmetic
from vipocc.priors.batching import BatchSize
from vipocc.priors.config import MAX_INSTANCES, NetworkOptions
from vipocc.priors.grounded_sam.records import Detections, pack
from vipocc.priors.image_computer import ImageComputer
from vipocc.priors.sources.base import DepthSource, Images, InstanceSource, Source
from vipocc.stores import Unit

Instances = tuple[Detections, NDArray[np.bool_]]


@dataclass
class NetworkComputer(ImageComputer):
    """A source's network on prepared images, in its options' arithmetic and batches."""

    source: Source
    _model: Callable[[Images], Any] | None = field(default=None, init=False, repr=False)
    _batch: BatchSize | None = field(default=None, init=False, repr=False)
    _device: str = field(default="cpu", init=False, repr=False)
    _manifest: Manifest | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not issubclass(self.source.Options, NetworkOptions):
            raise ConfigError(
                f"the options of the source '{self.source.name}' name neither batch size nor arithmetic",
                where=self.source.Options.__module__,
                fix="derive them from vipocc.priors.config.NetworkOptions, or give the source a computer of its own",
            )

    @property
    def options(self) -> NetworkOptions:
        """Of the source."""
        options: NetworkOptions = self.source.options
        return options

    @abstractmethod
    def checked(self, answer: Any, images: Images) -> Any:
        """Return what the network said of some images; raises if it cannot be stored."""

    def load(self, device: str) -> None:
        """Load the network onto `device`."""
        self._model = self.source.load(device)  # type: ignore[attr-defined]
        self._batch, self._device = BatchSize(self.options.batch_size, torch.device(device)), device

    def unload(self) -> None:
        """Let go of the network."""
        self._model = self._batch = self._manifest = None

    def infer(self, unit: Unit, rows: Sequence[int], images: NDArray[np.uint8]) -> list[Any]:
        """Return the network's checked answers, batch by batch."""
        if self._manifest is None:
            workspace = self.source.workspace
            self._manifest = Manifest.load(workspace.manifest, dataset=workspace.dataset, root=workspace.root)
        sequence, camera = unit.group.split("/")
        intrinsics = prepared_intrinsics(self._manifest, sequence, camera, self.source.data)
        return self.answers(Images(images, intrinsics, unit.group, tuple(int(row) for row in rows)))

    def notes(self) -> dict[str, Any]:
        """Return what a unit's record says of the computation besides what decides it."""
        assert self._batch is not None
        return {"batch_size": self._batch.size}

    def trial(self, images: NDArray[np.uint8]) -> object:
        """Run the network once on noise, seen at a right angle: frames need not be there, nor their cameras."""
        count, height, width = images.shape[:3]
        intrinsics = np.array([[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]])
        return self.answers(Images(images, intrinsics, "noise/noise", tuple(range(count))))

    def answers(self, images: Images) -> list[Any]:
        """Return the network's checked answers for images from anywhere, batch by batch, for `pack`."""
        assert self._batch is not None
        count = len(images.rgb)
        self._batch.find(lambda size: self._run(_some(images, np.arange(size) % count)))
        return list(self._batch.split(count, lambda start, stop: self._run(_some(images, np.arange(start, stop)))))

    def _run(self, images: Images) -> Any:
        assert self._model is not None
        with torch.inference_mode(), arithmetic(torch.device(self._device), self.options.dtype):
            return self.checked(self._model(images), images)

    def _wrong(self, what: str) -> ConfigError:
        where = type(self.source).__module__
        return ConfigError(f"the source '{self.source.name}' {what}", where=where, fix="mend it (docs/adding-a-prior)")

    def _not_finite(self, what: str) -> NonFiniteError:
        fix = "use --dtype float32, or check the weights"
        return NonFiniteError(f"the source '{self.source.name}' gave {what}", where=self.source.name, fix=fix)


@dataclass
class DepthNetworkComputer(NetworkComputer):
    """Depth by a source's network."""

    source: DepthSource

    def checked(self, answer: Any, images: Images) -> NDArray[np.floating[Any]]:
        """Return depth [n, H, W] in the type that is stored."""
        depth = answer.float().cpu().numpy() if isinstance(answer, torch.Tensor) else np.asarray(answer)
        if depth.shape != images.rgb.shape[:3]:
            raise self._wrong(f"gave depth of shape {depth.shape} for images {images.rgb.shape}")
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is told
            depth = depth.astype(self.source.stored)
        bad = ~(np.isfinite(depth) & (depth >= 0)).reshape(len(depth), -1).all(1)
        if bad.any():
            raise self._not_finite(f"depth that is negative or not finite for image {int(bad.argmax())} of the batch")
        return depth

    def pack(self, found: Any, images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        """Return depth [n, H, W]."""
        return {"depth": np.concatenate(found)}


@dataclass
class InstanceNetworkComputer(NetworkComputer):
    """Instances by a source's network."""

    source: InstanceSource

    def checked(self, answer: Any, images: Images) -> list[Instances]:
        """Return the boxes and masks of each image, surest first, at most 254."""
        found = list(answer)
        if len(found) != len(images.rgb):
            raise self._wrong(f"gave {len(found)} answers for {len(images.rgb)} images")
        return [self._surest(boxes, masks, images.rgb.shape[1:3]) for boxes, masks in found]

    def _surest(self, found: Detections, masks: NDArray[np.bool_], size: tuple[int, ...]) -> Instances:
        count, labels = len(found), len(self.source.classes)
        shapes = (np.shape(found.boxes), np.shape(found.scores), np.shape(found.labels), np.shape(masks))
        if shapes != ((count, 4), (count,), (count,), (count, *size)):
            raise self._wrong(f"gave boxes, scores, labels and masks of shapes {', '.join(map(str, shapes))}")
        if count and not (np.min(found.labels) >= 0 and np.max(found.labels) < labels):
            raise self._wrong(f"gave labels other than 0 to {labels - 1}, the positions of the classes")
        if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
            raise self._not_finite("boxes or scores that are not finite")
        order = np.argsort(-np.asarray(found.scores), kind="stable")[:MAX_INSTANCES]
        surest = Detections(
            np.asarray(found.boxes, np.float32)[order],
            np.asarray(found.scores, np.float32)[order],
            np.asarray(found.labels, np.int16)[order],
        )
        return surest, np.asarray(masks, bool)[order]

    def pack(self, found: Any, images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        """Return the padded records and the map of masks of every image."""
        every = [instance for part in found for instance in part]
        height, width = images.shape[1:3]
        return pack([boxes for boxes, _ in every], [masks for _, masks in every], height, width)


def _some(images: Images, which: NDArray[np.intp]) -> Images:
    rows = tuple(images.rows[k] for k in which)
    return Images(images.rgb[which], images.intrinsics, images.group, rows)
