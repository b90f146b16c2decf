"""Prompts of the training: which phrases are asked for, in what order, and which tokens each thing answers to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from vipocc.apps.embedded.pictures import KINDS
from vipocc.apps.embedded.vocabulary import ABSENT, PHRASES
from vipocc.priors.config import CLASSES, InstanceClass
from vipocc.priors.grounded_sam.phrases import phrase_blocks
from vipocc.priors.grounded_sam.prompt import build_prompt

_DEFAULT = tuple(phrase for entry in CLASSES for phrase in entry.phrases)


@dataclass(frozen=True)
class TokenisedPrompt:
    """A prompt of T tokens."""

    ids: torch.Tensor
    """int64 [1, T]."""
    sees: torch.Tensor
    """bool [1, T, T], see `phrase_blocks`."""
    positions: torch.Tensor
    """int64 [1, T], see `phrase_blocks`."""
    answers: torch.Tensor
    """float32 [kinds, T]: 1 at the tokens of phrases that things of a kind answer to; of kinds not asked for all 0."""

    def to(self, device: torch.device | str) -> TokenisedPrompt:
        """Return the same on a device."""
        return TokenisedPrompt(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def draw_phrases(generator: torch.Generator) -> tuple[str, ...]:
    """Return the phrases of one step: half of the time those of the default prompt, else some of all in any order."""
    if float(torch.rand((), generator=generator)) < 0.5:
        return _DEFAULT
    known = [phrase for group in PHRASES.values() for phrase in group]
    phrases = list(dict.fromkeys([*known, *_DEFAULT, *ABSENT]))
    order = torch.randperm(len(phrases), generator=generator).tolist()
    count = int(torch.randint(6, len(phrases) + 1, (), generator=generator))
    return tuple(phrases[k] for k in order[:count])


def tokenise(phrases: tuple[str, ...], tokenizer: Any) -> TokenisedPrompt:
    """Return the prompt of some phrases, built as the detector's engine builds that of a run."""
    classes = tuple(InstanceClass(label=phrase, phrases=(phrase,), sampling="uniform") for phrase in phrases)
    prompt = build_prompt(classes, tokenizer)
    ids = torch.tensor([prompt.input_ids])
    sees, positions = phrase_blocks(ids, tokenizer)
    spans = dict(zip(phrases, prompt.spans, strict=True))
    answers = torch.zeros(len(KINDS), ids.shape[1])
    for row, kind in enumerate(KINDS):
        for phrase in PHRASES[kind]:
            if phrase in spans:
                answers[row, slice(*spans[phrase])] = 1
    return TokenisedPrompt(ids, sees, positions, answers)
