"""The scene of a dataset frame: what was measured, what a model predicts, and the truth where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from vipocc.apps.view import layers
from vipocc.apps.view.scene import Float, Layer, Scene
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.occupancy import level_from_world, slice_grid
from vipocc.data_manifests.ground_truth.rules import slice_name
from vipocc.data_manifests.image_files import read_image
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.data_manifests.views import camera_tilt, prepared_intrinsics
from vipocc.errors import UsageError
from vipocc.evaluation.inputs import FrameSource, RowReader, committed, group_of
from vipocc.evaluation.occupancy import THRESHOLD
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.poses import invert, transform_points
from vipocc.model.network import ViPOcc

AT_ONCE = 200_000
"""Points that are asked of a network at once."""
MOST_CELLS = 20_000_000


@dataclass(frozen=True)
class Box:
    """The part of space that is shown as cells, in the level frame, metres."""

    x: tuple[float, float] = (-9.0, 9.0)
    y: tuple[float, float] = (-1.5, 1.7)
    z: tuple[float, float] = (3.0, 25.0)
    cell: float = 0.2

    def centres(self) -> NDArray[np.float64]:
        """Return the cells' centres [X, Y, Z, 3].

        Raises:
            UsageError: it is empty or of more than 20 million cells.
        """
        counts = [int(np.floor((high - low) / self.cell + 1e-6)) for low, high in (self.x, self.y, self.z)]
        if min(counts) < 1 or np.prod(counts, dtype=np.float64) > MOST_CELLS:
            raise UsageError(
                f"a box of {' x '.join(map(str, counts))} cells cannot be shown", fix="change --x, --y, --z or --cell"
            )
        axes = [
            low + (np.arange(n) + 0.5) * self.cell for n, (low, _) in zip(counts, (self.x, self.y, self.z), strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


@torch.no_grad()
def query(
    model: ViPOcc, image: torch.Tensor, intrinsics_ndc: torch.Tensor, points: Float, **maps: Any
) -> NDArray[np.float32]:
    """Return the density [N] in 1/m at points [N, 3] of the camera's frame, of an image [1, 3, H, W]."""
    features = model.encode_keys(image, intrinsics_ndc, maps)
    asked = torch.from_numpy(points.astype(np.float32)).to(image.device)
    parts = [
        model.density(features, some[None], intrinsics_ndc)[0].float().cpu().numpy() for some in asked.split(AT_ONCE)
    ]
    return np.concatenate(parts)


