"""From a workspace and a configuration to a finished run: what `vipocc train` does, for use from Python too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from vipocc import config as configuration
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.views import camera_tilt, prepared_intrinsics, rig
from vipocc.errors import MissingInputError
from vipocc.priors.devices import check_dtype, resolve_devices
from vipocc.training.determinism import deterministic
from vipocc.training.distributed import Ranks, device_here, joined
from vipocc.training.inputs import training_inputs
from vipocc.training.runs import find_run, new_run
from vipocc.training.samples import TrainingSamples
from vipocc.training.schedule import total_samples
from vipocc.training.sinks import check_sinks
from vipocc.training.table import SampleTable, sample_table
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
    profile: bool = False,
    say: Callable[[str], None],
) -> Summary:
    """Train a new run, or go on with one, and return how it ended.

    Under `torchrun` every process calls it; the first one prepares, validates, writes and prints.

    Args:
        workspace: where stores are and runs go.
        config: the resolved root configuration; unused when resuming, where the checkpoint's own is used.
        resume: `latest`, or name or path of a run.
        overrides: `section.key=value` strings on top of a resumed run's configuration.
        name: name of a new run.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; by default what the configuration says.
        auto: prepare images that are missing in the stores; priors are never started from here.
        profile: record a trace of some steps in the run's folder and say where their time went.
        say: told what is assumed, one line before anything else.

    Raises:
        MissingInputError: inputs are missing, or there is nothing to resume.
        DeviceError: the device is not there, or another process stopped.
        ConfigError: a configuration that cannot be trained with.
    """
    checkpoint: Path | None = None
    folder: Path | None = None
    what = "training"
    if resume is not None:
        folder, checkpoint = find_run(workspace.runs, resume)
        config = configuration.load(base=configuration.read(checkpoint / "config.yaml"), overrides=overrides)
        over = f" with {', '.join(overrides)} on top" if overrides else ""
        what = f"going on with run {folder.name} from {checkpoint.name} by its own configuration{over}"
    if config is None:
        raise ValueError("a new run needs a configuration")
    training = config.training
    chosen = resolve_devices(device_here(device or training.device))[0]
    check_dtype(training.dtype, chosen, "-o training.dtype=auto, or")
    check_sinks(training)
    on = torch.device(chosen)
    with deterministic(training.deterministic), joined(on) as ranks, _silent(not ranks.first):
        validation: Validation | None = None
        if ranks.first:
            samples, manifest = _samples(
                workspace, config, auto, _describe(what, workspace, config, ranks, chosen, say)
            )
            config = config.model_copy(update={"camera": trained_camera(manifest, config)})
            validation = Validation.open(workspace, manifest, config)
            folder = folder or new_run(workspace.runs, config.preset, name)
            say(f"into {folder}; {validation.describe()}")
        # The others wait here until all is prepared, and take the run that the first one found or made.
        folder, checkpoint = ranks.tell((folder, checkpoint))
        if not ranks.first:
            samples, _ = _samples(workspace, config, False, lambda table, manifest: None)
        assert folder is not None
        trainer = Trainer(
            config,
            samples,
            folder,
            device=on,
            validate=validation if validation is not None and validation.measures else None,
            resume=checkpoint,
            ranks=ranks,
            profile=profile,
        )
        summary = trainer.train()
    if summary.profile is not None:
        say(summary.profile)
    return summary


def trained_camera(manifest: Manifest, config: Any) -> configuration.TrainedCamera:
    """Return the left camera of the prepared images, of the first drive that has samples: rigs differ little."""
    left = rig(manifest.dataset).left
    sequence = next(sequence for sequence, camera in manifest.needed("all") if camera == left)
    matrix = prepared_intrinsics(manifest, sequence, left, config.data)
    height, width = config.data.image_size
    fx, fy, cx, cy = (float(value) for value in (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]))
    return configuration.TrainedCamera(
        dataset=manifest.dataset,
        width=width,
        height=height,
        fx=fx,
        fy=fy,
        cx=cx,
        cy=cy,
        tilt=camera_tilt(manifest.dataset),
    )


def _describe(
    what: str, workspace: Workspace, config: Any, ranks: Ranks, device: str, say: Callable[[str], None]
) -> Callable[[SampleTable, Manifest], None]:
    """Return what says, once the samples are known, all that a run assumes in one line."""

    def describe(table: SampleTable, manifest: Manifest) -> None:
        training = config.training
        steps = -(-total_samples(training, len(table)) // training.batch_size)
        on = device if ranks.world == 1 else f"{ranks.world} processes, each on its own {device.partition(':')[0]}"
        parts = f" in {training.accumulate} parts" if training.accumulate > 1 else ""
        exactly = ", deterministic" if training.deterministic else ""
        say(
            f"{what}: preset '{config.preset}', profile {config.profile}, {workspace.dataset} train split with "
            f"{len(table):,} samples of {table.group.shape[1]} views{left_out(manifest)}, {steps:,} steps of "
            f"{training.batch_size}{parts} on {on} ({_precision(training.dtype, device)} networks{exactly})"
        )

    return describe


def _samples(
    workspace: Workspace, config: Any, auto: bool, describe: Callable[[SampleTable, Manifest], None]
) -> tuple[TrainingSamples, Manifest]:
    """Return the training samples and the manifest, what is missing prepared or refused."""
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
    describe(table, manifest)
    paths = training_inputs(workspace, manifest, table, config, auto=auto)
    if auto and config.training.validation_frames and workspace.root.is_dir():
        # Imported here, since it can generate the synthetic world and so knows of its exact truth.
        from vipocc.data_manifests.stage import ensure_validation

        ensure_validation(workspace, config)
    return TrainingSamples(table, paths, config.training, config.data.image_size, config.seed), manifest


@contextmanager
def _silent(wanted: bool) -> Iterator[None]:
    """Return a context in which nothing is printed: of several processes only the first one tells."""
    if not wanted:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


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
