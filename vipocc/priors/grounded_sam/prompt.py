"""The one prompt of a run, and boxes' classes read from the logits of its tokens.

The released code decodes the tokens above the text threshold into a phrase and keeps its first word; merged phrases
("car pedestrian") then take the class that comes first in the prompt, and sub-words crash it (published_system 2.2).
Here each phrase owns the tokens between its first and last character, and a box takes the class of the phrase that
its own logits support most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import CheckpointError, ConfigError
from vipocc.priors.config import InstanceClass


@dataclass(frozen=True)
class Prompt:
    """A tokenised prompt and which of its tokens say what."""

    text: str
    """All phrases, each ended by a full stop: `road. building. car.`"""
    input_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    """First and one past the last token of each phrase."""
    classes: tuple[int, ...]
    """Index of the class of each phrase: the merge table."""


def prompt_text(classes: Sequence[InstanceClass]) -> str:
    """Return the prompt of `classes`: their phrases in order, each ended by a full stop."""
    return " ".join(f"{phrase}." for entry in classes for phrase in entry.phrases)


def build_prompt(classes: Sequence[InstanceClass], tokenizer: Any, max_tokens: int = 256) -> Prompt:
    """Return the prompt of `classes` as `tokenizer` (a fast one, which knows character offsets) splits it.

    Raises:
        ConfigError: the prompt has more than `max_tokens` tokens.
        CheckpointError: the tokenizer does not know a phrase at all.
    """
    text = prompt_text(classes)
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    if len(ids) > max_tokens:
        raise ConfigError(
            f"the prompt has {len(ids)} tokens, the detector takes {max_tokens}", fix="shorten priors.sam.classes"
        )
    spans, owners, start = [], [], 0
    for index, entry in enumerate(classes):
        for phrase in entry.phrases:
            end = start + len(phrase)
            tokens = [k for k, (a, b) in enumerate(offsets) if a >= start and b <= end and b > a]
            if not tokens or all(ids[k] == tokenizer.unk_token_id for k in tokens):
                raise CheckpointError(
                    f"the detector's tokenizer does not know '{phrase}'",
                    where=getattr(tokenizer, "name_or_path", None),
                    fix="the folder needs the model's own tokenizer.json or vocab.txt, or change priors.sam.classes",
                )
            spans.append((tokens[0], tokens[-1] + 1))
            owners.append(index)
            start = end + 2  # the full stop and the blank
    return Prompt(text, tuple(ids), tuple(spans), tuple(owners))


def classify(
    probabilities: NDArray[np.float32], prompt: Prompt, text_threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return score [Q] and class [Q] (-1: none) of boxes with token probabilities [Q, T].

    The score is the highest probability of any token that belongs to a phrase, as published. The class is that of the
    supported phrase (one of its tokens above `text_threshold`) with the highest mean probability over its tokens;
    a word of several tokens is thereby no likelier to win than a short one.
    """
    best = np.stack([probabilities[:, a:b].max(1) for a, b in prompt.spans], 1)
    mean = np.stack([probabilities[:, a:b].mean(1) for a, b in prompt.spans], 1)
    supported = np.where(best > text_threshold, mean, -1.0)
    phrase = supported.argmax(1)
    classes = np.asarray(prompt.classes)[phrase]
    return best.max(1).astype(np.float32), np.where(supported.max(1) > 0, classes, -1).astype(np.int64)
