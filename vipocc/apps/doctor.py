"""What this machine offers, and whether a workspace is sound."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

from vipocc.cli import App
from vipocc.errors import VipoccError
from vipocc.progress import size

#: Modules rather than distributions, since some come under several names (opencv-python, opencv-python-headless).
MODULES = ("torch", "torchvision", "transformers", "zarr", "tensorstore", "numpy", "cv2", "embreex")


def examine(app: App) -> bool:
    """Print one line per finding; return whether nothing is wrong.

    No workspace is not a fault: the machine alone is described then.
    """
    app.say(f"python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    sound = True
    distributions = importlib.metadata.packages_distributions()
    for module in MODULES:
        names = sorted(set(distributions.get(module, ())))
        if names:
            app.say(", ".join(f"{name} {importlib.metadata.version(name)}" for name in names))
        else:
            app.say(f"{module} MISSING; run `pip install -e .` again")
            sound = False
    app.say(_gpu())
    try:
        workspace = app.workspace
    except VipoccError as error:
        app.say(str(error))
        app.say(f"disk: {size(shutil.disk_usage(Path.cwd()).free)} free")
        return sound
    app.say(f"workspace {workspace.path}: {workspace.dataset} at {workspace.root}, preset '{workspace.preset}'")
    app.say(f"disk: {size(shutil.disk_usage(workspace.path).free)} free")
    try:
        app.config  # noqa: B018 - resolving it is the check
    except VipoccError as error:
        app.say(f"configuration: {error}")
        sound = False
    return _stages(app) and sound


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"no CUDA device (torch {torch.__version__}); training runs on the CPU, slowly"
    parts = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        parts.append(f"cuda:{index} {properties.name}, {size(properties.total_memory)}")
    return "; ".join(parts)


def _stages(app: App) -> bool:
    workspace = app.workspace
    sound = workspace.root.is_dir() or workspace.dataset == "synthetic"
    if not sound:
        app.say(f"the dataset's root is gone: {workspace.root}; correct it in {workspace.path / 'vipocc.yaml'}")
    app.say(f"manifest: {'there' if workspace.manifest.is_file() else 'not yet (vipocc data index)'}")
    stores = sorted((workspace.path / "stores" / workspace.dataset).glob("*.zarr"))
    app.say(f"stores: {', '.join(path.stem for path in stores) or 'none yet (vipocc priors depth)'}")
    runs = sorted(path.name for path in workspace.runs.glob("*") if path.is_dir())
    app.say(f"runs: {', '.join(runs) or 'none yet (vipocc train)'}")
    return sound
