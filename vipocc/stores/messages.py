"""Outcomes as they travel between processes."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace

from vipocc.errors import VipoccError
from vipocc.stores.spec import Request
from vipocc.stores.work import Outcome


@dataclass(frozen=True)
class Message:
    """An outcome as it travels between processes: its error taken apart, for few exceptions survive pickling."""

    outcome: Outcome
    kind: type[VipoccError] | None = None
    what: str = ""
    where: str | None = None
    fix: str | None = None
    trace: str = ""


def pack(outcome: Outcome) -> Message:
    """Return an outcome ready for pickling."""
    bare, error = replace(outcome, error=None), outcome.error
    if error is None:
        return Message(bare)
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, VipoccError):
        return Message(bare, type(error), error.what, error.where, error.fix, trace)
    return Message(bare, None, f"{type(error).__name__}: {error}", trace=trace)


def unpack(message: Message, request: Request) -> Outcome:
    """Return the outcome that `pack` took apart; the worker's traceback is a note on its error."""
    if not message.what:
        return replace(message.outcome, request=request)
    if message.kind is not None:
        error: Exception = message.kind(message.what, where=message.where, fix=message.fix)
    else:
        error = RuntimeError(message.what)
    error.add_note(message.trace)
    return replace(message.outcome, request=request, error=error)
