"""A small world with real geometry, written through the real stores: a textured street canyon that two stereo cameras
and two fisheyes drive through. Images of all cameras show the same surfaces, so views can explain each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vipocc import config as configuration
from vipocc.data_manifests.manifest import CameraTable, Manifest, SequenceTable, role_bit
from vipocc.data_manifests.preparation import frames_spec, lidar_spec, occupancy_group, occupancy_spec
from vipocc.data_manifests.views import prepared_intrinsics, prepared_poses
from vipocc.geometry.cameras import Mei, Pinhole
from vipocc.geometry.ndc import camera_plane, intrinsics_to_ndc, ndc_grid
from vipocc.priors.store_specs import anchors_spec, depth_spec
from vipocc.stores.executors import LocalExecutor
from vipocc.stores.runner import run
from vipocc.stores.spec import Unit, requests_for
from vipocc.stores.writer import Store
from vipocc.workspace import Workspace

SIZE = (64, 96)
FRAMES = 12
SEQUENCE = "drive"
CAMERAS = {"image_00": -0.3, "image_01": 0.3, "image_02": -0.9, "image_03": 0.9}
PERSPECTIVE = ("image_00", "image_01")

OVERRIDES = (
    "training.device=cpu",
    f"data.image_size=[{SIZE[0]},{SIZE[1]}]",
    "data.fisheye_offset=2",
    "data.val_occupancy=2",
    "model.encoder={name: resnet18, width: 0.125, pretrained: none}",
    "model.decoder={widths: [8, 8, 8, 16, 16], channels: 8}",
    "model.field.hidden=16",
    "model.depth_branch.encoder={name: resnet18, width: 0.125, pretrained: none}",
    "model.depth_branch.widths=[8, 8, 8, 16, 16]",
    "model.depth_branch.channels=8",
    "model.renderer.samples=16",
    "priors.snog.anchors=8",
    "priors.snog.draws=3",
    "training.batch_size=2",
    "training.patches=8",
    "training.depth_patches=4",
    "training.workers=0",
    "training.max_steps=6",
    "training.learning_rate=0.001",
    "training.log_every=1",
    "training.checkpoint_every=2",
    "training.validate_every=3",
    "training.validation_frames=2",
    "training.tensorboard=false",
)


@dataclass
class TinyWorld:
    """A workspace and what its stores hold."""

    workspace: Workspace
    config: Any

    def configured(self, *overrides: str) -> Any:
        """Return the configuration with more overrides."""
        return configuration.load("demo", overrides=(*OVERRIDES, *overrides))


@dataclass
class _Written:
    """Rows that are there already, as a computer of a store."""

    rows: dict[str, dict[str, np.ndarray]]

    def open(self, device: str) -> None: ...

    def compute(self, unit: Unit, rows: Sequence[int]) -> dict[str, np.ndarray]:
        return {name: values[list(rows)] for name, values in self.rows[unit.group].items()}

    def close(self) -> None: ...


def colour(points: np.ndarray) -> np.ndarray:
    """Smooth texture with detail at several scales, a function of where a point is."""
    waves = [np.sin(f * points @ np.array(d) + c) for f, d, c in _WAVES]
    mixed = np.stack([waves[0] + waves[3], waves[1] + waves[3], waves[2] - waves[4]], axis=-1)
    return np.clip(127 + 55 * mixed, 0, 255).astype(np.uint8)


_WAVES = [
    (1.1, (1.0, 0.6, 0.7), 0.0),
    (1.7, (-0.5, 1.0, 0.8), 1.0),
    (0.9, (0.7, -1.0, 0.4), 2.0),
    (3.1, (0.8, 0.7, -1.0), 0.5),
    (5.3, (0.2, 0.9, 1.0), 1.5),
]


def trace(origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Distance along rays [..., 3] to a canyon: ground y = 1.6, walls x = -6 and x = 6, an end at z = 60."""
    with np.errstate(divide="ignore"):
        candidates = [(1.6 - origin[1]) / rays[..., 1], (60.0 - origin[2]) / rays[..., 2]]
        candidates += [(side - origin[0]) / rays[..., 0] for side in (-6.0, 6.0)]
    return np.min([np.where(c > 0, c, np.inf) for c in candidates], axis=0)


