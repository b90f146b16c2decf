"""The learning rate as a function of the samples seen, so that neither batch size nor resuming moves it."""

from __future__ import annotations

import math

from vipocc.training.config import TrainingConfig


def total_samples(config: TrainingConfig, keys: int) -> int:
    """Return the length of a run in samples: `max_steps` batches, else `epochs` passes over `keys` samples."""
    if config.max_steps is not None:
        return config.max_steps * config.batch_size
    return math.ceil(config.epochs * keys)


def learning_rate(config: TrainingConfig, samples: int, total: int) -> float:
    """Return the learning rate of a step that begins after `samples` of `total` samples.

    The paper divides it by ten for the last 10 of 25 epochs; the released code after every 120,000 steps of 8 samples
    (`decay_every`).
    """
    if config.decay_every is not None:
        decays = samples // config.decay_every
    else:
        decays = int(samples >= round((1.0 - config.decay_last) * total)) if config.decay_last else 0
    return float(config.learning_rate * config.decay_factor**decays)
