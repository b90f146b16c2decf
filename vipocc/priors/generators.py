"""Named random generators: every draw comes from (seed, purpose, place), whatever was drawn elsewhere before."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np


def generator(seed: int, purpose: str, *place: str | int) -> np.random.Generator:
    """Return the generator of one purpose and place, such as `generator(0, "anchors", "drive_1", "image_00", 7)`."""
    text = "\0".join([str(seed), purpose, *map(str, place)])
    return np.random.default_rng(int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "little"))
