"""Writes a trained network as real ones are published: config, float16 safetensors, processor, tokenizer, card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from vipocc.apps.embedded.architectures import DEPTH_SIZE, DETECTOR_SIZE, SEGMENTER_SIDE
from vipocc.apps.embedded.batches import IMAGENET_MEAN, IMAGENET_STD
from vipocc.apps.embedded.vocabulary import tokenizer
from vipocc.errors import NonFiniteError
from vipocc.priors.embedded import EmbeddedModel
from vipocc.priors.weights import quiet_transformers

RECORD = "training.json"
_ABOUT = {
    "depth": ("Depth Anything V2 (metric)", "depth-estimation"),
    "detector": ("Grounding DINO", "zero-shot-object-detection"),
    "segmenter": ("SAM", "mask-generation"),
}


def save_model(name: EmbeddedModel, network: Any, folder: Path, record: Mapping[str, Any]) -> Path:
    """Write a network and what belongs to it into `folder`, replacing what lies there.

    Args:
        name: which of the three it is.
        network: of transformers' class, on any device; it keeps its own precision.
        folder: where to.
        record: how it was trained, for the card and `training.json`.

    Raises:
        NonFiniteError: a weight does not fit half precision.
    """
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    halved = deepcopy(network).cpu().half()
    for key, value in halved.state_dict().items():
        if not torch.isfinite(value).all():
            raise NonFiniteError(f"the weight {key} does not fit half precision", where=folder, fix="train again")
    with quiet_transformers():
        halved.save_pretrained(aside)
        image_processor(name).save_pretrained(aside)
        if name == "detector":
            tokenizer().save_pretrained(aside)
    (aside / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (aside / "README.md").write_text(card(name, record), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return folder


def image_processor(name: EmbeddedModel) -> Any:
    """Return the image processor of a model, which carries the size that it was trained at."""
    from transformers import DPTImageProcessor, GroundingDinoImageProcessor, SamImageProcessor

    normal = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
    if name == "depth":
        size = {"height": DEPTH_SIZE[0], "width": DEPTH_SIZE[1]}
        # resample 3 is cubic; one size for all images, whatever their aspect.
        return DPTImageProcessor(size=size, keep_aspect_ratio=False, ensure_multiple_of=14, resample=3, **normal)
    if name == "detector":
        size = {"shortest_edge": DETECTOR_SIZE[0], "longest_edge": DETECTOR_SIZE[1]}
        return GroundingDinoImageProcessor(size=size, do_pad=False, **normal)
    side = {"height": SEGMENTER_SIDE, "width": SEGMENTER_SIDE}
    return SamImageProcessor(size={"longest_edge": SEGMENTER_SIDE}, pad_size=side, **normal)


def card(name: EmbeddedModel, record: Mapping[str, Any]) -> str:
    """Return the model's card; its head states the licence, which stores record."""
    architecture, task = _ABOUT[name]
    figures = "".join(f"| {key} | {value} |\n" for key, value in record.get("metrics", {}).items())
    return (
        f"---\nlicense: mit\nlibrary_name: transformers\npipeline_tag: {task}\ntags: [vipocc, synthetic]\n---\n"
        f"# vipocc embedded:{name}\n\n"
        f"A small {architecture} in transformers' own format, trained from nothing on vipocc's synthetic streets by\n"
        "`python -m vipocc.apps.embedded`. No real picture, no other model and no dataset of others went into it.\n"
        "It is for the demo, tests and trial runs: of real pictures it knows nothing.\n\n"
        "| measured on synthetic drives that it was not trained on | |\n|---|---|\n"
        f"{figures}\n"
        f"How it was trained stands in `{RECORD}`: worlds and seeds, steps, commit, versions.\n"
    )
