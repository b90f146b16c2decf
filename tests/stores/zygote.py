"""A process that has imported everything and forks a writer for each line it reads: kills then cost no imports.

Line: `<store> <log> <delay>`; answer: the writer's process id. Line `wait <pid>`; answer: its exit status.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import numpy as np
from stores_helpers import GROUP, Computer, requests, spec

import vipocc.stores.commit
import vipocc.stores.runner  # noqa: F401, everything a writer needs is loaded before the first fork
from vipocc.stores import LocalExecutor, Store, run

ROWS = 200


def write(store_path: Path, log: Path, delay: float) -> None:
    """Fill the store in two goes: every second row, then all, so that shards are extended too."""
    store = Store.create_or_open(store_path, spec(), store_path.parent)
    store.ensure_group(GROUP, np.arange(ROWS) * 3)
    for step in (range(0, ROWS, 2), range(ROWS)):
        run(store, requests(step), Computer(log, delay=delay), LocalExecutor(workers=1))


def main() -> None:
    for line in sys.stdin:
        words = line.split()
        if words[0] == "wait":
            answer = os.waitpid(int(words[1]), 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                os.setsid()
                devnull = os.open(os.devnull, os.O_WRONLY)
                os.dup2(devnull, 1)
                code = 1
                try:
                    write(Path(words[0]), Path(words[1]), float(words[2]))
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
