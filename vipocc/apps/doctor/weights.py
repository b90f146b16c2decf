"""The foundation models that the configuration names: whether their weights are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vipocc.apps.doctor.findings import Finding
from vipocc.priors.sources import chosen
from vipocc.progress import size
from vipocc.workspace import Workspace

FILES = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
"""Any of which a model on the hub keeps its weights in."""


def look_at_weights(workspace: Workspace, config: Any) -> list[Finding]:
    """Return where the weights are that `vipocc priors` would use; nothing is loaded and nothing fetched."""
    asked: dict[str, tuple[str, str | None]] = {}
    if chosen("depth", config.priors, workspace.dataset) == "depth-anything-v2":
        asked["depth"] = (config.priors.depth.model, config.priors.depth.revision)
    if chosen("instances", config.priors, workspace.dataset) == "grounded-sam":
        sam = config.priors.sam
        asked["detector"] = (sam.detector, sam.detector_revision)
        asked["segmenter"] = (sam.segmenter, sam.segmenter_revision)
    if not asked:
        return [
            Finding("weights", "priors", "none needed: they are simulated or from sources of other packages", "good")
        ]
    return [_look(name, model, revision) for name, (model, revision) in asked.items()]


def _look(name: str, model: str, revision: str | None) -> Finding:
    path = Path(model).expanduser()
    if path.exists():
        bytes_ = (
            sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
            if path.is_dir()
            else path.stat().st_size
        )
        return Finding("weights", name, f"{model}, {size(bytes_)} on disk", "good")
    if ":" in model:
        return Finding("weights", name, f"{model}, in the package", "good")
    from huggingface_hub import try_to_load_from_cache

    held = [try_to_load_from_cache(model, file, revision=revision) for file in FILES]
    there = next((Path(one) for one in held if isinstance(one, str)), None)
    if there is not None:
        return Finding("weights", name, f"{model}, {size(there.stat().st_size)} in the hub's cache", "good")
    fix = f"`hf download {model}` on a machine with network, or name a folder or a file"
    return Finding("weights", name, f"{model} is not on this machine: the first run fetches it", fix=fix)
