"""The ray samplers on the instances of a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vipocc.data_manifests.stage import ensure_indexed
from vipocc.errors import MissingInputError
from vipocc.evaluation.inputs import (
    select_keys,
)
from vipocc.evaluation.report import Report
from vipocc.evaluation.sampler import evaluate_sampler
from vipocc.evaluation.session import Say, open_store, source_note
from vipocc.workspace import Workspace


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
    )
    report.settings = {"seed": config.seed, "resamples": settings.resamples, "confidence": settings.confidence}
    return report, report.save(workspace.reports)
