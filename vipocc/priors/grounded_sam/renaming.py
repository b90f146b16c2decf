"""Names of tensors in two layouts of one network: templates that read both ways.

A template names a module or a tensor; `*` stands for a number. What follows the module's name is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch

from vipocc.errors import CheckpointError

Templates = Sequence[tuple[str, str]]
"""(official, transformers) names of modules."""
Fused = Sequence[tuple[str, tuple[str, ...]]]
"""An official tensor that stacks several of transformers' along its first axis, such as query, key and value."""


def rename(name: str, templates: Templates, *, back: bool = False) -> str | None:
    """Return `name` in the other layout, None where no template covers it; the first that fits counts."""
    for official, ours in templates:
        source, target = (ours, official) if back else (official, ours)
        found = re.fullmatch(re.escape(source).replace(r"\*", r"(\d+)") + r"(\..+)?", name)
        if found:
            *numbers, rest = found.groups()
            return _filled(target, numbers) + (rest or "")
    return None


def to_transformers(
    state: Mapping[str, torch.Tensor], templates: Templates, fused: Fused, unused: str
) -> dict[str, torch.Tensor]:
    """Return tensors of the official layout under transformers' names; those that match `unused` are left out.

    Raises:
        CheckpointError: tensors that neither the templates nor `unused` (a regular expression) know.
    """
    result: dict[str, torch.Tensor] = {}
    strange = []
    for name, tensor in state.items():
        parts = next((p for p in (_split(name, official, ours) for official, ours in fused) if p), None)
        if parts is not None:
            for part, piece in zip(parts, tensor.chunk(len(parts)), strict=True):
                result[part] = piece.contiguous()
        elif (new := rename(name, templates)) is not None:
            result[new] = tensor
        elif not re.fullmatch(unused, name):
            strange.append(name)
    check_names([], strange, "")
    return result


def to_official(
    state: Mapping[str, torch.Tensor], templates: Templates, fused: Fused, unused: str = ""
) -> dict[str, torch.Tensor]:
    """Return tensors of transformers' layout under the official names: the inverse of `to_transformers`.

    Raises:
        CheckpointError: tensors that neither the templates nor `unused` know.
    """
    result: dict[str, torch.Tensor] = {}
    strange = []
    for name, tensor in state.items():
        whole = next((w for w in (_join(name, official, ours) for official, ours in fused) if w), None)
        if whole is not None:
            target, siblings = whole
            if name == siblings[0]:
                check_names([each for each in siblings if each not in state], [], "")
                result[target] = torch.cat([state[each] for each in siblings])
        elif (new := rename(name, templates, back=True)) is not None:
            result[new] = tensor
        elif not re.fullmatch(unused, name):
            strange.append(name)
    check_names([], strange, "")
    return result


def check_names(missing: Sequence[str], unexpected: Sequence[str], where: object) -> None:
    """Raise `CheckpointError` naming the first tensors that a checkpoint lacks or has too many."""
    for names, what in ((missing, "misses"), (unexpected, "holds unknown")):
        if names:
            listed = ", ".join(sorted(names)[:3])
            raise CheckpointError(
                f"the checkpoint {what} {len(names)} tensors ({listed}{', …' if len(names) > 3 else ''})",
                where=where or None,
                fix="only Grounding DINO (Swin) and SAM (ViT) checkpoints can be read; check which file this is",
            )


def count(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    """Return how many numbered modules stand under `prefix`."""
    found = {match.group(1) for name in state if (match := re.match(re.escape(prefix) + r"\.(\d+)\.", name))}
    return len(found)


def shape(state: Mapping[str, torch.Tensor], name: str) -> tuple[int, ...]:
    """Return the shape of a tensor; raises `CheckpointError` if there is none of that name."""
    check_names([name] if name not in state else [], [], "")
    return tuple(state[name].shape)


def _filled(template: str, numbers: Sequence[str]) -> str:
    for number in numbers:
        template = template.replace("*", number, 1)
    return template


def _numbers(name: str, template: str) -> list[str] | None:
    found = re.fullmatch(re.escape(template).replace(r"\*", r"(\d+)"), name)
    return list(found.groups()) if found else None


def _split(name: str, official: str, ours: tuple[str, ...]) -> list[str] | None:
    numbers = _numbers(name, official)
    return None if numbers is None else [_filled(each, numbers) for each in ours]


def _join(name: str, official: str, ours: tuple[str, ...]) -> tuple[str, list[str]] | None:
    for each in ours:
        numbers = _numbers(name, each)
        if numbers is not None:
            return _filled(official, numbers), [_filled(sibling, numbers) for sibling in ours]
    return None