def make_manifest(root: Path) -> Manifest:
    pinhole = Pinhole(60.0, 60.0, 47.5, 25.0, SIZE[1], SIZE[0])
    fisheye = Mei(2.2, 0.0, 0.0, 0.0, 0.0, 1300.0, 1300.0, 700.0, 700.0, 1400, 1400)
    cameras = {}
    for camera, shift in CAMERAS.items():
        poses = np.tile(np.eye(4), (FRAMES, 1, 1))
        poses[:, 0, 3], poses[:, 2, 3] = shift, 0.8 * np.arange(FRAMES)
        roles = np.zeros(FRAMES, np.uint16)
        if camera in PERSPECTIVE:
            roles[:6] |= role_bit("train", "key")
        if camera == "image_00":
            roles[6:9] |= role_bit("val", "key")
        cameras[camera] = CameraTable(
            model=pinhole if camera in PERSPECTIVE else fisheye,
            paths=pa.array([f"{camera}/{row}.png" for row in range(FRAMES)]),
            file_size=np.ones(FRAMES, np.int64),
            world_from_camera=poses,
            roles=roles,
        )
    table = SequenceTable(
        frame_ids=np.arange(100, 100 + FRAMES),
        timestamp=np.arange(FRAMES, dtype=float),
        world_from_lidar=np.tile(np.eye(4), (FRAMES, 1, 1)),
        lidar_paths=pa.array([None] * FRAMES, pa.string()),
        cameras=cameras,
    )
    return Manifest("synthetic", root, {SEQUENCE: table}, left_out={"train": {"no frame follows": 1}})


def render(manifest: Manifest, camera: str, config: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return images [N, H, W, 3] and depth [N, H, W] of a camera."""
    ndc = intrinsics_to_ndc(prepared_intrinsics(manifest, SEQUENCE, camera, config.data), SIZE, "centre")
    plane = camera_plane(ndc, ndc_grid(SIZE, "centre").double().numpy().reshape(-1, 2))
    images, depths = [], []
    for pose in prepared_poses(manifest, SEQUENCE, camera, config.data):
        rays = plane @ pose[:3, :3].T
        depth = trace(pose[:3, 3], rays)  # rays have unit depth, so the distance along them is the depth
        images.append(colour(pose[:3, 3] + depth[:, None] * rays).reshape(*SIZE, 3))
        depths.append(depth.reshape(SIZE))
    return np.stack(images), np.stack(depths)


def write(path: Path, spec: Any, rows: dict[str, dict[str, np.ndarray]], which: Sequence[int] = range(FRAMES)) -> None:
    store = Store.create_or_open(path, spec)
    requests = []
    for group in rows:
        store.ensure_group(group, np.arange(100, 100 + FRAMES))
        requests += requests_for(group, which, {"made": "by a test"})
    run(store, requests, _Written(rows), LocalExecutor(), "writing")


def make_world(folder: Path) -> TinyWorld:
    config = configuration.load("demo", overrides=OVERRIDES)
    root = folder / "synthetic"
    workspace = Workspace.create(folder, "synthetic", root, "demo")
    manifest = make_manifest(root)
    manifest.save(workspace.manifest)
    rng = np.random.default_rng(0)
    seen = {camera: render(manifest, camera, config) for camera in CAMERAS}
    groups = {camera: f"{SEQUENCE}/{camera}" for camera in CAMERAS}
    write(
        workspace.store("frames"),
        frames_spec("synthetic", config.data),
        {groups[camera]: {"rgb": images} for camera, (images, _) in seen.items()},
    )
    priors = {groups[camera]: {"depth": (1.5 * seen[camera][1] + 0.3).astype(np.float16)} for camera in PERSPECTIVE}
    write(workspace.store("depth"), depth_spec("synthetic", SIZE, "float16"), priors)
    snog = config.priors.snog
    shape = (FRAMES, snog.draws, snog.anchors)
    anchors = {
        groups[camera]: {
            "anchors": np.stack([rng.integers(4, SIZE[1] - 4, shape), rng.integers(4, SIZE[0] - 4, shape)], -1).astype(
                np.uint16
            )
        }
        for camera in PERSPECTIVE
    }
    write(workspace.store("anchors"), anchors_spec("synthetic", SIZE, snog), anchors)
    sparse = seen["image_00"][1].astype(np.float32)
    sparse[:, rng.random(SIZE) < 0.7] = np.nan
    write(workspace.store("lidar"), lidar_spec("synthetic", config.data), {groups["image_00"]: {"depth": sparse}})
    cells = np.zeros((FRAMES, 160, 80), np.uint8)
    truth = {"occupied": cells.copy(), "visible": cells.copy(), "sweeps": np.full(FRAMES, 3, np.uint16)}
    truth |= {"object": cells.copy(), "objects_known": np.zeros(FRAMES, np.uint8)}
    truth["occupied"][:, :, :20] = 1
    truth["visible"][:, :, 40:] = 1
    group = occupancy_group(config.data, SEQUENCE)
    write(workspace.store("occupancy"), occupancy_spec("synthetic"), {group: truth}, which=range(6, 9))
    return TinyWorld(workspace, config)
