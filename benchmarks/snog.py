"""Time of one SNOG draw, beside the plain sampler's: prints one JSON object."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np

from vipocc.priors.snog import Instances, SnogConfig, draw_anchors, draw_anchors_reference, mixture

SIZE = (192, 640)


def scene(count: int, rng: np.random.Generator) -> Instances:
    index = np.zeros(SIZE, dtype=np.uint8)
    boxes, areas = [], []
    for number in range(count):
        width, height = int(rng.integers(10, 90)), int(rng.integers(8, 60))
        x, y = int(rng.integers(0, SIZE[1] - width)), int(rng.integers(60, SIZE[0] - height))
        index[y : y + height, x : x + width] = number + 1
        boxes.append([x, y, x + width, y + height])
        areas.append(0.7 * width * height)
    return Instances(np.asarray(boxes, dtype=np.float64), np.asarray(areas), np.ones(count, dtype=np.bool_), index)


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000.0 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=300)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    held, config = scene(options.instances, rng), SnogConfig()
    of = mixture(held, SIZE, config)
    fast = milliseconds(lambda: draw_anchors(of, 64, rng), options.repeats)
    plain = milliseconds(lambda: draw_anchors_reference(of, 64, rng), max(options.repeats // 10, 10))
    result = {
        "benchmark": "snog",
        "machine": platform.processor() or platform.machine(),
        "size": SIZE,
        "anchors": 64,
        "instances": options.instances,
        "draw_ms": round(fast, 4),
        "reference_ms": round(plain, 4),
        "reference_over_fast": round(plain / fast, 2),
        "mixture_ms": round(milliseconds(lambda: mixture(held, SIZE, config), 100), 4),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
