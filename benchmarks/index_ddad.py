"""How long `vipocc data index` takes for a DDAD of the published size, and a second time with nothing changed.

Prints one JSON object. 200 scenes, 16,600 samples, 116,200 images and clouds that are empty files; their JSON files are
written by the tests' tree: 58 MB, where the published ones have more fields and, by the sample's size, 140 MB. Seconds
of the processor stand beside those of the clock, in which other work on the machine shows.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from vipocc.config import root_schema
from vipocc.data_manifests import stage
from vipocc.workspace import Workspace

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/data_manifests"))

from ddad_tree import CAMERAS, image_file, make_ddad, scan_file


def build(root: Path) -> int:
    """Write the tree and return how many images and clouds it has."""
    # 12,650 samples of 150 training scenes, 3,950 of 50 validation scenes, each of 50 or 100.
    counts = {f"{k:06d}": 100 if k < 103 else 50 for k in range(150)}
    counts |= {f"{k:06d}": 100 if k < 179 else 50 for k in range(150, 200)}
    tree = make_ddad(root, counts, files=False)
    for scene, samples in counts.items():
        names = [scan_file(k, scene) for k in range(samples)]
        names += [image_file(camera, k, scene) for camera in CAMERAS for k in range(samples)]
        for folder in {os.path.dirname(name) for name in names}:
            (tree.base / scene / folder).mkdir(parents=True)
        for name in names:
            (tree.base / scene / name).touch()
    return 7 * sum(counts.values())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        files = build(root)
        workspace = Workspace.create(Path(folder) / "workspace", "ddad", root)
        config = root_schema()()
        seconds = []
        for _ in range(2):
            start, cpu = time.perf_counter(), time.process_time()
            manifest = stage.ensure_indexed(workspace, config)
            seconds.append((round(time.perf_counter() - start, 2), round(time.process_time() - cpu, 2)))
        samples = sum(manifest.rows(sequence) for sequence in manifest.sequences)
        (index, index_cpu), (again, again_cpu) = seconds
    print(
        json.dumps(
            {
                "files": files,
                "samples": samples,
                "index_seconds": index,
                "index_cpu_seconds": index_cpu,
                "nothing_changed_seconds": again,
                "nothing_changed_cpu_seconds": again_cpu,
            }
        )
    )


if __name__ == "__main__":
    main()
