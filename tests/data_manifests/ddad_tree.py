"""Writes small DDAD folders for tests: DGP's JSON files, tiny images, clouds; a car that drives along x at 13 m/s."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CAMERAS = ("CAMERA_01", "CAMERA_05", "CAMERA_06", "CAMERA_07", "CAMERA_08", "CAMERA_09")
SCENE, SECOND, TRAIN = "000150", "000151", "000003"
SIZE, STEP = (64, 96), 1.3
INTRINSICS = {"cx": 47.5, "cy": 31.5, "fx": 90.0, "fy": 90.0, "skew": 0.0}
#: Yaw of each camera on the car, degrees to the left.
YAWS = dict(zip(CAMERAS, (0.0, 60.0, -60.0, 120.0, -120.0, 180.0), strict=True))
FORWARD = (0.5, -0.5, 0.5, -0.5)
PLACE = (1.5, 0.0, 1.5)
#: Microseconds since 1970 of the first sample.
START = 1_561_645_824_993_653


@dataclass(frozen=True)
class DdadTree:
    """A DDAD folder of tiny images; `root` holds `ddad_train_val`."""

    root: Path

    @property
    def base(self) -> Path:
        return self.root / "ddad_train_val"

    @property
    def scenes(self) -> Path:
        return self.base / "ddad.json"

    def scene(self, scene: str = SCENE) -> Path:
        return next((self.base / scene).glob("scene_*.json"))

    def calibration(self, scene: str = SCENE) -> Path:
        return next((self.base / scene / "calibration").glob("*.json"))

    def image(self, camera: str, number: int, scene: str = SCENE) -> Path:
        return self.base / scene / image_file(camera, number, scene)

    def scan(self, number: int, scene: str = SCENE) -> Path:
        return self.base / scene / scan_file(number, scene)


def image_file(camera: str, number: int, scene: str) -> str:
    # As published the front camera's are PNG; the public samples of DGP come as JPEG.
    return f"rgb/{camera}/{stamp(number, scene)}.{'png' if camera == CAMERAS[0] else 'jpg'}"


def scan_file(number: int, scene: str) -> str:
    return f"point_cloud/LIDAR/{stamp(number, scene)}.npz"


def stamp(number: int, scene: str) -> int:
    """The moment as DDAD's file names have it: 0.1 microseconds in scenes of even number, microseconds in the rest."""
    moment = START + 100_000 * number + 60_000_000 * int(scene)
    return moment * 10 if int(scene) % 2 == 0 else moment


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change the value of a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def times(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Product of quaternions w, x, y, z."""
    return (
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    )


def pose(place: tuple[float, float, float], turn: tuple[float, ...]) -> dict[str, dict[str, float]]:
    return {
        "rotation": dict(zip(("qw", "qx", "qy", "qz"), turn, strict=True)),
        "translation": dict(zip("xyz", place, strict=True)),
    }


def _datum(scene: str, number: int, sensor: str) -> dict[str, Any]:
    along = 100 + STEP * number
    content: dict[str, Any]
    if sensor == "LIDAR":
        # The cloud is finished 9 ms after the images are taken: 12 cm farther on.
        place, turn, late = (along + 0.12, -2000.0, 0.0), (1.0, 0.0, 0.0, 0.0), 91_000
        content = {"filename": scan_file(number, scene), "point_format": ["X", "Y", "Z", "INTENSITY"]}
    else:
        half = np.deg2rad(YAWS[sensor]) / 2
        place, late = (along + PLACE[0], -2000.0 + PLACE[1], PLACE[2]), 0
        turn = times((float(np.cos(half)), 0.0, 0.0, float(np.sin(half))), FORWARD)
        content = {
            "filename": image_file(sensor, number, scene), "height": SIZE[0], "width": SIZE[1], "channels": 3,
        }  # fmt: skip
    moment = np.datetime64(stamp(number, scene) + late, "us")
    return {
        "key": sha1(f"{scene} {number} {sensor}".encode()).hexdigest(),
        "id": {"index": "0", "log": "", "name": sensor, "timestamp": f"{moment}Z"},
        "datum": {"point_cloud" if sensor == "LIDAR" else "image": {**content, "pose": pose(place, turn)}},
    }


def make_ddad(root: Path, scenes: Mapping[str, int] | None = None, *, files: bool = True) -> DdadTree:
    """Write scenes of as many samples as given; without `files` their JSON alone."""
    tree = DdadTree(root)
    scenes = {SCENE: 5, SECOND: 3} if scenes is None else scenes
    splits: dict[str, dict[str, list[str]]] = {}
    for scene, samples in scenes.items():
        folder = tree.base / scene
        (folder / "calibration").mkdir(parents=True)
        sensors = ("LIDAR", *CAMERAS)
        calibration = {
            "names": list(sensors),
            "intrinsics": [dict.fromkeys(INTRINSICS, 0.0), *(INTRINSICS for _ in CAMERAS)],
            "extrinsics": [pose((0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)) for _ in sensors],
        }
        key = sha1(scene.encode()).hexdigest()
        (folder / "calibration" / f"{key}.json").write_text(json.dumps(calibration))
        data = [[_datum(scene, number, sensor) for sensor in sensors] for number in range(samples)]
        content = {
            "name": "",
            "samples": [
                {"calibration_key": key, "datum_keys": [one["key"] for one in sample], "id": sample[0]["id"]}
                for sample in data
            ],
            "data": [one for sample in data for one in sample],
        }
        name = f"scene_{sha1(key.encode()).hexdigest()}.json"
        (folder / name).write_text(json.dumps(content))
        split = "1" if int(scene) >= 150 else "0"
        splits.setdefault(split, {"filenames": []})["filenames"].append(f"{scene}/{name}")
        if files:
            _write_files(tree, scene, samples)
    tree.scenes.write_text(json.dumps({"metadata": {"name": "DDAD"}, "scene_splits": splits}))
    return tree


def _write_files(tree: DdadTree, scene: str, samples: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(samples):
        for camera in CAMERAS:
            path = tree.image(camera, number, scene)
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
        angle = np.repeat(np.linspace(-np.pi, np.pi, 720, endpoint=False), 3)
        reach = 10 + 3 * np.sin(3 * angle)
        height = np.tile([0.2, 1.5, 2.5], 720)
        points = np.stack([reach * np.cos(angle), reach * np.sin(angle), height, np.zeros_like(angle)], 1)
        path = tree.scan(number, scene)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, data=points)
