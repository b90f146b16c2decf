"""The ray samplers on the instances of a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.stage import ensure_indexed
from vipocc.errors import MissingInputError
from vipocc.evaluation.figures.drawing import Drawn, drawn, png_files
from vipocc.evaluation.figures.rays import samplers
from vipocc.evaluation.inputs import committed, select_keys
from vipocc.evaluation.report import Frame, Report
from vipocc.evaluation.sampler import evaluate_sampler
from vipocc.evaluation.session import Say, open_store, source_note
from vipocc.priors.anchors import read_instances
from vipocc.priors.snog import Instances
from vipocc.stores import StoreReader
from vipocc.workspace import Workspace

PICTURED_AMONG = 50
"""Draws among whose images the one for Figure 8 is chosen."""


def run_sampler(
    workspace: Workspace, config: Any, *, say: Say, split: str = "test", limit: int | None = None
) -> tuple[Report, Path]:
    """Measure the ray samplers on the instances of a split; result as `run_occupancy`.

    Raises:
        MissingInputError: `vipocc priors sam` has not run on the split.
    """
    settings = config.evaluation
    say(
        f"sampler efficiency on {workspace.dataset} {split}: {settings.iterations:,} draws by each sampler, "
        f"seed {config.seed}"
    )
    manifest = ensure_indexed(workspace, config, auto=False)
    fix = f"run `vipocc priors sam --split {split}`"
    if not workspace.store("instances").is_dir():
        raise MissingInputError("there are no instances", where=workspace.store("instances"), fix=fix)
    reader = open_store(workspace, "instances", fix)
    report = evaluate_sampler(
        manifest,
        reader,
        select_keys(manifest, split, limit),
        config.priors.snog,
        split=split,
        iterations=settings.iterations,
        seed=config.seed,
        resamples=settings.resamples,
        confidence=settings.confidence,
        note=source_note(reader),
        anchors=open_store(workspace, "anchors", fix) if workspace.store("anchors").is_dir() else None,
    )
    pictured = _pictured(workspace, reader, report, config)
    report.figures, report.attachments = [one.figure() for one in pictured], png_files(pictured)
    report.settings = {"seed": config.seed, "resamples": settings.resamples, "confidence": settings.confidence}
    report.notes = [*report.notes, *adapter(workspace.dataset).notes]
    return report, report.save(workspace.reports)


def _pictured(workspace: Workspace, instances: StoreReader, report: Report, config: Any) -> list[Drawn]:
    """Figure 8 on the image with the most critical instances, of those drawn on that are prepared."""
    if not workspace.store("frames").is_dir():
        return []
    frames = StoreReader(workspace.store("frames"))
    best: tuple[int, Frame, Instances] | None = None
    for frame in dict.fromkeys(report.used[:PICTURED_AMONG]):
        group = f"{frame.sequence}/{frame.camera}"
        if committed(frames, group, frame.row):
            held = read_instances(instances, group, frame.row)
            count = int(held.critical.sum())
            if best is None or count > best[0]:
                best = (count, frame, held)
    if best is None:
        return []
    _, frame, held = best
    image = np.asarray(frames.read(f"{frame.sequence}/{frame.camera}", frame.row, "rgb"))
    picture, _ = samplers(image, held, config.priors.snog, np.random.default_rng([config.seed, frame.row]))
    told = "One draw by each sampler: N_v distinct rays, N_vc of them on critical instances, psi_v their share."
    return [drawn(f"Figure 8: {frame.name}", told, picture, frame)]
