"""What has changed since a run was saved, in words."""

from __future__ import annotations

from vipocc.training.config import TrainingConfig
from vipocc.training.state import RunState


def changes(state: RunState, training: TrainingConfig, keys: int, world: int) -> list[str]:
    """Return one line for each thing that makes a resumed run part from an undisturbed one: old, new and its effect."""
    lines = []
    if state.batch_size != training.batch_size:
        lines.append(
            f"training.batch_size was {state.batch_size} and is now {training.batch_size}: samples keep their order "
            "and the schedule its place, but steps group them differently from an undisturbed run"
        )
    if state.world != world:
        lines.append(
            f"the run had {_processes(state.world)} and now has {_processes(world)}: the order of samples and the "
            "batches stay what they were; batch normalisation and the jitter along rays see other parts of them"
        )
    if state.accumulate != training.accumulate:
        lines.append(
            f"training.accumulate was {state.accumulate} and is now {training.accumulate}: the order of samples and "
            "the batches stay what they were; batch normalisation and the jitter along rays see other parts of them"
        )
    if state.keys != keys:
        lines.append(f"the split had {state.keys} samples and now has {keys}: their order from here on is another one")
    if state.weights is None and training.ema is not None:
        lines.append(f"training.ema was off and is now {training.ema}: the average of the weights starts here")
    if state.weights is not None and training.ema is None:
        lines.append("training.ema was on and is now off: the run goes on from the trained weights, not their average")
    return lines


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
