"""The training loop that the three networks share: a fixed seed, a schedule that fits the time, states to resume."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path
from typing import Any, Protocol

import torch

from vipocc.apps.embedded.batches import Batch, Batches
from vipocc.errors import CheckpointError, NonFiniteError

_WARM_UP = 0.03
_TIMED_FROM, _TIMED_UNTIL = 20, 60
_LAST = 0.02


class Task(Protocol):
    """A network and how it is wrong."""

    network: Any

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Return the loss to be made small, under `loss`, and what else is to be logged."""
        ...


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn."""

    steps: int
    """Steps of the schedule, if they fit."""
    batch: int
    rate: float
    """Highest learning rate; after a warm-up it falls along a cosine."""
    seconds: float | None = None
    """Time that training may take. After 60 steps the speed is known, and steps that would not fit are given up."""
    seed: int = 0
    decay: float = 0.03
    largest_gradient: float = 0.5
    worsen: bool = True
    """Whether pictures are worsened (`batches`)."""
    log_every: int = 50
    save_every: float = 60.0
    """Seconds between saved states."""


@dataclass
class Progress:
    """What training has come to."""

    step: int = 0
    steps: int = 0
    """Of the whole schedule, after what did not fit was given up."""
    seconds: float = 0.0


def train(task: Task, batches: Batches, plan: Plan, folder: Path) -> Progress:
    """Train until the plan is done, going on from the state that `folder` holds; return what was done.

    `folder` gets `state.pt` (removed by nobody: a finished one trains no further) and `log.jsonl`.

    Raises:
        CheckpointError: the state in `folder` is of another plan.
        NonFiniteError: the loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = _optimiser(task.network, plan)
    done = _resume(task, optimiser, plan, folder) or Progress(steps=plan.steps)
    before, started = done.seconds, time.perf_counter()
    timed, saved = 0.0, started
    task.network.train()
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        while done.step < done.steps:
            if done.step == _TIMED_FROM:
                timed = _now(batches.device)
            if done.step == _TIMED_UNTIL and plan.seconds is not None and timed:
                done.steps = _fitting(done, plan, (_now(batches.device) - timed) / (_TIMED_UNTIL - _TIMED_FROM), before)
            for group in optimiser.param_groups:
                group["lr"] = plan.rate * _schedule(done.step, done.steps)
            parts = _step(task, batches, optimiser, plan, done.step)
            done.step += 1
            done.seconds = before + time.perf_counter() - started
            if done.step % plan.log_every == 0 or done.step in (1, done.steps):
                _log(log, parts, done, folder)
            if time.perf_counter() - saved > plan.save_every:
                _save(task, optimiser, plan, done, folder)
                saved = time.perf_counter()
    _save(task, optimiser, plan, done, folder)
    return done


def _optimiser(network: Any, plan: Plan) -> torch.optim.AdamW:
    """Return AdamW, without decay for vectors (norms, offsets) and tables of positions."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    plain = [p for name, p in named if p.ndim < 2 or "position" in name or "pos_embed" in name]
    known = {id(p) for p in plain}
    decayed = [p for _, p in named if id(p) not in known]
    groups = [{"params": decayed, "weight_decay": plan.decay}, {"params": plain, "weight_decay": 0.0}]
    fused = next(network.parameters()).is_cuda
    return torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=fused)


def _step(task: Task, batches: Batches, optimiser: torch.optim.Optimizer, plan: Plan, step: int) -> dict[str, Any]:
    batch, generator = batches.draw(step, worsen=plan.worsen)
    parts = task.loss(batch, generator)
    optimiser.zero_grad(set_to_none=True)
    parts["loss"].backward()
    torch.nn.utils.clip_grad_norm_(task.network.parameters(), plan.largest_gradient)
    optimiser.step()
    return parts


def _schedule(step: int, steps: int) -> float:
    """Return the learning rate of a step as a part of the highest."""
    # The warm-up must not depend on how many steps fit, which is not known at its beginning.
    warm = min(1.0, (step + 1) / max(1.0, min(_WARM_UP * steps, 200.0)))
    return warm * (_LAST + (1 - _LAST) * 0.5 * (1 + cos(pi * min(1.0, step / max(steps, 1)))))


def _fitting(done: Progress, plan: Plan, pace: float, before: float) -> int:
    assert plan.seconds is not None
    left = plan.seconds - max(done.seconds, before)
    return max(done.step + 1, min(plan.steps, done.step + int(left / pace)))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _log(log: Any, parts: dict[str, torch.Tensor], done: Progress, folder: Path) -> None:
    values = {name: round(float(value.detach()), 5) for name, value in parts.items()}
    log.write(json.dumps({**asdict(done), "seconds": round(done.seconds, 1), **values}) + "\n")
    log.flush()
    if not torch.isfinite(parts["loss"]):
        raise NonFiniteError(
            f"the loss is not finite at step {done.step}", where=folder, fix="lower --rate, or change --seed"
        )


def _save(task: Task, optimiser: torch.optim.Optimizer, plan: Plan, done: Progress, folder: Path) -> None:
    state = {"network": task.network.state_dict(), "optimiser": optimiser.state_dict(), "done": asdict(done)}
    aside = folder / "state.pt.partial"
    torch.save({**state, "plan": _decisive(plan)}, aside)
    aside.replace(folder / "state.pt")


def _resume(task: Task, optimiser: torch.optim.Optimizer, plan: Plan, folder: Path) -> Progress | None:
    path = folder / "state.pt"
    if not path.is_file():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["plan"] != _decisive(plan):
        raise CheckpointError(
            "the state of a training with another plan lies there", where=path, fix="choose another folder"
        )
    task.network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    return Progress(**state["done"])


def _decisive(plan: Plan) -> dict[str, Any]:
    """Return what of a plan decides the weights; how long it may take is no part of it."""
    values = asdict(plan)
    return {name: values[name] for name in ("steps", "batch", "rate", "seed", "decay", "largest_gradient", "worsen")}
