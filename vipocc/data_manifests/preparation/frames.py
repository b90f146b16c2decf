"""Raw images to `frames.zarr`: decoded, rectified where needed, resized."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.image_files import decode_image, read_bytes
from vipocc.data_manifests.images import Preparation
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.preparation.computer import ManifestComputer
from vipocc.data_manifests.preparation.job import ELSEWHERE, Job, Rows
from vipocc.data_manifests.rates import DECODE_SECONDS_PER_PIXEL, FRAME_BYTES_PER_PIXEL, WRITE_SECONDS_PER_PIXEL
from vipocc.data_manifests.views import rig
from vipocc.errors import DataError
from vipocc.geometry.cameras import Pinhole
from vipocc.stores import ArraySpec, Request, StoreSpec, Unit, file_ref, requests_for
from vipocc.stores.files import digest_bytes


def frames_spec(dataset: str, config: DataConfig) -> StoreSpec:
    """Return the specification of `frames.zarr`."""
    rgb = ArraySpec(
        "rgb", (*config.image_size, 3), "uint8", 0, ("y", "x", "channel"), "1", "picture", "prepared image, RGB"
    )
    attributes = {"dataset": dataset, "image_size": list(config.image_size)}
    return StoreSpec("frames", (rgb,), attributes=attributes, way_out=ELSEWHERE)


def plan_frames(manifest: Manifest, manifest_path: Path, store: Path, config: DataConfig, rows: Rows) -> Job:
    """Plan the preparation of images; rows whose image is absent must not be asked for."""
    fingerprint = {
        "preparation": "frames-1",
        "image_size": list(config.image_size),
        "resize": config.resize,
        "convention": config.convention,
        "fisheye_pitch": config.fisheye_pitch,
    }
    requests: list[Request] = []
    pixels = 0.0
    for (sequence, camera), wanted in sorted(rows.items()):
        model = manifest.camera_model(sequence, camera)
        # A fisheye is resampled through the calibration, so its rows are made again when that changes.
        own = adapter(manifest.dataset).calibration_files(manifest.root, sequence, camera)
        extra = [file_ref(manifest.root / name, manifest.root) for name in own]
        inputs = {
            int(row): [file_ref(manifest.image_path(sequence, camera, row), manifest.root), *extra] for row in wanted
        }
        requests += requests_for(f"{sequence}/{camera}", wanted, fingerprint, inputs)
        pixels += len(wanted) * model.width * model.height
    count = max(1, sum(len(wanted) for wanted in rows.values()))
    height, width = config.image_size
    return Job(
        "frames",
        store,
        frames_spec(manifest.dataset, config),
        manifest.root,
        {f"{sequence}/{camera}": manifest.frame_ids(sequence) for sequence, camera in rows},
        requests,
        FramesComputer(manifest_path, manifest.dataset, manifest.root, config),
        # Measured on one core of a 2.x GHz server: PNG decoding 32 ns a pixel, resizing and writing 20 ns a pixel.
        seconds_per_row=DECODE_SECONDS_PER_PIXEL * pixels / count + WRITE_SECONDS_PER_PIXEL * height * width,
        bytes_per_row=FRAME_BYTES_PER_PIXEL * height * width,
    )


@dataclass
class FramesComputer(ManifestComputer):
    """Decodes, rectifies where needed and resizes: `rgb` uint8 [n, H, W, 3]."""

    rows_per_call: int = 8

    def open(self, device: str) -> None:
        """Load the manifest; resampling tables are built when a camera is first met."""
        super().open(device)
        if multiprocessing.parent_process() is not None:
            cv2.setNumThreads(1)  # the processes beside this one keep the other cores busy
        self._preparations: dict[tuple[str, str], Preparation] = {}
        self._digests: dict[str, str] = {}
        self._ahead = ThreadPoolExecutor(1)

    def close(self) -> None:
        """End the thread that reads ahead."""
        self._ahead.shutdown(cancel_futures=True)
        super().close()

    def digest_read(self, path: str) -> str | None:
        """Return the digest of the image at a path relative to the root that was just decoded."""
        return self._digests.pop(path, None)

    def compute(self, unit: Unit, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """Return the prepared images of some rows of `<sequence>/<camera>`."""
        sequence, camera = unit.group.split("/")
        if (sequence, camera) not in self._preparations:
            stereo = self.manifest.camera_model(sequence, rig(self.dataset).left)
            if not isinstance(stereo, Pinhole):
                raise DataError("the left stereo camera is not a pinhole camera", where=sequence)
            model = self.manifest.camera_model(sequence, camera)
            self._preparations[sequence, camera] = Preparation(model, stereo, self.config)
        prepare = self._preparations[sequence, camera]
        paths = [self.manifest.image_path(sequence, camera, row) for row in rows]
        made = np.empty((len(paths), *prepare.size, 3), np.uint8)
        for k, read in enumerate([self._ahead.submit(self._read, path) for path in paths]):
            content = read.result()
            made[k] = prepare(decode_image(content, paths[k], prepare.raw_size, self.way_out(paths[k])))
        return {"rgb": made}

    def _read(self, path: Path) -> bytes:
        """Read a file once for three uses: its digest, the check of its parts, the picture."""
        content = read_bytes(path, self.way_out(path))
        self._digests[path.relative_to(self.root).as_posix()] = digest_bytes(content)
        return content
