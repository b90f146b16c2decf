"""The errors that vipocc raises: what is wrong, where, and the way out.

Library code raises these; only the command line prints and exits (`vipocc.cli`). The root of each kind is also the
builtin that a caller would expect, so `except ValueError` around a configuration mistake works without importing us.
"""

from __future__ import annotations


class VipoccError(Exception):
    """An error whose message is one sentence: what is wrong, where, and the command or flag that mends it.

    `exit_code` is what the command line leaves with: 2 for a mistake on the user's side, 1 for one on ours.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what = what.rstrip(". ")
        self.where = None if where is None else str(where)
        self.fix = None if fix is None else fix.rstrip(". ")
        super().__init__(self.what, self.where, self.fix)

    def __str__(self) -> str:
        sentence = self.what if self.where is None else f"{self.what}: {self.where}"
        return sentence if self.fix is None else f"{sentence}; {self.fix}"

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process boundaries (workers of stores and sample streams), where keyword arguments get lost.
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _rebuild(kind: type[VipoccError], what: str, where: str | None, fix: str | None) -> VipoccError:
    return kind(what, where=where, fix=fix)


class UsageError(VipoccError, ValueError):
    """The command or function was called with arguments that cannot work together."""


class ConfigError(VipoccError, ValueError):
    """A configuration key is unknown or a value is out of range."""


class WorkspaceError(VipoccError, FileNotFoundError):
    """There is no workspace, or it belongs to something else."""


class DataError(VipoccError, ValueError):
    """A file of a dataset is absent, unreadable, truncated or says something impossible."""


class MissingInputError(VipoccError, FileNotFoundError):
    """An earlier stage has not produced what this one needs; `fix` names the command that does."""


class StoreError(VipoccError, OSError):
    """A store cannot be opened, written or trusted."""


class CheckpointError(VipoccError, ValueError):
    """A checkpoint is unreadable or belongs to another architecture."""


class DeviceError(VipoccError, RuntimeError):
    """The compute device that was asked for is not there, or ran out of memory."""


class NonFiniteError(VipoccError, ArithmeticError):
    """A loss or a prediction stopped being a finite number."""

    exit_code = 1
