"""Speed and memory of `vipocc data prepare`, beside processes that only decode and resize: prints one JSON object.

Files are of KITTI-360's size: the real samples of $VIPOCC_SAMPLE_DATA if it is set, else drawn with as much noise as
makes PNG files of the real ones' length; hard links multiply them. Every measurement runs in a process of its own and
includes the start of its workers; the two sides take turns, and ratios are medians over the turns. `steady` takes the
start out: it is the rate between the small and the large number of frames.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.images import Preparation, resize
from vipocc.data_manifests.manifest import Manifest

DRIVE, GROWTH, DISTINCT = "2013_05_28_drive_0000_sync", 4, 11
STEREO, FISHEYE = (376, 1408), (1400, 1400)
FOLDERS = {"image_00": "data_rect", "image_01": "data_rect", "image_02": "data_rgb", "image_03": "data_rgb"}
_RECT = """S_rect_{0}: 1408 376
R_rect_{0}: 1 0 0 0 1 0 0 0 1
P_rect_{0}: 552.554261 0 682.049453 {1} 0 552.554261 238.769549 0 0 0 1 0
"""
_FISHEYE = """%YAML:1.0
model_type: MEI
camera_name: {}
image_width: 1400
image_height: 1400
mirror_parameters:
   xi: 2.2134
distortion_parameters:
   k1: 1.6e-02
   k2: 1.6548
   p1: 4.2e-04
   p2: 4.2e-04
projection_parameters:
   gamma1: 1.3363e+03
   gamma2: 1.3358e+03
   u0: 7.1694e+02
   v0: 7.0576e+02
"""


def picture(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    height, width = size
    octaves = [rng.uniform(-0.5, 0.5, (2 + height // step, 2 + width // step, 3)) * step for step in (8, 32, 128)]
    smooth = sum(cv2.resize(octave, (width, height), interpolation=cv2.INTER_CUBIC) for octave in octaves)
    return np.clip(110 + smooth + rng.normal(0, 2.0, (height, width, 3)), 0, 255).astype(np.uint8)


def make_dataset(root: Path, camera: str, frames: int) -> None:
    """Write KITTI-360's layout with `frames` images of one camera."""
    (root / "calibration").mkdir(parents=True)
    text = _RECT.format("00", 0) + _RECT.format("01", -328.318735)
    (root / "calibration/perspective.txt").write_text(text)
    cameras = [f"image_0{k}: 1 0 0 {k} 0 1 0 0 0 0 1 0" for k in range(4)]
    (root / "calibration/calib_cam_to_pose.txt").write_text("\n".join(cameras))
    (root / "calibration/calib_cam_to_velo.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0")
    for name in ("image_02", "image_03"):
        (root / f"calibration/{name}.yaml").write_text(_FISHEYE.format(name))
    (root / "data_poses" / DRIVE).mkdir(parents=True)
    poses = [f"{k} 1 0 0 {k} 0 1 0 0 0 0 1 0" for k in range(frames)]
    (root / "data_poses" / DRIVE / "poses.txt").write_text("\n".join(poses) + "\n")
    folder = root / "data_2d_raw" / DRIVE / camera / FOLDERS[camera]
    folder.mkdir(parents=True)
    rng, sample, originals = np.random.default_rng(0), os.environ.get("VIPOCC_SAMPLE_DATA"), root / "originals"
    originals.mkdir()
    size, real = (FISHEYE, []) if camera in ("image_02", "image_03") else (STEREO, sample_files(sample))
    for k in range(len(real) or DISTINCT):
        if real:
            shutil.copyfile(real[k], originals / f"{k}.png")
        else:
            cv2.imwrite(str(originals / f"{k}.png"), picture(size, rng))
    held = sorted(originals.iterdir())
    for k in range(frames):
        os.link(held[k % len(held)], folder / f"{k:010d}.png")


def sample_files(sample: str | None) -> list[Path]:
    if not sample:
        return []
    return sorted(Path(sample).glob("KITTI-360/data_2d_raw/*/image_0[01]/data_rect/*.png"))


def manifest_of(root: Path) -> tuple[Manifest, Path]:
    manifest = Manifest("kitti-360", root, adapter("kitti-360").index(root))
    path = root / "manifest.parquet"
    if not path.is_file():
        manifest.save(path)
    return manifest, path


def paths_of(root: Path, camera: str, frames: int) -> list[Path]:
    return [root / "data_2d_raw" / DRIVE / camera / FOLDERS[camera] / f"{k:010d}.png" for k in range(frames)]


def only_decode(paths: list[Path], remap: Preparation | None) -> int:
    """What nobody can do without: read, decode, resize (or resample)."""
    if multiprocessing.parent_process() is not None:
        cv2.setNumThreads(1)
    total = 0
    for path in paths:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        made = resize(np.asarray(image), DataConfig().image_size, "area") if remap is None else remap(np.asarray(image))
        total += int(made[0, 0, 0])
    return total


