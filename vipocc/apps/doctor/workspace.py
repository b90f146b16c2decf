"""The workspace: what is there, what is damaged, what comes next. Cheap: ledgers and folders, no array is read."""

from __future__ import annotations

from typing import Any

from vipocc.apps.doctor.findings import Finding
from vipocc.errors import VipoccError
from vipocc.model.checkpoint import find_checkpoint
from vipocc.progress import size
from vipocc.stores.verification import status
from vipocc.workspace import Workspace

SECTION = "workspace"


def look_at_workspace(workspace: Workspace, config: Any) -> list[Finding]:
    """Return what is found; nothing is changed."""
    about = f"{workspace.path}: {workspace.dataset}, preset '{workspace.preset}', profile {config.profile}"
    found = [Finding(SECTION, "workspace", about, "good"), _root(workspace)]
    there = workspace.manifest.is_file()
    found.append(
        Finding(
            SECTION, "manifest", "there" if there else "not yet", "good" if there else "note",
            "" if there else "`vipocc data index`, or the first command that needs it",
        )
    )  # fmt: skip
    found += _stores(workspace)
    found += _runs(workspace)
    reports = sorted(path.name for path in workspace.reports.glob("*") if (path / "report.json").is_file())
    found.append(Finding(SECTION, "reports", f"{len(reports)}, the newest {reports[-1]}" if reports else "none yet"))
    return found


def next_step(workspace: Workspace) -> str:
    """Return the command that a user of this workspace types next."""
    if workspace.dataset != "synthetic" and not workspace.root.is_dir():
        return f"correct `root` in {workspace.path / 'vipocc.yaml'}"
    if workspace.dataset != "synthetic" and not workspace.manifest.is_file():
        return "vipocc data check"
    if not workspace.store("depth").is_dir():
        return "vipocc priors depth --split train"
    if not workspace.store("anchors").is_dir():
        return "vipocc priors sam"
    try:
        find_checkpoint(workspace.runs, "last")
    except VipoccError:
        return "vipocc train"
    if not list(workspace.reports.glob("*-occupancy-*")):
        return "vipocc eval occupancy"
    return "vipocc view"


def _root(workspace: Workspace) -> Finding:
    if workspace.root.is_dir():
        return Finding(SECTION, "dataset", str(workspace.root), "good")
    if workspace.dataset == "synthetic":
        return Finding(SECTION, "dataset", "not generated yet: the first command that needs it does that")
    fix = f"correct `root` in {workspace.path / 'vipocc.yaml'}"
    return Finding(SECTION, "dataset", f"the dataset's root is gone: {workspace.root}", "fault", fix)


def _stores(workspace: Workspace) -> list[Finding]:
    paths = sorted(workspace.store("depth").parent.glob("*.zarr"))
    if not paths:
        return [Finding(SECTION, "stores", "none yet")]
    found = []
    for path in paths:
        try:
            report = status(path)
        except VipoccError as error:
            found.append(Finding(SECTION, path.stem, str(error), "fault", f"`vipocc stores verify {path.stem}`"))
            continue
        text = f"{report['done']:,} rows, {size(report['bytes'])}"
        if report["rejected"]:
            text += f", {len(report['rejected'])} units rejected by verify"
            found.append(Finding(SECTION, path.stem, text, "fault", "run the command that made it again"))
        elif report["running"]:
            found.append(Finding(SECTION, path.stem, f"{text}, being written", "good", "see `vipocc stores status`"))
        elif report["interrupted"]:
            found.append(
                Finding(SECTION, path.stem, f"{text}, interrupted", "note", "its command goes on where it stopped")
            )
        else:
            found.append(Finding(SECTION, path.stem, text, "good"))
    return found


def _runs(workspace: Workspace) -> list[Finding]:
    names = sorted(path.name for path in workspace.runs.glob("*") if path.is_dir())
    if not names:
        return [Finding(SECTION, "runs", "none yet")]
    try:
        last = find_checkpoint(workspace.runs, "last", names[-1]).name
    except VipoccError:
        last = "no checkpoint"
    return [Finding(SECTION, "runs", f"{len(names)}, the newest {names[-1]} ({last})", "good")]
