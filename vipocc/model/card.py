"""The model card beside a saved model: what it is, how to load it, and whose licences it stands under.

Filled from the configuration alone, so it says of training what the configuration says, and nothing of results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vipocc.licences import known_licence

CARD = "README.md"

_RELEASED_PRIORS = {
    "ViPOcc": "Pseudo-depth: Depth Anything V2, metric, ViT-L (licence cc-by-nc-4.0), in the released training.",
    "BTS": "Priors: none took part in the released training.",
}

_HEAD = """---
library_name: vipocc
pipeline_tag: depth-estimation
tags:
- 3d-occupancy
- monocular-depth
- autonomous-driving
---
<!-- State the licence of these weights above, as `license: ...`, before you publish them; see Licences below. -->

# {title}

{what}

## Use

```python
from vipocc import ViPOcc

model = ViPOcc.from_pretrained("FOLDER")  # this folder, or the id of a hub repository that holds it
features = model.encode(images)  # [B, 3, H, W] in [0, 1]
```

    vipocc eval occupancy --checkpoint FOLDER
"""


def model_card(config: Mapping[str, Any], parameters: int, source: Mapping[str, Any] | None = None) -> str:
    """Return a model card in Markdown.

    Args:
        config: the saved configuration as plain values; only `model` and `data.convention` must be in it.
        parameters: how many the model has.
        source: of an imported checkpoint, what is known of the file (see `vipocc.model.released.importing`).
    """
    model = config["model"]
    branch = model["depth_branch"]["kind"] != "none"
    what = (
        "Density field of a street scene (3D occupancy)"
        + (" and metric depth" if branch else "")
        + " from a single image, by vipocc, which follows ViPOcc (Feng et al., AAAI 2025) and BTS (Wimbauer et al., "
        "CVPR 2023)."
    )
    title = "BTS" if config.get("preset") == "bts" else "ViPOcc"
    parts = [
        _HEAD.format(title=title, what=what),
        "## Model\n\n" + _table(_model_rows(config, parameters)),
        "## Training\n\n" + _training(config, source),
        "## Licences\n\n" + "\n".join(f"- {line}" for line in licences(config, source)),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _model_rows(config: Mapping[str, Any], parameters: int) -> list[tuple[str, str]]:
    model, data = config["model"], config.get("data", {})
    branch = model["depth_branch"]
    size = data.get("image_size")
    rows = [
        ("parameters", f"{parameters:,}"),
        ("profile", str(config.get("profile", "not recorded"))),
        ("pixel convention", str(data.get("convention"))),
        ("image size", "not recorded" if size is None else f"{size[0]}x{size[1]}"),
        ("encoder", str(model["encoder"]["name"])),
        ("density head", str(model.get("head", {}).get("kind", "mlp"))),
        ("distances", f"{model['field']['near']:g} to {model['field']['far']:g} m"),
        ("depth branch", str(branch["kind"])),
    ]
    if branch["kind"] != "none":
        rows.append(("its encoder", str(branch["encoder"]["name"])))
    return rows


def _training(config: Mapping[str, Any], source: Mapping[str, Any] | None) -> str:
    if source is not None:
        trained = "" if source.get("iteration") is None else f", after {source['iteration']:,} iterations"
        return (
            f"Trained with the released {source['system']} code and imported from `{source['file']}` "
            f"(SHA-256 `{source['sha256']}`){trained}."
        )
    training = config.get("training")
    if not training:
        return "Not recorded in the configuration."
    names = [name for name in ("epochs", "batch_size", "learning_rate") if name in training]
    rows = [("preset", str(config.get("preset"))), *((name.replace("_", " "), f"{training[name]:g}") for name in names)]
    return _table(rows)


def licences(config: Mapping[str, Any], source: Mapping[str, Any] | None) -> list[str]:
    """Return under whose terms the weights stand, a sentence each; arguments as `model_card`."""
    lines = []
    if source is not None:
        lines.append(
            f"The weights are those of `{source['file']}`, whose authors' terms hold; the file itself states none."
        )
    lines.append("Images and poses: the terms of the dataset (KITTI-360 and KITTI allow non-commercial use only).")
    lines += _priors(config) if source is None else [_RELEASED_PRIORS[str(source["system"])]]
    begun = sorted({str(part["pretrained"]) for part in _encoders(config["model"])} - {"none"})
    if begun:
        lines.append(
            f"Image encoders began from {' and '.join(begun)} weights; those of ImageNet come with torchvision."
        )
    return lines


def _priors(config: Mapping[str, Any]) -> list[str]:
    """Which foundation models supervised the training: their terms may reach the weights that learnt from them."""
    priors = config.get("priors")
    needs_depth = config["model"]["depth_branch"]["kind"] in ("inverse_residual", "residual")
    if not priors:
        return ["Priors: which models supervised the training is not recorded in the configuration."]
    kinds = priors.get("kinds", {})
    training = config.get("training", {})
    lines = []
    if needs_depth:
        lines.append(
            "Pseudo-depth: " + _model(kinds.get("depth"), "depth-anything-v2", priors.get("depth", {}), ("model",))
        )
    if "snog" in (training.get("sampler"), training.get("depth_sampler")):
        names = ("detector", "segmenter")
        lines.append("Instances: " + _model(kinds.get("instances"), "grounded-sam", priors.get("sam", {}), names))
    return lines or ["Priors: none took part."]


def _model(source: str | None, own: str, section: Mapping[str, Any], names: tuple[str, ...]) -> str:
    if source == "simulated":
        return "simulated from the synthetic world's exact truth."
    if source not in (None, "auto", own):
        return f"by the source `{source}`, whose terms hold."
    models = [str(section[name]) for name in names if name in section]
    stated = " and ".join(f"`{model}` (licence {known_licence(model)})" for model in models)
    return stated + ("; on the synthetic dataset simulated from exact truth instead." if source != own else ".")


def _encoders(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    branch = model["depth_branch"]
    return [model["encoder"]] + ([branch["encoder"]] if branch["kind"] != "none" else [])


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]) + "\n"
