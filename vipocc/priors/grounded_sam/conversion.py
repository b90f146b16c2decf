"""Grounding DINO and SAM from one checkpoint layout into the other, whole files and folders.

Official: one `.pth` with tensors alone. transformers: a folder with config.json, model.safetensors and, for the
detector, the tokenizer. What is written is written aside and renamed, after it was loaded once as a check.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from vipocc.errors import CheckpointError, UsageError
from vipocc.priors.grounded_sam.dino_layout import dino_config, dino_sizes, dino_to_official, dino_to_transformers
from vipocc.priors.grounded_sam.sam_layout import sam_config, sam_sizes, sam_to_official, sam_to_transformers
from vipocc.priors.grounded_sam.tokenizer import find_tokenizer, read_tokenizer
from vipocc.priors.pth import find_pth, is_pth, load_pth
from vipocc.priors.weights import Weights, find_weights, load_model, quiet_transformers, read_config

Kind = Literal["grounding-dino", "sam"]

_ARGUMENT = "the first argument"


def kind_of(state: Mapping[str, torch.Tensor], where: object) -> Kind:
    """Return what network a checkpoint in the official layout is of; raises `CheckpointError` for any other."""
    if "transformer.tgt_embed.weight" in state:
        return "grounding-dino"
    if "image_encoder.pos_embed" in state:
        return "sam"
    raise CheckpointError(
        "the checkpoint is neither a Grounding DINO nor a SAM in the official layout",
        where=where,
        fix="give an official .pth such as groundingdino_swint_ogc.pth or sam_vit_h_4b8939.pth",
    )


def convert(source: str, target: Path, tokenizer: str) -> Kind:
    """Convert `source` into `target`: a `.pth` into a folder, or a folder (or hub id) into a `.pth`.

    Args:
        source: what to read.
        target: what to write; it must not be there yet.
        tokenizer: hub id or folder of the tokenizer for a detector's folder; one beside the `.pth` comes first.

    Raises:
        CheckpointError: `source` is no Grounding DINO or SAM, or not all of one.
        UsageError: `target` exists, or is of the layout that `source` has.
    """
    if target.exists():
        raise UsageError("the target exists already", where=target, fix="name another, or remove it")
    if is_pth(source) == is_pth(str(target)):
        raise UsageError(
            "one of source and target must be a .pth file and the other a folder", where=target, fix="correct the names"
        )
    if is_pth(source):
        return pth_to_folder(find_pth(source, _ARGUMENT).folder, target, tokenizer)
    return folder_to_pth(source, target)


def pth_to_folder(path: Path, folder: Path, tokenizer: str) -> Kind:
    """Write the official checkpoint `path` as a folder that `from_pretrained` reads; errors as for `convert`."""
    from safetensors.torch import save_file
    from transformers import GroundingDinoForObjectDetection, SamModel

    state = load_pth(path, _ARGUMENT)
    kind = kind_of(state, path)
    config: Any
    if kind == "grounding-dino":
        config, tensors = dino_config(dino_sizes(state)), dino_to_transformers(state)
        words = read_tokenizer(find_tokenizer(tokenizer, path))
    else:
        config, tensors, words = sam_config(sam_sizes(state)), sam_to_transformers(state), None
    architecture = GroundingDinoForObjectDetection if kind == "grounding-dino" else SamModel
    config.architectures = [architecture.__name__]
    with _aside(folder) as aside:
        aside.mkdir(parents=True)
        with quiet_transformers():
            config.save_pretrained(aside)
            if words is not None:
                words.save_pretrained(aside)
        save_file(
            {name: tensor.contiguous().clone() for name, tensor in tensors.items()},
            aside / "model.safetensors",
            metadata={"format": "pt"},
        )
        load_model(architecture, find_weights(str(aside), None, _ARGUMENT), _ARGUMENT)
    return kind


def folder_to_pth(name: str, path: Path) -> Kind:
    """Write a folder or hub id of transformers' layout as an official checkpoint; errors as for `convert`."""
    from safetensors.torch import load_file

    weights = find_weights(name, None, _ARGUMENT)
    kind = _kind_of_folder(weights)
    state: dict[str, torch.Tensor] = {}
    for file in sorted(weights.folder.glob("*.safetensors")):
        state |= load_file(file)
    official = dino_to_official(state) if kind == "grounding-dino" else sam_to_official(state)
    with _aside(path) as aside:
        aside.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"model": official} if kind == "grounding-dino" else official, aside)
    return kind


def _kind_of_folder(weights: Weights) -> Kind:
    try:
        read_config(weights, "sam", _ARGUMENT)
    except CheckpointError:
        read_config(weights, "grounding-dino", _ARGUMENT)
        return "grounding-dino"
    return "sam"


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """Give a place beside `target` to write to, which becomes it if all goes well and is gone if not."""
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield aside
        aside.rename(target)
    finally:
        if aside.is_dir():
            shutil.rmtree(aside)
        aside.unlink(missing_ok=True)
