"""The parts of the work that array jobs take, `--shard I/N`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vipocc.stores import SHARD, parse_shard

Rows = Mapping[tuple[str, str], NDArray[np.int64]]


def part_of(rows: Rows, shard: str) -> dict[tuple[str, str], NDArray[np.int64]]:
    """Return the rows of one part, whole units each: the same disjoint parts on every host, whatever is done already.

    All priors of a frame are in the same part, so that a job finds the instances for its anchors.

    Args:
        rows: of each (sequence, camera), all that the run is about.
        shard: `I/N`, I from 0.

    Raises:
        UsageError: it is no part.
    """
    index, parts = parse_shard(shard)
    units = sorted({(*key, int(number)) for key, some in rows.items() for number in np.unique(some // SHARD)})
    mine = {unit[:2]: [u[2] for u in units[index::parts] if u[:2] == unit[:2]] for unit in units[index::parts]}
    return {key: rows[key][np.isin(rows[key] // SHARD, numbers)] for key, numbers in mine.items()}
