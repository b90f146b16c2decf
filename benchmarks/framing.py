"""How long it takes to bring a 12-megapixel picture to the training camera, beside the plain twin.

Prints one JSON object: seconds of `Framing.apply`, and of the same resampling by whole weight matrices
(`Axis.resample_reference`), in turns in one run.
"""

from __future__ import annotations

import json
import platform
import statistics
import time

import numpy as np

from vipocc.apps.predict.cameras import KNOWN
from vipocc.apps.predict.framing import frame
from vipocc.geometry.cameras import Pinhole


def main() -> None:
    phone = Pinhole(2900.0, 2900.0, 2015.5, 1511.5, 4032, 3024)
    framing = frame(phone, KNOWN["kitti-360"].resized((192, 640)))
    image = np.random.default_rng(0).integers(0, 256, (3024, 4032, 3), np.uint8)
    fast, plain = [], []
    for _ in range(3):
        start = time.perf_counter()
        view = framing.apply(image)
        fast.append(time.perf_counter() - start)
        start = time.perf_counter()
        lower = framing.rows.resample_reference(image)
        across = framing.columns.resample_reference(lower.transpose(1, 0, 2)).transpose(1, 0, 2)
        plain.append(time.perf_counter() - start)
        assert np.abs(np.rint(across) - view).max() <= 1
    found = {"seconds": statistics.median(fast), "plain_seconds": statistics.median(plain)}
    found["ratio"] = found["plain_seconds"] / found["seconds"]
    print(json.dumps({"machine": platform.processor() or platform.machine(), "picture": [3024, 4032], **found}))


if __name__ == "__main__":
    main()
