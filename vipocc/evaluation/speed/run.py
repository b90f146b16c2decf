"""Speed of a workspace's model: the checkpoint loaded, the foundation model where it is to be had, the report."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vipocc import config as configuration
from vipocc.data_manifests.datasets import adapter
from vipocc.evaluation.inputs import (
    choose_checkpoint,
    choose_device,
    load_model,
    map_readers,
    untrained_model,
)
from vipocc.evaluation.report import Report
from vipocc.evaluation.session import Say
from vipocc.evaluation.speed.evaluate import evaluate_speed
from vipocc.evaluation.speed.foundation import Foundation, is_here
from vipocc.model.heads.interface import channels_first
from vipocc.model.network import Precision
from vipocc.priors.config import DepthConfig
from vipocc.priors.devices import check_dtype
from vipocc.stores import StoreReader
from vipocc.workspace import Workspace


def run_speed(
    workspace: Workspace,
    config: Any,
    *,
    say: Say,
    run: str | None = None,
    checkpoint: Path | None = None,
    untrained: bool = False,
    device: str | None = None,
    dtype: Precision | None = None,
    batch_sizes: Sequence[int] = (1, 16),
    images: int = 446,
    graph: bool = True,
    depth_model: str | None = None,
    overrides: Sequence[str] = (),
) -> tuple[Report, Path]:
    """Time a model and return the report with the folder that it was written to.

    Args:
        workspace: whose runs.
        config: the workspace's configuration, for what the checkpoint's does not say.
        say: takes the lines that tell what was assumed.
        run: name of the run whose best checkpoint is taken; by default the newest run.
        checkpoint: folder of a checkpoint, instead.
        untrained: take random weights in the workspace's configuration instead: they are as fast.
        device: where it runs.
        dtype: auto, float32 or bfloat16, of the 2D networks; by default the configuration's.
        batch_sizes: images at once.
        images: of each figure.
        graph: replay networks as CUDA graphs where there is CUDA.
        depth_model: the foundation model; by default the configured one where its weights are on this machine.
        overrides: `section.key=value` strings over the checkpoint's configuration.

    Raises:
        MissingInputError: nothing was trained and `untrained` is not set.
        CheckpointError: `depth_model` cannot be loaded.
        DeviceError: bfloat16 away from CUDA.
    """
    where = choose_device(device)
    if untrained:
        found, chosen = None, config
        model = untrained_model(config, where)
    else:
        found = choose_checkpoint(workspace, config, path=checkpoint, run=run, overrides=overrides)
        chosen = found.config
        model = load_model(found, where)
    precision: Precision = dtype or chosen.training.dtype
    check_dtype(precision, str(where))
    model.use_precision(precision)
    told = "random weights" if found is None else f"checkpoint {found.describe(workspace)['path']} ({found.rule})"
    batches = " and ".join(map(str, batch_sizes))
    say(f"speed of {chosen.preset}, {told}, on {where}; {images:,} images a figure, batch {batches}, {precision}")
    report = evaluate_speed(
        model,
        tuple(chosen.data.image_size),
        name=chosen.preset or "model",
        dataset=workspace.dataset,
        device=where,
        batches=batch_sizes,
        images=images,
        graphed=graph,
        foundation=_foundation(chosen.priors.depth, depth_model, where, model),
        maps=_maps(workspace, chosen, where) if chosen.model.head.maps else None,
    )
    report.checkpoint = None if found is None else found.describe(workspace)
    report.configuration = configuration.as_dict(chosen)
    report.settings = {**machine(where), "precision": _precision(precision, where), **report.settings} | {
        "networks": "one CUDA graph a use" if graph and where.type == "cuda" else "as they are",
        "compiled": False,
        "kernels": bool(model.fused and where.type == "cuda"),
        "image_size": list(chosen.data.image_size),
        "preset": chosen.preset,
        "profile": chosen.profile,
    }
    if found is None:
        report.notes = [*report.notes, "The weights are random: the same configuration trained is as fast."]
    report.notes = [*report.notes, *adapter(workspace.dataset).notes]
    return report, report.save(workspace.reports)


def machine(device: torch.device) -> dict[str, Any]:
    """Return what a figure of speed has to say of where it was measured."""
    told: dict[str, Any] = {"hardware": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if device.type == "cuda":
        told["hardware"] = torch.cuda.get_device_name(device)
        told["cuda"], told["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
        told["cudnn.benchmark"] = True
    return told


def processor() -> str:
    """Return the name of this machine's processor and how many of its cores are ours."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"


def _precision(precision: str, device: torch.device) -> str:
    networks = precision if precision != "auto" else ("bfloat16" if device.type == "cuda" else "float32")
    return f"2D networks in {networks}, geometry and density field in float32"


def _foundation(config: DepthConfig, named: str | None, device: torch.device, model: Any) -> Foundation | None:
    if named is not None:
        return Foundation(config.model_copy(update={"model": named, "revision": None}), device)
    branch = model.depth_branch
    needed = branch is not None and branch.needs_prior
    return Foundation(config, device) if needed and is_here(config) else None


def _maps(workspace: Workspace, config: Any, device: torch.device) -> Any:
    """Return what gives maps of zeros of the shapes that the stores have."""
    shapes = {
        name: reader.spec.array(array).shape
        for name, (reader, array) in map_readers(workspace, config).items()
        if isinstance(reader, StoreReader)
    }

    def of(batch: int) -> Mapping[str, Tensor]:
        return {name: channels_first(torch.zeros(batch, *shape, device=device)) for name, shape in shapes.items()}

    return of
