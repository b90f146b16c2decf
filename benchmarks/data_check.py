"""How long `vipocc data check` takes for a KITTI-360 folder of 320,000 files.

Prints one JSON object. The tree has the published layout: nine drives, four cameras and a LiDAR, images and sweeps of
the published sizes. Files are hard links to a few inodes, so directory entries and calls are those of a real copy and
disk space and cold inodes are not; the page cache is warm. `check` is the whole command in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

DRIVES = [f"2013_05_28_drive_{number:04d}_sync" for number in (0, 2, 3, 4, 5, 6, 7, 9, 10)]
FOLDERS = {
    "data_2d_raw/{}/image_00/data_rect": "perspective.png",
    "data_2d_raw/{}/image_01/data_rect": "perspective.png",
    "data_2d_raw/{}/image_02/data_rgb": "fisheye.png",
    "data_2d_raw/{}/image_03/data_rgb": "fisheye.png",
    "data_3d_raw/{}/velodyne_points/data": "sweep.bin",
}
#: A file system lets an inode have so many names at most (ext4: 65,000).
LINKS = 50_000

_CALIBRATION = {
    "perspective.txt": "".join(
        f"S_rect_{n}: 1408 376\nR_rect_{n}: 1 0 0 0 1 0 0 0 1\nP_rect_{n}: 552 0 682 {x} 0 552 238 0 0 0 1 0\n"
        for n, x in (("00", 0), ("01", -328))
    ),
    "calib_cam_to_pose.txt": "".join(
        f"image_0{n}: 0 0 1 1.5 1 0 0 {y} 0 1 0 -0.6\n" for n, y in ((0, 0), (1, 0.6), (2, -0.1), (3, 0.7))
    ),
    "calib_cam_to_velo.txt": "0 0 1 0.8 -1 0 0 0.3 0 -1 0 -0.2\n",
    **{
        f"image_0{n}.yaml": "%YAML:1.0\nmodel_type: MEI\nimage_width: 1400\nimage_height: 1400\n"
        "mirror_parameters:\n   xi: 2.2\n"
        "distortion_parameters:\n   k1: 0.016\n   k2: 1.6\n   p1: 0.0004\n   p2: 0.0004\n"
        "projection_parameters:\n   gamma1: 1336.0\n   gamma2: 1335.0\n   u0: 716.0\n   v0: 705.0\n"
        for n in (2, 3)
    },
}


def build(root: Path, files: int, drives: Sequence[str] = DRIVES) -> int:
    """Write the tree and return how many files it has."""
    rng = np.random.default_rng(0)
    originals = root / "originals"
    originals.mkdir(parents=True)
    for name, size in (("perspective.png", (376, 1408)), ("fisheye.png", (1400, 1400))):
        coarse = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
        fine = cv2.resize(coarse, size[::-1]) // 2 + rng.integers(0, 32, (*size, 3), np.uint8)
        cv2.imwrite(str(originals / name), fine)
    rng.normal(0, 10, (120_000, 4)).astype("<f4").tofile(originals / "sweep.bin")
    for name, text in _CALIBRATION.items():
        (root / "calibration").mkdir(exist_ok=True)
        (root / "calibration" / name).write_text(text)
    frames = files // (len(drives) * len(FOLDERS))
    made = 0
    for place, drive in enumerate(drives):
        poses = root / "data_poses" / drive
        poses.mkdir(parents=True)
        text = [f"{k} 1 0 0 {k * 0.9 + 1e5 * place} 0 -1 0 2000 0 0 -1 100" for k in range(1, frames + 1)]
        (poses / "poses.txt").write_text("\n".join(text) + "\n")
        for folder, original in FOLDERS.items():
            into = root / folder.format(drive)
            into.mkdir(parents=True)
            ending = Path(original).suffix
            for k in range(1, frames + 1):
                if k % LINKS == 1:
                    source = originals / f"{made}-{original}"
                    source.write_bytes((originals / original).read_bytes())
                os.link(source, into / f"{k:010d}{ending}")
                made += 1
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=320_000)
    parser.add_argument("--folder", help="where the tree is made and removed again; by default the temporary folder")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root, workspace = Path(folder) / "KITTI-360", Path(folder) / "workspace"
        start = time.perf_counter()
        files = build(root, options.files)
        building = time.perf_counter() - start
        command = [sys.executable, "-m", "vipocc"]
        subprocess.run(
            [*command, "init", "--dataset", "kitti-360", "--root", root, "-C", workspace],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        start = time.perf_counter()
        done = subprocess.run([*command, "data", "check", "--json", "-C", workspace], check=True, capture_output=True)
        seconds = time.perf_counter() - start
    report = json.loads(done.stdout)
    assert report["present"] == files, report["present"]
    print(
        json.dumps(
            {
                "benchmark": "data check",
                "files": files,
                "kind_of_files": "hard links, page cache warm",
                "seconds": round(seconds, 2),
                "files_per_second": round(files / seconds),
                "read_whole": report["read"],
                "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
                "building_seconds": round(building, 1),
                "target_seconds": 60,
                "machine": platform.processor() or platform.machine(),
                "cores": len(os.sched_getaffinity(0)),
            }
        )
    )


if __name__ == "__main__":
    main()