class FrameScenes:
    """Makes the scenes of frames one by one."""

    def __init__(
        self,
        manifest: Manifest,
        source: FrameSource | None,
        config: Any,
        box: Box,
        *,
        model: ViPOcc | None = None,
        model_note: str = "",
        device: torch.device | None = None,
        occupancy: RowReader | None = None,
        depth: RowReader | None = None,
    ) -> None:
        """Look at a dataset.

        Args:
            manifest: of the dataset.
            source: prepared images; None where nothing is prepared.
            config: for the image size and the names of ground truth.
            box: what is shown as cells.
            model: a network in evaluation mode, or None to show no prediction.
            model_note: what the page says of it.
            device: where it is.
            occupancy: `occupancy.zarr`, if there is one.
            depth: `depth.zarr`, if there is one.
        """
        self.manifest, self.source, self.config, self.box = manifest, source, config, box
        self.model, self.model_note, self.device = model, model_note, device or torch.device("cpu")
        self.occupancy, self.depth = occupancy, depth
        self.adapter = adapter(manifest.dataset)
        self.tilt = camera_tilt(manifest.dataset)
        self.exact: Any = None
        if manifest.dataset == "synthetic":
            from vipocc.data_manifests.synthetic.exact import ExactTruth

            self.exact = ExactTruth(manifest.root)

    def __call__(self, key: FrameKey) -> Scene:
        """Return the scene of a frame; errors as the readers below raise them."""
        frame_id = int(self.manifest.frame_ids(key.sequence)[key.row])
        level_from = level_from_world(self.manifest.world_from_camera(key.sequence, key.camera)[key.row], self.tilt)
        facts = {"dataset": self.manifest.dataset, "camera": key.camera}
        found: list[Layer] = []
        centres = self.box.centres()
        predicted = self._prediction(key, centres, facts)
        found += self._truth(key, frame_id, level_from, centres, predicted)
        if predicted is not None:
            found.insert(
                0, layers.cells("prediction", predicted, centres, self.box.cell, note=f"density > {THRESHOLD} /m")
            )
        found += self._measured(key, frame_id, level_from)
        return Scene(f"{key.sequence}, frame {frame_id}", found, facts)

    def _prediction(self, key: FrameKey, centres: Float, facts: dict[str, str]) -> NDArray[np.bool_] | None:
        if self.model is None or self.source is None or not self._prepared(key):
            facts["prediction"] = "none: " + ("no model" if self.model is None else "the image is not prepared")
            return None
        facts["prediction"] = self.model_note
        image = torch.from_numpy(self.source.image(key)).permute(2, 0, 1)[None].float().to(self.device) / 255.0
        intrinsics = torch.from_numpy(self.source.intrinsics(key))[None].to(self.device)
        camera = transform_points(invert(level_from_world(np.eye(4), self.tilt)), centres.reshape(-1, 3))
        inside = self._in_view(key, camera)
        density = np.zeros(len(camera), np.float32)
        density[inside] = query(self.model, image, intrinsics, camera[inside], **self.source.maps([key], self.device))
        return (density > THRESHOLD).reshape(centres.shape[:3])

    def _prepared(self, key: FrameKey) -> bool:
        return self.source is not None and committed(self.source.reader, group_of(key), key.row)

    def _raw_image(self, key: FrameKey) -> tuple[NDArray[np.uint8], Float]:
        """Return the dataset's own image, halved until it is at most 1,000 wide, and its intrinsics."""
        path = self.manifest.image_path(key.sequence, key.camera, key.row)
        model = self.manifest.camera_model(key.sequence, key.camera)
        assert isinstance(model, Pinhole)  # a key camera is no fisheye
        way_out = self.adapter.way_out(path.relative_to(self.manifest.root).as_posix())
        image = read_image(path, model.size, way_out)
        while image.shape[1] > 1000:
            image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        size = (image.shape[0], image.shape[1])
        return image, np.asarray(model.resized(size).matrix)

    def _in_view(self, key: FrameKey, camera: Float) -> NDArray[np.bool_]:
        pixels = camera @ prepared_intrinsics(self.manifest, key.sequence, key.camera, self.config.data).T
        height, width = self.config.data.image_size
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = pixels[:, 0] / pixels[:, 2], pixels[:, 1] / pixels[:, 2]
        return np.asarray((pixels[:, 2] > 0) & (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5))

    def _truth(
        self, key: FrameKey, frame_id: int, level_from: Float, centres: Float, predicted: NDArray[np.bool_] | None
    ) -> list[Layer]:
        found: list[Layer] = []
        if self.exact is not None:
            world = transform_points(invert(level_from), centres.reshape(-1, 3))
            truth = self.exact.occupancy_at(world, key.sequence, frame_id).reshape(centres.shape[:3])
            found.append(layers.cells("truth", truth, centres, self.box.cell, shown=predicted is None))
            if predicted is not None:
                camera = transform_points(invert(level_from_world(np.eye(4), self.tilt)), centres.reshape(-1, 3))
                judged = self._in_view(key, camera).reshape(truth.shape)
                found.append(layers.differences(predicted, truth, judged, centres, self.box.cell))
        data = self.config.data
        group = f"{slice_name(data.sweeps, data.occupancy_rule)}/{key.sequence}"
        if self.occupancy is not None and committed(self.occupancy, group, key.row):
            occupied = np.asarray(self.occupancy.read(group, key.row, "occupied")).astype(np.bool_)
            visible = np.asarray(self.occupancy.read(group, key.row, "visible")).astype(np.bool_)
            found.append(
                layers.slice_tiles(occupied, visible, slice_grid().reshape(*occupied.shape, 3), self.exact is None)
            )
        return found

    def _measured(self, key: FrameKey, frame_id: int, level_from: Float) -> list[Layer]:
        manifest = self.manifest
        found: list[Layer] = []
        scan = manifest.lidar_path(key.sequence, key.row)
        if scan is not None and scan.is_file():
            points = self.adapter.read_scan(scan)
            found.append(layers.lidar(points, level_from @ manifest.world_from_lidar(key.sequence)[key.row]))
        held = self.adapter.boxes(manifest.root, key.sequence)
        if held is not None:
            near = [
                (level_from @ one.world_from_box, one.size)
                for one in held(frame_id)
                if np.linalg.norm((level_from @ one.world_from_box)[:3, 3]) < 60
            ]
            found.append(layers.boxes(near))
        outlines = []
        for camera in manifest.cameras(key.sequence):
            pose = level_from @ manifest.world_from_camera(key.sequence, camera)[key.row]
            model = manifest.camera_model(key.sequence, camera)
            if isinstance(model, Pinhole):
                corners = layers.camera_corners(np.asarray(model.matrix), model.size, pose)
                outlines.append((pose[:3, 3], corners))
        found.append(layers.cameras(outlines))
        pose = level_from @ manifest.world_from_camera(key.sequence, key.camera)[key.row]
        if self._prepared(key):
            assert self.source is not None
            image = self.source.image(key)
            intrinsics = prepared_intrinsics(manifest, key.sequence, key.camera, self.config.data)
            if self.depth is not None and committed(self.depth, group_of(key), key.row):
                depth = np.asarray(self.depth.read(group_of(key), key.row, "depth"), np.float32)
                found.append(layers.depth_points("prior depth", depth, image, intrinsics, pose))
        else:
            image, intrinsics = self._raw_image(key)
        size = (image.shape[0], image.shape[1])
        found.append(layers.picture(image, layers.camera_corners(intrinsics, size, pose)))
        return found


def drive(
    keys: Sequence[FrameKey], sequence: str | None, first: int | None, limit: int, manifest: Manifest
) -> list[FrameKey]:
    """Return keys of one drive in order: from the frame id `first` on, at most `limit`.

    Raises:
        UsageError: there is no such drive or frame among the keys.
    """
    drives = sorted({key.sequence for key in keys})
    if sequence is None:
        sequence = drives[0]
    chosen = sorted(key for key in keys if key.sequence == sequence)
    if not chosen:
        raise UsageError(f"this split has no drive '{sequence}'", fix=f"use --sequence with one of {', '.join(drives)}")
    if first is not None:
        chosen = [key for key in chosen if int(manifest.frame_ids(sequence)[key.row]) >= first]
        if not chosen:
            raise UsageError(f"{sequence} has no frame of this split from {first} on", fix="use a smaller --frame")
    return chosen[:limit]
