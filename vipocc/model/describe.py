"""What a checkpoint is, told without building its network: ours (folder or hub id), or a released file."""

from __future__ import annotations

import json
import re
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vipocc.errors import CheckpointError
from vipocc.model import checkpoint
from vipocc.model.card import CARD, licences
from vipocc.model.hub import find_model
from vipocc.model.released import layout
from vipocc.model.released.importing import read_source, saved_config
from vipocc.model.released.reading import read_released
from vipocc.model.weights import shapes_of

PARTS = ("encoder", "decoder", "head", "depth_branch.encoder", "depth_branch.decoder", "depth_branch")
RELEASED_PARTS = {
    "encoder": layout.ENCODER,
    "decoder": layout.DECODER,
    "second decoder": layout.SECOND_DECODER,
    "head": layout.HEAD,
    "depth_branch.encoder": layout.BRANCH_ENCODER,
    "depth_branch.decoder": layout.BRANCH_DECODER,
}
_STEP = re.compile(r"step_(\d+)")


def describe(name: str, *, revision: str | None = None) -> dict[str, Any]:
    """Return what is known of a checkpoint, as plain values.

    Args:
        name: a checkpoint folder, a run's folder (its best checkpoint, else its last), a released `.pt`, or a hub id.
        revision: of a hub id.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return _released(path)
    run = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if run.is_dir() and any(_STEP.fullmatch(entry.name) for entry in run.iterdir()):
        return {**_ours(_of_run(run)), "steps": _steps(run)}
    return _ours(find_model(name, revision=revision))


def _ours(folder: Path) -> dict[str, Any]:
    config = checkpoint.read_config(folder)
    shapes = _shapes(folder / checkpoint.WEIGHTS)
    source = read_source(folder)
    try:
        values = _common(config, source)
    except (KeyError, TypeError, AttributeError):
        raise CheckpointError(
            "the checkpoint's configuration is not ours", where=folder / checkpoint.CONFIG, fix="name another folder"
        ) from None
    match = _STEP.fullmatch(folder.resolve().name)
    marker = folder.resolve().parent / checkpoint.BEST
    return {
        "kind": "checkpoint of vipocc" if source is None else f"checkpoint of vipocc, imported from {source['system']}",
        "path": str(folder),
        **values,
        "parameters": {"total": layout.count(shapes), "unused": 0},
        "parts": _parts(shapes),
        "step": int(match[1]) if match else (source or {}).get("iteration"),
        "best": marker.is_file() and marker.read_text(encoding="utf-8").strip() == folder.resolve().name,
        "source": source,
        "card": (folder / CARD).is_file(),
    }


def _released(path: Path) -> dict[str, Any]:
    released = read_released(path)
    shapes = shapes_of(released.tensors)
    unused = {name: shape for name, shape in released.unused.items() if name in shapes}
    source = {"file": path.name, "system": released.system, "iteration": released.iteration, "epoch": released.epoch}
    parts = {name: layout.count(shapes, prefix) for name, prefix in RELEASED_PARTS.items()}
    return {
        "kind": f"released checkpoint of {released.system}" + (" (training checkpoint)" if released.beside else ""),
        "path": str(path),
        **_common(saved_config(released), source),
        "parameters": {"total": released.parameters, "unused": layout.count(unused)},
        "parts": {name: count for name, count in parts.items() if count},
        "step": released.iteration,
        "best": False,
        "source": source,
        "card": False,
    }


def _common(config: dict[str, Any], source: dict[str, Any] | None) -> dict[str, Any]:
    model, data = config["model"], config.get("data", {})
    branch = model["depth_branch"]
    return {
        "profile": config.get("profile"),
        "preset": config.get("preset"),
        "convention": data.get("convention"),
        "image_size": data.get("image_size"),
        "encoder": model["encoder"]["name"],
        "head": model.get("head", {}).get("kind", "mlp"),
        "depth_branch": branch["kind"] + ("" if branch["kind"] == "none" else f" on {branch['encoder']['name']}"),
        "licences": licences(config, source),
    }


def _parts(shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Parameters of each part; what stands under none of its own is counted with the part that holds it."""
    parts = dict.fromkeys(PARTS, 0)
    for name, shape in shapes.items():
        if layout.is_buffer(name):
            continue
        part = next((part for part in sorted(PARTS, key=len, reverse=True) if name.startswith(part + ".")), "others")
        parts[part] = parts.get(part, 0) + prod(shape)
    return {part: count for part, count in parts.items() if count}


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(path, framework="numpy") as handle:
            return {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError("the checkpoint has no weights", where=path, fix="choose another checkpoint") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"the weights are truncated or damaged ({error})", where=path, fix="choose another checkpoint"
        ) from None


def _steps(checkpoints: Path) -> list[int]:
    matches = (_STEP.fullmatch(path.name) for path in checkpoints.iterdir() if (path / checkpoint.WEIGHTS).is_file())
    return sorted(int(match[1]) for match in matches if match)


def _of_run(checkpoints: Path) -> Path:
    steps = _steps(checkpoints)
    if not steps:
        raise CheckpointError("this run has no checkpoint", where=checkpoints, fix="name another folder")
    marker = checkpoints / checkpoint.BEST
    if marker.is_file() and (best := checkpoints / marker.read_text(encoding="utf-8").strip()).is_dir():
        return best
    return checkpoints / f"step_{steps[-1]}"


def as_text(values: dict[str, Any]) -> str:
    """Return a description as lines for a terminal."""
    rows = [("path", values["path"]), ("profile", values["profile"] or "not recorded")]
    rows += [("preset", values["preset"])] if values["preset"] else []
    size = values["image_size"]
    convention = f"{values['convention']} pixel convention"
    rows += [
        ("images", convention if size is None else f"{size[0]}x{size[1]}, {convention}"),
        ("encoder", values["encoder"]),
        ("density head", values["head"]),
        ("depth branch", values["depth_branch"]),
    ]
    if values["step"] is not None:
        rows.append(("step", f"{values['step']:,}" + (", the best of its run" if values["best"] else "")))
    if "steps" in values:
        rows.append(("steps kept", ", ".join(f"{step:,}" for step in values["steps"])))
    if values["source"] and values["source"].get("file"):
        rows.append(("from", values["source"]["file"]))
    total, unused = values["parameters"]["total"], values["parameters"]["unused"]
    rows.append(("parameters", f"{total:,}" + (f", {unused:,} of them in no prediction" if unused else "")))
    rows += [(f"  {part}", f"{count:,}") for part, count in values["parts"].items()]
    width = max(len(name) for name, _ in rows)
    lines = [values["kind"], *(f"{name:<{width}}  {value}" for name, value in rows)]
    return "\n".join([*lines, "licences", *(f"  {line}" for line in values["licences"])])


def as_json(values: dict[str, Any]) -> str:
    """Return a description as JSON."""
    return json.dumps(values, indent=1)
