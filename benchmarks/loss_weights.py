"""Train small runs that differ in the weights of the three losses alone; print what each reaches, as one JSON object.

The paper announces such a study and prints none. Runs share world, priors, data order, seeds and number of steps; the
last checkpoint of each is judged on held-out streets of the synthetic world, against exact truth, which chooses nothing
here. Whatever exists in the folder is used again, so an interrupted sweep goes on where it stopped.

    python benchmarks/loss_weights.py --folder sweep                                          # small, on a CPU
    python benchmarks/loss_weights.py --folder sweep --preset synthetic --world small --steps 1000 --device cuda \
        --seeds 3 --markdown docs/loss_weights.md
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vipocc import config as configuration
from vipocc.cli import run as vipocc
from vipocc.evaluation.depth.run import run_depth
from vipocc.evaluation.occupancy.run import run_occupancy
from vipocc.training.session import start_training
from vipocc.training.state import latest_checkpoint
from vipocc.workspace import Workspace

Weights = tuple[float, float, float]

PUBLISHED: Weights = (1.0, 0.0025, 0.005)
GRID: tuple[Weights, ...] = (
    PUBLISHED,
    (1.0, 0.0, 0.0),
    (1.0, 0.0025, 0.0),
    (1.0, 0.0, 0.005),
    (1.0, 0.000625, 0.005),
    (1.0, 0.01, 0.005),
    (1.0, 0.0025, 0.00125),
    (1.0, 0.0025, 0.02),
    (1.0, 0.000625, 0.00125),
    (1.0, 0.01, 0.02),
    (1.0, 0.04, 0.08),
)
"""rgb, depth, temporal: the published ratios, each loss left out, each of the two and both together 4 times and 1/4."""
OCCUPANCY = ("o_acc", "ie_acc", "ie_rec", "balanced_accuracy", "average_precision")
OURS = ("trained", "rendered", "branch")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def workspace(folder: Path, options: argparse.Namespace) -> Workspace:
    """A synthetic workspace whose training split has priors."""
    place = ("-C", str(folder))
    if not (folder / "vipocc.yaml").is_file():
        world = ("--world", options.world) if options.world else ()
        _call("init", "--dataset", "synthetic", "--preset", options.preset, *world, *place)
    for prior in ("depth", "sam"):
        _call("priors", prior, "--split", "train", *place)
    _call("priors", "depth", "--split", "test", *place)
    return Workspace.open(folder)


def _call(*words: str) -> None:
    # What the command prints goes to standard error: standard output is the result alone.
    say(f"$ vipocc {' '.join(words)}")
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        code = vipocc(list(words))
    finally:
        sys.stdout = out
    if code != 0:
        raise SystemExit(code)


def train(place: Workspace, weights: Weights, seed: int, options: argparse.Namespace) -> str:
    """Train one run, or what is left of it, and return its name."""
    name = f"weights-{'-'.join(f'{weight:g}' for weight in weights)}-seed{seed}"
    folder = place.runs / name
    last = latest_checkpoint(folder / "checkpoints") if folder.is_dir() else None
    if last is not None and last.name == f"step_{options.steps}":
        return name
    overrides = [
        *place.overrides,
        *(f"training.loss.{term}={weight}" for term, weight in zip(("rgb", "depth", "temporal"), weights, strict=True)),
        f"training.max_steps={options.steps}",
        f"seed={seed}",
        "training.validation_frames=0",
        f"training.checkpoint_every={options.steps}",
        *options.override,
    ]
    if last is not None:
        start_training(place, None, resume=name, device=options.device, say=say)
    else:
        config = configuration.load(place.preset, overrides=overrides)
        start_training(place, config, name=name, device=options.device, say=say)
    return name


def judge(place: Workspace, run: str, options: argparse.Namespace) -> dict[str, float | None]:
    """Figures of a run on the test split."""
    config = configuration.load(place.preset, overrides=place.overrides)
    shared = {"say": say, "protocol": "exact", "run": run, "device": options.device, "limit": options.limit}
    occupancy, _ = run_occupancy(place, config, **shared)
    depth, _ = run_depth(place, config, **shared)
    figures: dict[str, float | None] = {}
    for report, names in ((occupancy, OCCUPANCY), (depth, ("abs_rel",))):
        for row in report.rows:
            if row.name in OURS:
                figures |= {
                    name if row.name == "trained" else f"{row.name}_{name}": _number(row.metrics[name].mean)
                    for name in names
                }
    return figures


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def summary(runs: Sequence[dict[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """Mean and spread (largest less smallest) over the seeds of each figure."""
    names = dict.fromkeys(name for run in runs for name in run)
    values = {name: [value for run in runs if (value := run.get(name)) is not None] for name in names}
    return {
        name: {
            "mean": round(sum(known) / len(known), 4) if known else None,
            "spread": round(max(known) - min(known), 4) if known else None,
        }
        for name, known in values.items()
    }


def table(result: dict[str, Any]) -> str:
    """The result as a table in Markdown."""
    names = list(dict.fromkeys(name for row in result["rows"] for name in row["figures"]))
    lines = [
        "# The weights of the three losses",
        "",
        f"{result['steps']:,} steps of preset `{result['preset']}` on the synthetic world, mean over "
        f"{result['seeds']} seed(s) (spread in brackets), held-out streets, exact truth, {result['machine']}; made by "
        "`benchmarks/loss_weights.py`. abs_rel: smaller is better, all else: larger.",
        "",
        f"| rgb | depth | temporal | {' | '.join(names)} |",
        f"|{'---|' * (3 + len(names))}",
    ]
    for row in result["rows"]:
        cells = []
        for name in names:
            figure = row["figures"].get(name, {"mean": None, "spread": None})
            spread = f" ({figure['spread']:.3f})" if result["seeds"] > 1 and figure["mean"] is not None else ""
            cells.append("-" if figure["mean"] is None else f"{figure['mean']:.3f}{spread}")
        lines.append(f"| {' | '.join(f'{weight:g}' for weight in row['weights'])} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _weights(text: str) -> Weights:
    rgb, depth, temporal = (float(part) for part in text.split(","))
    return rgb, depth, temporal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="workspace, made if need be")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--world", help="tiny, small, default or large, instead of the preset's")
    parser.add_argument("--steps", type=int, default=480)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=int, help="judge on so many frames")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--weights", type=_weights, action="append", metavar="RGB,DEPTH,TEMPORAL", help="repeatable")
    parser.add_argument("-o", dest="override", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    options = parser.parse_args()

    start = time.perf_counter()
    place = workspace(options.folder, options)
    rows = []
    for weights in options.weights or GRID:
        runs = [judge(place, train(place, weights, seed, options), options) for seed in range(options.seeds)]
        rows.append({"weights": list(weights), "figures": summary(runs), "runs": runs})
    cuda = options.device != "cpu" and torch.cuda.is_available()
    result = {
        "benchmark": "loss_weights",
        "machine": torch.cuda.get_device_name() if cuda else platform.machine(),
        "preset": options.preset,
        "world": options.world,
        "steps": options.steps,
        "seeds": options.seeds,
        "seconds": round(time.perf_counter() - start, 1),
        "rows": rows,
    }
    if options.markdown is not None:
        options.markdown.write_text(table(result), encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
