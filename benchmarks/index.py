"""How long `vipocc data index` takes for one KITTI-360 drive, and what memory it needs, by the number of posed frames.

Prints one JSON object. Every frame has four images and a LiDAR sweep (hard links, page cache warm). Each number of
frames is indexed by the whole command in a process of its own; `bytes_per_frame` is what a further frame adds to the
process's peak, which starts at what Python, numpy and Arrow need.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from data_check import DRIVES, FOLDERS, build

# Peak memory is asked of the process itself: a parent only learns the largest of all its children.
_RUN = """
import json, resource, sys
from vipocc.cli import run
code = run(sys.argv[1:])
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
sys.exit(code)
"""


def measure(folder: Path, frames: int) -> dict[str, Any]:
    """Index a drive of so many frames."""
    root, workspace = folder / f"root-{frames}", folder / f"workspace-{frames}"
    build(root, frames * len(FOLDERS), DRIVES[:1])
    place = ["-C", str(workspace)]
    init = [sys.executable, "-m", "vipocc", "init", "--dataset", "kitti-360", "--root", str(root), *place]
    subprocess.run(init, check=True, stdout=subprocess.DEVNULL)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _RUN, "data", "index", *place], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    manifest = workspace / "manifests/kitti-360.parquet"
    return {
        "frames": frames,
        "seconds": round(seconds, 2),
        "peak_rss_bytes": int(done.stdout.splitlines()[-1]),
        "manifest_bytes": manifest.stat().st_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs=2, default=(10_000, 40_000))
    parser.add_argument("--folder", help="where the trees are made and removed again; by default the temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        few, many = (measure(Path(folder), frames) for frames in options.frames)
    added = (many["peak_rss_bytes"] - few["peak_rss_bytes"]) / (many["frames"] - few["frames"])
    print(
        json.dumps(
            {
                "benchmark": "data index",
                "few": few,
                "many": many,
                "bytes_per_frame": round(added),
                "bytes_per_image": round(added / (len(FOLDERS) - 1)),
                "target_seconds": {"frames": 10_000, "seconds": 10},
                "cores": len(os.sched_getaffinity(0)),
            }
        )
    )


if __name__ == "__main__":
    main()