def measure(side: str, root: Path, camera: str, frames: int, processes: int) -> dict[str, float]:
    """Run one side once; called in a fresh process."""
    from vipocc.data_manifests.preparation import job, plan_frames, refuse_bad_inputs

    job.WORTH_PROCESSES = 0
    config, peak = DataConfig(), 0
    manifest, manifest_path = manifest_of(root)
    started = time.perf_counter()
    if side == "decode":
        remap = None
        if camera in ("image_02", "image_03"):
            models = manifest.camera_model(DRIVE, camera), manifest.camera_model(DRIVE, "image_00")
            remap = Preparation(models[0], models[1], config)  # type: ignore[arg-type]
        paths = paths_of(root, camera, frames)
        if processes == 1:
            only_decode(paths, remap)
        else:
            with multiprocessing.get_context("spawn").Pool(processes) as pool:
                pieces = [paths[k : k + 64] for k in range(0, frames, 64)]
                pool.starmap(only_decode, [(piece, remap) for piece in pieces], chunksize=1)
    else:
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            rows = {(DRIVE, camera): np.arange(frames)}
            planned = plan_frames(manifest, manifest_path, Path(scratch) / "frames.zarr", config, rows)
            refuse_bad_inputs(manifest, planned)
            summary = planned.run(processes)
            seconds = time.perf_counter() - started
            assert summary.rows == frames
    if side == "decode":
        seconds = time.perf_counter() - started
    who = resource.RUSAGE_SELF if processes == 1 else resource.RUSAGE_CHILDREN
    peak = resource.getrusage(who).ru_maxrss
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in both)
    return {"seconds": seconds, "cpu": cpu, "peak_mib": peak / 1024}


def in_a_process(side: str, root: Path, camera: str, frames: int, processes: int) -> dict[str, Any]:
    asked = json.dumps([side, str(root), camera, frames, processes])
    done = subprocess.run([sys.executable, __file__, "--one", asked], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(root: Path, camera: str, frames: int, processes: int, turns: int) -> dict[str, Any]:
    sizes = (frames, GROWTH * frames)
    held: dict[tuple[str, int], list[dict[str, Any]]] = {(s, n): [] for s in ("decode", "prepare") for n in sizes}
    for turn in range(turns):
        for n in sizes:
            for side in ("decode", "prepare") if turn % 2 else ("prepare", "decode"):
                held[side, n].append(in_a_process(side, root, camera, n, processes))

    def rates(side: str, *, steady: bool) -> list[float]:
        small, large = ([one["seconds"] for one in held[side, n]] for n in sizes)
        if steady:
            return [(sizes[1] - sizes[0]) / (b - a) for a, b in zip(small, large, strict=True)]
        return [sizes[1] / b for b in large]

    result: dict[str, Any] = {"camera": camera, "processes": processes, "frames": list(sizes)}
    for name, steady in (("end_to_end", False), ("steady", True)):
        ours, plain = rates("prepare", steady=steady), rates("decode", steady=steady)
        result[name] = {
            "decode_frames_per_s": round(statistics.median(plain), 1),
            "prepare_frames_per_s": round(statistics.median(ours), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(ours, plain, strict=True)), 3),
        }
    spent = {
        side: [
            1e3 * (b["cpu"] - a["cpu"]) / (sizes[1] - sizes[0])
            for a, b in zip(*(held[side, n] for n in sizes), strict=True)
        ]
        for side in ("decode", "prepare")
    }
    # Processor time hardly feels what else the machine does: it bounds the ratio where every core has its process.
    result["cpu"] = {
        "decode_ms_per_frame": round(statistics.median(spent["decode"]), 2),
        "prepare_ms_per_frame": round(statistics.median(spent["prepare"]), 2),
        "ratio": round(statistics.median(a / b for a, b in zip(spent["decode"], spent["prepare"], strict=True)), 3),
    }
    result["peak_mib_per_process"] = [round(max(m["peak_mib"] for m in held["prepare", n]), 1) for n in sizes]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=384, help="The small number; the large one is four times it.")
    parser.add_argument("--fisheyes", type=int, default=128, help="The same for fisheyes; 0 leaves them out.")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="Where to write [default: the system's temporary folder].")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        side, root, camera, frames, processes = json.loads(options.one)
        print(json.dumps(measure(side, Path(root), camera, frames, processes)))
        return
    real = bool(sample_files(os.environ.get("VIPOCC_SAMPLE_DATA")))
    result: dict[str, Any] = {
        "benchmark": "prepare",
        "machine": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "stereo_files": "real samples" if real else "drawn",
        "image_size": list(DataConfig().image_size),
        "measured": [],
    }
    for camera, frames in (("image_00", options.frames), ("image_02", options.fisheyes)):
        if not frames:
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            make_dataset(Path(scratch) / "data", camera, GROWTH * frames)
            for processes in options.processes:
                result["measured"].append(compare(Path(scratch) / "data", camera, frames, processes, options.turns))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
