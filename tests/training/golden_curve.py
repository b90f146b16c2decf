"""The golden loss curve: 20 steps on the tiny world. Run as a script it writes tests/golden/loss_curve.json anew."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden" / "loss_curve.json"
STEPS = 20
#: Small steps, so that rounding that differs between machines stays small for all of them.
OVERRIDES = (f"training.max_steps={STEPS}", "training.validation_frames=0", "training.learning_rate=0.0005")
PROFILES: dict[str, tuple[str, ...]] = {
    "paper": (),
    "official": ("data.convention=centre", "data.resize=area"),  # what the tiny world's stores were made with
}


def curve(world: Any, profile: str, *more: str) -> list[dict[str, float]]:
    """Train and return the losses of each step."""
    from tiny_world import OVERRIDES as TINY

    from vipocc import config as configuration
    from vipocc.training.metrics import read_metrics
    from vipocc.training.session import start_training

    overrides = (*TINY, *OVERRIDES, *PROFILES[profile], *more)
    config = configuration.load("demo", profile=profile, overrides=overrides)
    summary = start_training(world.workspace, config, say=lambda text: None)
    lines = read_metrics(summary.checkpoint.parents[1] / "metrics.jsonl")
    return [
        {name: value for name, value in line.items() if name.startswith("loss")} for line in lines if "loss" in line
    ]


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from tiny_world import make_world

    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        curves = {profile: curve(world, profile) for profile in PROFILES}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
