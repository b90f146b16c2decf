"""Named random draws: every draw of training comes from a generator seeded by (seed, purpose, indices).

A resumed run therefore needs no saved generator states, and adding a draw somewhere moves no other.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, purpose: str, *indices: int) -> int:
    """Return a seed of 63 bits for one purpose and place, such as `derived_seed(0, "order", epoch)`."""
    text = "/".join([str(seed), purpose, *map(str, indices)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """Return the NumPy generator of one purpose and place."""
    return np.random.default_rng(derived_seed(seed, purpose, *indices))


def torch_generator(device: torch.device, seed: int, purpose: str, *indices: int) -> torch.Generator:
    """Return the torch generator of one purpose and place on `device`; CPU and CUDA draw different numbers."""
    import torch

    return torch.Generator(device=device).manual_seed(derived_seed(seed, purpose, *indices))
