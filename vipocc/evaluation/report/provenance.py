"""When, by which command and with which code a report was made."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from vipocc import __version__

_PACKAGES = ("numpy", "torch", "zarr")
#: Where `vipocc.cli` keeps what was typed.
ARGUMENTS = "vipocc.arguments"


def created() -> dict[str, Any]:
    """Return the block of a report that differs from one run to the next: time, command, versions, git's state."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command_line(),
        "folder": str(Path.cwd()),
        "versions": {"vipocc": __version__, "python": platform.python_version(), **_installed()},
        "machine": f"{platform.system()} {platform.machine()}",
        "git": git_state(Path(__file__).parent),
    }


def command_line() -> str | None:
    """Return what was typed, or None where no command runs but a program that calls the library."""
    context = click.get_current_context(silent=True)
    arguments: Sequence[str] | None = None if context is None else context.meta.get(ARGUMENTS)
    return None if arguments is None else shlex.join(["vipocc", *arguments])


@cache
def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit and whether there are uncommitted changes to the code in `folder`; None where it is not in git.

    It is asked once, for the code that runs is that of the beginning. A package that is installed inside some other
    project's checkout is not of that project: `folder` must be tracked.
    """
    try:
        tracked = _git(folder, "ls-files", "--error-unmatch", "--", "provenance.py")
        if tracked is None:
            return None
        commit, status = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "-uno")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if commit is None or status is None else {"commit": commit, "changed": bool(status)}


def _git(folder: Path, *words: str) -> str | None:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=False, encoding="utf-8"
    )
    return done.stdout.strip() if done.returncode == 0 else None


def _installed() -> dict[str, str]:
    # Of modules that are loaded alone: asking must not import torch.
    return {name: metadata.version(name) for name in _PACKAGES if name in sys.modules}
