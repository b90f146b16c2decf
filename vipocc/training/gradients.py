"""The gradient of one optimiser step, whose batch may be shared by processes and be taken in parts.

A masked mean divides by the valid count of the whole step. A part therefore gives `total / global count`, and what all
parts give adds up to the loss, and to the gradient, of the batch taken at once; averaging the parts' own means would
weigh a ray in a part with few valid rays more than one in a part with many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from vipocc.model.network import ViPOcc
from vipocc.training.batch import Batch
from vipocc.training.config import TrainingConfig
from vipocc.training.distributed import ALONE, GradientSum, Ranks
from vipocc.training.losses import Mean
from vipocc.training.step import combine, training_means

Part = Callable[[], tuple[Batch, torch.Generator | None]]
"""Makes a part of the batch and the generator of its jitter, the same at every call."""


def add_gradients(
    model: ViPOcc,
    parts: Sequence[Part],
    config: TrainingConfig,
    *,
    ranks: Ranks = ALONE,
    reducer: GradientSum | None = None,
) -> dict[str, Tensor]:
    """Add the gradients of a step to the parameters', and return the losses of the whole step, without gradient.

    Counts depend on what the model renders. So the parts after the first go through it once more, before, without
    gradient: a third more time for each, and no more memory than one part needs.

    Args:
        model: the model in training mode.
        parts: the parts of this process's share of the batch.
        config: weights and variants of the losses.
        ranks: the processes that share the batch.
        reducer: sums the gradients over them; needed where there are several.

    Returns:
        `total`, `rgb` and so on as `combine` names them, the same in every process.
    """
    counts: Tensor | None = None
    names: tuple[str, ...] = ()
    if len(parts) > 1:
        with torch.no_grad(), _statistics_kept(model):
            for part in parts[1:]:
                found = _counts(_means(model, part, config))
                counts = found if counts is None else counts + found
    losses: Tensor | None = None
    for number, part in enumerate(parts):
        means = _means(model, part, config)
        if number == 0:
            own = _counts(means)
            counts = ranks.add(own if counts is None else own + counts)
        assert counts is not None
        shares = combine({name: Mean(mean.total, counts[at]) for at, (name, mean) in enumerate(means.items())}, config)
        last = number == len(parts) - 1
        with reducer.summing() if reducer is not None and last else nullcontext():
            shares["total"].backward()
        names = tuple(shares)
        of_part = torch.stack([share.detach() for share in shares.values()])
        losses = of_part if losses is None else losses + of_part
    assert losses is not None
    return dict(zip(names, ranks.add(losses).unbind(), strict=True))


def _means(model: ViPOcc, part: Part, config: TrainingConfig) -> dict[str, Mean]:
    batch, jitter = part()
    return training_means(model, batch, config, jitter=jitter)


def _counts(means: dict[str, Mean]) -> Tensor:
    return torch.stack([mean.count for mean in means.values()])


@contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """Return a context in which batch normalisation does not move its running statistics."""
    moving = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    for module in moving:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in moving:
            module.track_running_stats = True
