"""Command lines in pages: whether what they call exists."""

from __future__ import annotations

import click


def refuse_unknown(command: click.Command, arguments: list[str], name: str) -> None:
    """Parse a command line as Click would, down to the last sub-command, and start nothing."""
    context = command.make_context(name, arguments)
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        found, sub, more = command.resolve_command(context, rest)
        assert sub is not None
        refuse_unknown(sub, more, found or "")
