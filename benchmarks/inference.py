"""Images per second at batch 1 of the trained model's three uses, full size, on one CUDA device; one JSON object.

The uses and the clock are those of `vipocc eval speed` (`vipocc.evaluation.speed`): density at the 12,800 points of the
evaluation grid, depth of the branch with its prior given, depth of all 122,880 pixels through the density field. Fast:
bfloat16, kernels, one CUDA graph. Reference: float32, uncompiled, no kernels of our own, no graph. Preparing the image
is no part of it.

    python benchmarks/inference.py
"""

from __future__ import annotations

import argparse
import json

import torch

from vipocc import config as configuration
from vipocc.evaluation.inputs import untrained_model
from vipocc.evaluation.speed.timing import time_calls
from vipocc.evaluation.speed.uses import example, uses_of

SIZE = (192, 640)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default=1000, type=int, help="for each figure")
    parser.add_argument("--batch", default=1, type=int)
    options = parser.parse_args()
    device = torch.device("cuda")
    torch.backends.cudnn.benchmark = True
    model = untrained_model(configuration.load("vipocc", profile="official"), device)
    given = example(options.batch, SIZE, device)
    result: dict[str, object] = {"benchmark": "inference", "batch": options.batch, "size": SIZE}
    for name, use in uses_of(model, given).items():
        figures = {}
        for way in ("fast", "reference"):
            model.use_precision("bfloat16" if way == "fast" else "float32")
            model.fused = way == "fast"
            call = use.call(graphed=way == "fast")
            figures[way] = round(time_calls(call, options.batch, device, images=options.images).median, 1)
        result[name] = {**figures, "ratio": round(figures["fast"] / figures["reference"], 2)}
    print(json.dumps({**result, "gpu": torch.cuda.get_device_name(), "torch": torch.__version__}, indent=1))


if __name__ == "__main__":
    main()
