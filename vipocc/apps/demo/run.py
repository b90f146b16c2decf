"""The demo: a small synthetic world through every stage, by the commands a user types, with pictures at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.apps.demo.page import write_page
from vipocc.apps.demo.pictures import Shown, write_pictures
from vipocc.apps.demo.tables import summarise
from vipocc.cli import App, cli
from vipocc.evaluation.report import Frame, Report
from vipocc.priors.config import SYNTHETIC_PRIORS
from vipocc.progress import duration
from vipocc.workspace import Workspace

Say = Callable[[str], None]
TRANSFORMERS_FRAMES = 4
_ABOUT_PRIORS = {
    "simulated": "Its priors are simulated from the world's exact truth with a foundation model's faults, "
    "and labelled so.",
    "embedded": "Its priors come from the package's own Depth Anything, Grounding DINO and SAM, small ones that were "
    "trained on other streets of this kind.",
}
PICTURES = 4
SCENES = 3


@dataclass
class _Kept:
    """Maps of evaluated frames, by frame, for the pictures."""

    images: dict[Frame, NDArray[np.uint8]] = field(default_factory=dict)
    depths: dict[Frame, dict[str, NDArray[np.float32]]] = field(default_factory=dict)
    densities: dict[Frame, dict[str, NDArray[np.float32]]] = field(default_factory=dict)
    truths: dict[Frame, tuple[Any, Any]] = field(default_factory=dict)
    true_depths: dict[Frame, NDArray[np.float32]] = field(default_factory=dict)


def run_demo(output: Path, *, steps: int | None, say: Say) -> None:
    """Run the demo in `output`, which gets `workspace/`, `pictures/`, `summary.md`, `scene.html` and `report.html`.

    Every stage that a user would type runs through its command; where priors are simulated, the
    foundation models' path runs on four frames with small checkpoints of the real architectures, and a failure there is
    a failure of the demo.
    """
    start = time.monotonic()
    output = output.resolve()
    place = output / "workspace"
    type_ = _typist(place, say)
    say("Demo: a small synthetic street world, from images to an evaluated occupancy model.")
    say(_ABOUT_PRIORS[SYNTHETIC_PRIORS] + "\n")
    type_("init", "--dataset", "synthetic", "--preset", "demo")
    type_("priors", "depth")
    type_("priors", "sam")
    if SYNTHETIC_PRIORS == "simulated":
        _through_transformers(type_, output / "tiny-models", say)
    type_("train", *(("--steps", str(steps)) if steps else ()))
    reports, kept = _evaluate(place, say)
    workspace = Workspace.open(place)
    pictures = write_pictures(output / "pictures", _shown(kept), _config(place), workspace)
    say(f"\npictures: {pictures[0]}" + (f" and {len(pictures) - 1} more" if len(pictures) > 1 else ""))
    summary = summarise(reports)
    (output / "summary.md").write_text(summary, encoding="utf-8")
    type_("eval", "figures", "--output", str(output))
    scene = output / "scene.html"
    type_("view", "--html", str(scene), "--frames", str(SCENES))
    say("\n" + summary)
    page = write_page(output, reports, pictures, _ABOUT_PRIORS[SYNTHETIC_PRIORS])
    say(f"Everything is in {output}; the demo took {duration(time.monotonic() - start)}.")
    say(f"Look at {page}")


def _typist(place: Path, say: Say) -> Callable[..., None]:
    def type_(*words: str) -> None:
        say(f"\n$ vipocc {' '.join(words)}")
        arguments = [*words, "-C", str(place)]
        cli.main(args=arguments, prog_name="vipocc", standalone_mode=False, obj=App())

    return type_


def _through_transformers(type_: Callable[..., None], folder: Path, say: Say) -> None:
    """Send four frames through the real model classes, with small random checkpoints read as a user's own are."""
    from vipocc.priors.tiny import make_tiny_depth, make_tiny_grounding_dino, make_tiny_sam

    say(
        f"\n{TRANSFORMERS_FRAMES} frames through Depth Anything V2, Grounding DINO and SAM as transformers builds them "
        "(small, random weights: what they say means nothing, that they run is the point)"
    )
    depth, detector, segmenter = folder / "depth", folder / "detector", folder / "segmenter"
    make_tiny_depth(depth)
    make_tiny_grounding_dino(detector)
    make_tiny_sam(segmenter)
    some = ("--split", "test", "--store", "tiny", "--limit", str(TRANSFORMERS_FRAMES))
    type_("priors", "depth", *some, "--model", str(depth), "-o", "priors.depth.short_side=112")
    type_("priors", "sam", *some, "--detector", str(detector), "--segmenter", str(segmenter))


def _config(place: Path) -> Any:
    return App(workspace_dir=str(place)).config


def _evaluate(place: Path, say: Say) -> tuple[dict[str, Report], _Kept]:
    """Run what `vipocc eval` runs, keeping maps of the frames for the pictures."""
    from vipocc.evaluation.depth.run import run_depth
    from vipocc.evaluation.occupancy.run import run_occupancy
    from vipocc.evaluation.sampler.run import run_sampler

    app = App(workspace_dir=str(place))
    kept = _Kept()

    def keep_occupancy(
        frame: Frame, image: NDArray[np.uint8], maps: dict[str, NDArray[np.float32]], truth: Any
    ) -> None:
        kept.images[frame], kept.densities[frame] = image, maps
        kept.truths[frame] = (truth.occupied, truth.visible)

    def keep_depth(
        frame: Frame, image: NDArray[np.uint8], maps: dict[str, NDArray[np.float32]], truth: NDArray[np.float32]
    ) -> None:
        kept.images[frame], kept.depths[frame], kept.true_depths[frame] = image, maps, truth

    reports: dict[str, Report] = {}
    unseen = ("evaluation.pictures=0",)  # the figures take the newest report of a kind
    say("\n$ vipocc eval occupancy")
    reports["lidar"], _ = run_occupancy(app.workspace, app.config, say=say, overrides=unseen)
    say("\n$ vipocc eval occupancy --protocol exact")
    reports["exact"], _ = run_occupancy(app.workspace, app.config, say=say, protocol="exact", keep=keep_occupancy)
    frames = len(reports["exact"].used)
    say(f"\n$ vipocc eval depth --protocol exact --split train --limit {frames}")
    reports["depth, train"], _ = run_depth(
        app.workspace, app.config, say=say, protocol="exact", split="train", limit=frames, overrides=unseen
    )
    say("\n$ vipocc eval depth --protocol exact --scaling all")
    reports["depth"], _ = run_depth(
        app.workspace, app.config, say=say, protocol="exact", scaling="all", keep=keep_depth
    )
    say("\n$ vipocc eval sampler")
    reports["sampler"], _ = run_sampler(app.workspace, app.config, say=say)
    return reports, kept


def _shown(kept: _Kept) -> list[Shown]:
    frames = [frame for frame in kept.densities if frame in kept.depths]
    chosen = [frames[at] for at in np.linspace(0, len(frames) - 1, min(PICTURES, len(frames))).round().astype(int)]
    return [
        Shown(
            frame,
            kept.images[frame],
            kept.depths[frame],
            kept.true_depths[frame],
            kept.densities[frame]["trained"],
            *kept.truths[frame],
        )
        for frame in chosen
    ]
