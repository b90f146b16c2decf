"""Named random generators: every draw of the world comes from (seed, purpose, index)."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """Return the generator of one purpose; other purposes and indices are independent of it."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *index])
