"""Which tokens of a prompt belong together: those of one phrase see each other, and are counted from its start.

Grounding DINO's text encoder and the text layers of its encoder both work so. transformers makes the same of a prompt
in some versions and not in others (5.17 counts full stops as -1 and rounds the embedded positions to whole numbers),
so the blocks are made here.
"""

from __future__ import annotations

from typing import Any

import torch

DELIMITERS = ("[CLS]", "[SEP]", ".", "?")
"""What ends a phrase, and belongs to it."""


def phrase_blocks(ids: torch.Tensor, tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the tokens `ids` [B, T] of prompts see, bool [B, T, T], and their positions int64 [B, T].

    A prompt starts with [CLS] and ends with a full stop and [SEP]; these two see themselves alone.
    """
    ends = torch.isin(ids, torch.tensor(tokenizer.convert_tokens_to_ids(list(DELIMITERS))))
    phrase = ends.cumsum(1) - ends.long()  # how many phrases ended before
    sees = phrase[:, :, None] == phrase[:, None, :]
    before = sees.tril(-1)  # of the same phrase and to the left
    return sees, before.sum(2)
