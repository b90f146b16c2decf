"""From a workspace and a configuration to a finished run: what `vipocc train` does, for use from Python too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from vipocc import config as configuration
from vipocc.data_manifests.manifest import Manifest
from vipocc.errors import MissingInputError
from vipocc.priors.devices import check_dtype, resolve_devices
from vipocc.training.inputs import training_inputs
from vipocc.training.runs import find_run, new_run
from vipocc.training.samples import TrainingSamples, sample_table
from vipocc.training.schedule import total_samples
from vipocc.training.trainer import Summary, Trainer
from vipocc.training.validation import Validation
from vipocc.workspace import Workspace


def start_training(
    workspace: Workspace,
    config: Any | None,
    *,
    resume: str | None = None,
    overrides: Sequence[str] = (),
    name: str | None = None,
    device: str | None = None,
    auto: bool = True,
    say: Callable[[str], None],
) -> Summary:
    """Train a new run, or go on with one, and return how it ended.

    Args:
        workspace: where stores are and runs go.
        config: the resolved root configuration; unused when resuming, where the checkpoint's own is used.
        resume: `latest`, or name or path of a run.
        overrides: `section.key=value` strings on top of a resumed run's configuration.
        name: name of a new run.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; by default what the configuration says.
        auto: prepare images that are missing in the stores; priors are never started from here.
        say: told what is assumed, one line before anything else.

    Raises:
        MissingInputError: inputs are missing, or there is nothing to resume.
        DeviceError: the device is not there.
        ConfigError: a configuration that cannot be trained with.
    """
    checkpoint: Path | None = None
    folder: Path | None = None
    if resume is not None:
        folder, checkpoint = find_run(workspace.runs, resume)
        config = configuration.load(base=configuration.read(checkpoint / "config.yaml"), overrides=overrides)
    if config is None:
        raise ValueError("a new run needs a configuration")
    training = config.training
    chosen = resolve_devices(device or training.device)[0]
    on = torch.device(chosen)
    check_dtype(training.dtype, chosen, "-o training.dtype=auto, or")

    if workspace.root.is_dir():
        # Imported here as below: a host that has the stores alone needs no reader of the dataset.
        from vipocc.data_manifests.stage import require_listed

        require_listed(workspace, config, "train")
    if not workspace.manifest.is_file():
        raise MissingInputError(
            f"nothing of {workspace.dataset} is prepared yet",
            where=workspace.path,
            fix="run `vipocc priors depth --split train` and then `vipocc priors sam --split train`; each first says "
            "how long it will take",
        )
    manifest = _manifest(workspace, config)
    table = sample_table(manifest, "train", config.data)
    what = "training"
    if folder is not None and checkpoint is not None:
        over = f" with {', '.join(overrides)} on top" if overrides else ""
        what = f"going on with run {folder.name} from {checkpoint.name} by its own configuration{over}"
    steps = -(-total_samples(training, len(table)) // training.batch_size)
    say(
        f"{what}: preset '{config.preset}', profile {config.profile}, {workspace.dataset} train split with "
        f"{len(table):,} samples of {table.group.shape[1]} views{left_out(manifest)}, {steps:,} steps of "
        f"{training.batch_size} on {chosen} ({_precision(training.dtype, chosen)} networks)"
    )
    paths = training_inputs(workspace, manifest, table, config, auto=auto)
    if auto and training.validation_frames and workspace.root.is_dir():
        # Imported here, since it can generate the synthetic world and so knows of its exact truth.
        from vipocc.data_manifests.stage import ensure_validation

        ensure_validation(workspace, config)
    samples = TrainingSamples(table, paths, training, config.data.image_size, config.seed)
    validation = Validation.open(workspace, manifest, config)
    if folder is None:
        folder = new_run(workspace.runs, config.preset, name)
    say(f"into {folder}; {validation.describe()}")
    trainer = Trainer(
        config, samples, folder, device=on, validate=validation if validation.measures else None, resume=checkpoint
    )
    return trainer.train()


def _manifest(workspace: Workspace, config: Any) -> Manifest:
    """Return the manifest, indexed anew if need be where the dataset is; a host may have the stores alone."""
    from vipocc.data_manifests.stage import ensure_indexed

    if workspace.root.is_dir():
        return ensure_indexed(workspace, config, auto=False)
    return Manifest.load(workspace.manifest, dataset=workspace.dataset, root=workspace.root)


def left_out(manifest: Manifest) -> str:
    """Return the listed training samples that the index left out, by reason, as an aside of a sentence."""
    reasons = manifest.left_out.get("train", {})
    return f" ({', '.join(f'{count:,} left out: {reason}' for reason, count in reasons.items())})" if reasons else ""


def _precision(dtype: str, device: str) -> str:
    if dtype == "auto":
        return "bfloat16" if device.startswith("cuda") else "float32"
    return dtype
