"""From the options of `vipocc predict` to a run: what is loaded, and what is said of it before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vipocc.apps.predict.cameras import Intrinsics
from vipocc.apps.predict.checkpoints import TrainingCamera, open_checkpoint, training_camera
from vipocc.apps.predict.grid import Grid
from vipocc.apps.predict.pictures import Pictures
from vipocc.apps.predict.predictor import Predictor
from vipocc.apps.predict.prior import LivePrior
from vipocc.apps.predict.run import Run, Summary, Wanted, run_settings
from vipocc.cli import App
from vipocc.errors import UsageError, WorkspaceError
from vipocc.evaluation.inputs import Checkpoint, choose_checkpoint, choose_device, load_model
from vipocc.priors import sources
from vipocc.workspace import Workspace

Say = Callable[[str], None]


def start(
    app: App,
    given: Sequence[Path],
    *,
    output: Path,
    checkpoint: str | None,
    run: str | None,
    depth_model: str | None,
    focal: float | None,
    fx: float | None,
    fy: float | None,
    cx: float | None,
    cy: float | None,
    fov: float | None,
    calibration: Path | None,
    camera: str | None,
    training_camera: str | None,
    x: tuple[float, float] | None,
    y: tuple[float, float] | None,
    z: tuple[float, float] | None,
    cell: float,
    tilt: float | None,
    threshold: float,
    full_size: bool,
    no_depth: bool,
    no_occupancy: bool,
    every: int,
    limit: int | None,
    batch_size: int | None,
    device: str | None,
    overwrite: bool,
    say: Say,
) -> Summary:
    """Predict pictures as the command's options say; the names are those of the options.

    Raises:
        UsageError: options that contradict each other, pictures that are not there, a grid or camera that cannot be.
        CheckpointError, MissingInputError: there is no checkpoint.
    """
    if no_depth and no_occupancy:
        raise UsageError("--no-depth and --no-occupancy leave nothing to do", fix="give one of them at most")
    if no_depth and (full_size or depth_model):
        raise UsageError("--no-depth contradicts --full-size and --depth-model", fix="leave it out")
    # What can be wrong with the call is told before anything is loaded.
    pictures = Pictures.find(given, every=every, limit=limit)
    said = Intrinsics(focal, fx, fy, cx, cy, fov, calibration, camera)
    if calibration is not None:
        from vipocc.apps.predict.calibration import read_calibration

        read_calibration(calibration, camera)
    found, workspace = _checkpoint(app, checkpoint, run)
    training = _training(found, workspace, training_camera)
    said = Intrinsics(focal, fx, fy, cx, cy, fov, calibration, camera, default=training.dataset)
    plain = Grid()
    grid = None
    if not no_occupancy:
        grid = Grid(x or plain.x, y or plain.y, z or plain.z, cell, training.tilt if tilt is None else tilt)
    where = choose_device(device)
    model = load_model(found, where)
    prior = None if depth_model is None else LivePrior(depth_model, found.config, str(where), output)
    predictor = Predictor(model, training, resize=found.config.data.resize, prior=prior)
    size = batch_size or (8 if where.type == "cuda" else 4)
    wanted = Wanted(grid, not no_depth, threshold, full_size, size, overwrite)
    say(
        f"{len(pictures):,} pictures by {found.path} ({found.rule}), on {where}; brought to {training.camera.width}x"
        f"{training.camera.height} of the training camera ({training.origin})"
    )
    if wanted.depth:
        say(_about_depth(predictor, prior, found))
    settings = run_settings(found, training, prior, said, wanted)
    return Run(predictor, said, wanted, output, settings, say).all(pictures)


def _checkpoint(app: App, checkpoint: str | None, run: str | None) -> tuple[Checkpoint, Workspace | None]:
    if checkpoint is not None:
        if run is not None:
            raise UsageError("--checkpoint and --run both choose a checkpoint", fix="give one of them")
        return open_checkpoint(checkpoint, app.overrides)
    try:
        workspace = app.workspace
    except WorkspaceError as error:
        raise UsageError(
            f"no checkpoint is named, and {error.what}",
            where=error.where,
            fix="give --checkpoint FOLDER, or -C WORKSPACE",
        ) from None
    return choose_checkpoint(workspace, app.config, path=None, run=run, overrides=app.overrides), workspace


def _training(found: Checkpoint, workspace: Workspace | None, named: str | None) -> TrainingCamera:
    return training_camera(found.config, workspace, named)


def _about_depth(predictor: Predictor, prior: LivePrior | None, found: Checkpoint) -> str:
    if predictor.depth_kind == "predicted":
        return "depth: the depth branch's, which needs no prior"
    if prior is None:
        branch = predictor.model.depth_branch
        why = "no depth branch in this checkpoint" if branch is None else "no --depth-model for the branch to refine"
        return f"depth: rendered from the occupancy ({why})"
    if predictor.depth_kind == "rendered":
        return "depth: rendered from the occupancy; this checkpoint has no depth branch, so the depth model is not used"
    trained = sources.chosen("depth", found.config.priors, predictor.training.dataset)
    of_training = found.config.priors.depth.model if trained == sources.network("depth") else f"source '{trained}'"
    return f"depth: refined from pseudo-depth {prior.summary} (the checkpoint was trained on that of {of_training})"
