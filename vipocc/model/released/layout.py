"""Names in released checkpoints of ViPOcc and BTS, and the entries in them that nothing ever reads.

Facts are those of published_system.md, section 3.8: ViPOcc's file has 534 entries, BTS's 356 (no second decoder, no
depth branch). Ours are the entries that take part in a prediction; the others stand in `unused_entries`, each with its
shape, and an entry that is in neither is unexpected.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import pi, prod

import torch
from torch import Tensor

ENCODER = "renderer.net.encoder.encoder.encoder."
DECODER = "renderer.net.encoder.decoder.decoder."
SECOND_DECODER = "renderer.net.encoder.depth_decoder.decoder."
HEAD = "renderer.net.mlp_coarse."
CODE = "renderer.net.code_xyz."
RENDERER = "renderer.renderer."
BRANCH = "res_inv_depth."
BRANCH_ENCODER = BRANCH + "encoder.encoder."
BRANCH_DECODER = BRANCH + "decoder.decoder."

STAGES = 5
CLASSES = 1000
SECOND_WIDTHS = (32, 32, 64, 128, 256)
"""Decoder channels as configured, finest first, which the one-channel decoder keeps; the other raises them to 64."""

_RENAMED = (
    (r"depth_branch\.encoder\.", BRANCH_ENCODER),
    (r"encoder\.", ENCODER),
    (r"head\.hidden\.", HEAD + "lin_in."),
    (r"head\.output\.", HEAD + "lin_out."),
)
_BRANCH_DECODER = r"depth_branch\.decoder\."
_DECODER = r"decoder\."
_CONVOLUTION = re.compile(r"(before|after)\.(\d)\.conv\.(weight|bias)")
_OUTPUT = re.compile(r"output\.(weight|bias)")


def released_name(ours: str) -> str | None:
    """Return the name that one of our tensors has in a released file, None where that layout has no place for it.

    A decoder counts its convolutions coarsest stage first, two a stage, then four outputs, of which the first (the
    finest) is the one that is read.
    """
    for pattern, prefix in _RENAMED:
        match = re.match(pattern, ours)
        if match:
            return prefix + ours[match.end() :]
    for pattern, prefix in ((_BRANCH_DECODER, BRANCH_DECODER), (_DECODER, DECODER)):
        match = re.match(pattern, ours)
        if not match:
            continue
        rest = ours[match.end() :]
        if found := _CONVOLUTION.fullmatch(rest):
            index = 2 * int(found[2]) + (found[1] == "after")
            return f"{prefix}{index}.conv.conv.{found[3]}"
        if found := _OUTPUT.fullmatch(rest):
            return f"{prefix}{2 * STAGES}.conv.{found[1]}"
    return None


def unused_entries(
    encoder_channels: Sequence[int],
    widths: Sequence[int],
    channels: int,
    frequencies: int,
    branch: tuple[Sequence[int], Sequence[int]] | None,
) -> dict[str, tuple[int, ...]]:
    """Return the entries of a released file that take part in no prediction, with their shapes.

    Args:
        encoder_channels: of the occupancy branch's encoder levels, finest first.
        widths: of its decoder's stages, finest first.
        channels: of the features.
        frequencies: of the positional code.
        branch: encoder channels and decoder widths of the depth branch; None for BTS, which has neither it nor the
            second decoder.
    """
    entries = {
        **_classifier(ENCODER, encoder_channels[-1]),
        **_coarser_outputs(DECODER, widths, channels),
        CODE + "_freqs": (1, 2 * frequencies, 1),
        CODE + "_phases": (1, 2 * frequencies, 1),
        RENDERER + "iter_idx": (),
        RENDERER + "last_sched": (),
    }
    if branch is not None:
        levels, branch_widths = branch
        entries |= _whole_decoder(SECOND_DECODER, encoder_channels, SECOND_WIDTHS, 1)
        entries |= _classifier(BRANCH_ENCODER, levels[-1])
        entries |= _coarser_outputs(BRANCH_DECODER, branch_widths, 1)
    return entries


def is_buffer(name: str) -> bool:
    """Whether an entry is no parameter: running statistics, codes and counters."""
    return name.startswith((CODE, RENDERER)) or name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def count(entries: dict[str, tuple[int, ...]], prefix: str = "") -> int:
    """Return how many parameters stand under a prefix, buffers left out."""
    return sum(prod(shape) for name, shape in entries.items() if name.startswith(prefix) and not is_buffer(name))


def code_frequencies(frequencies: int, base: float) -> Tensor:
    """Return the buffer [1, 2 frequencies, 1] of a positional code: each frequency twice, for sine and cosine."""
    octaves = base * 2.0 ** torch.arange(frequencies)
    return octaves.repeat_interleave(2)[None, :, None]


def code_phases(frequencies: int) -> Tensor:
    """Return its phases, 0 and pi/2 by turns."""
    return torch.tensor([0.0, pi * 0.5]).repeat(frequencies)[None, :, None]


def _classifier(prefix: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {prefix + "fc.weight": (CLASSES, channels), prefix + "fc.bias": (CLASSES,)}


def _convolution(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}


def _coarser_outputs(prefix: str, widths: Sequence[int], channels: int) -> dict[str, tuple[int, ...]]:
    """The outputs at 1/2, 1/4 and 1/8 of the size, which are computed and dropped."""
    entries: dict[str, tuple[int, ...]] = {}
    for scale in (1, 2, 3):
        entries |= _convolution(f"{prefix}{2 * STAGES + scale}.conv", widths[scale], channels)
    return entries


def _whole_decoder(
    prefix: str, encoder_channels: Sequence[int], widths: Sequence[int], channels: int
) -> dict[str, tuple[int, ...]]:
    entries: dict[str, tuple[int, ...]] = {}
    inputs = encoder_channels[-1]
    for index, stage in enumerate(range(STAGES - 1, -1, -1)):
        skip = encoder_channels[stage - 1] if stage else 0
        entries |= _convolution(f"{prefix}{2 * index}.conv.conv", inputs, widths[stage])
        entries |= _convolution(f"{prefix}{2 * index + 1}.conv.conv", widths[stage] + skip, widths[stage])
        inputs = widths[stage]
    entries |= _convolution(f"{prefix}{2 * STAGES}.conv", inputs, channels)
    return entries | _coarser_outputs(prefix, widths, channels)
