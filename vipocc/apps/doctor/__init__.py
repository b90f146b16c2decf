"""What this machine offers, whether a workspace is sound, and what to do next."""

from __future__ import annotations

from typing import Any

from vipocc.apps.doctor.findings import Finding
from vipocc.apps.doctor.machine import look_at_machine
from vipocc.apps.doctor.weights import look_at_weights
from vipocc.apps.doctor.workspace import look_at_workspace, next_step
from vipocc.cli import App
from vipocc.errors import VipoccError


def examine(app: App) -> tuple[list[Finding], str]:
    """Return the findings on machine, weights and workspace, and the command that comes next.

    No workspace is not a fault: the machine alone is described then.
    """
    try:
        workspace = app.workspace
    except VipoccError as error:
        none = Finding("workspace", "workspace", str(error.what), fix=error.fix or "")
        return [*look_at_machine(None), none], "vipocc init --dataset synthetic"
    found = look_at_machine(workspace.path)
    try:
        config = app.config
    except VipoccError as error:
        broken = Finding("workspace", "configuration", str(error), "fault")
        return [*found, broken], f"correct {workspace.path / 'vipocc.yaml'}"
    found += look_at_weights(workspace, config)
    found += look_at_workspace(workspace, config)
    return found, next_step(workspace)


def as_dict(findings: list[Finding], step: str) -> dict[str, Any]:
    """Return the findings as JSON values."""
    return {"sound": is_sound(findings), "findings": [one.as_dict() for one in findings], "next": step}


def is_sound(findings: list[Finding]) -> bool:
    """Whether none is a fault."""
    return not any(one.state == "fault" for one in findings)
