"""The words that the embedded detector's text encoder can read: a WordPiece vocabulary of 1,030 entries.

A word that is not in it falls apart into letters, so any prompt in Latin letters can be written; what the detector was
never shown it does not find. Numbers of the special tokens are BERT's own: Grounding DINO finds the ends of phrases by
them (101 [CLS], 102 [SEP], 1012 full stop, 1029 question mark), whatever the vocabulary.
"""

from __future__ import annotations

import string
from typing import Any

SIZE = 1030
_SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}

_MORE_LETTERS = "ßæøðþłœ"
"""Latin letters that lose no accent when text is made plain."""

PHRASES: dict[str, tuple[str, ...]] = {
    "ground": ("road",),
    "sky": ("sky",),
    "building": ("building", "house"),
    "vegetation": ("vegetation", "tree"),
    "car": ("car", "vehicle"),
    "person": ("pedestrian", "person"),
    "pole": ("pole",),
    "sign": ("traffic sign",),
    "fence": ("fence",),
    "bin": ("bin",),
}
"""What each kind of thing in the synthetic world is called in prompts of the training; all phrases of one are true."""

ABSENT = (
    *("rider", "truck", "caravan", "bus", "bicycle", "motorcycle", "train", "dog", "cat", "boat", "chair", "table"),
    *("traffic light", "bench", "horse", "airplane", "bird", "cow", "mountain", "sidewalk", "wall"),
)
"""Phrases asked for that nothing in the synthetic world answers to: the detector learns to say no."""


def vocabulary() -> dict[str, int]:
    """Return the number of every token: special ones, punctuation, digits, letters and the words of the training."""
    pieces = [*string.ascii_lowercase, *_MORE_LETTERS, *string.digits]
    marks = [mark for mark in string.punctuation if mark not in _SPECIAL]
    words = [word for group in (*PHRASES.values(), ABSENT) for phrase in group for word in phrase.split()]
    tokens = dict.fromkeys([*marks, *pieces, *(f"##{piece}" for piece in pieces), *words])
    numbers = dict(_SPECIAL)
    free = (number for number in range(SIZE) if number not in _SPECIAL.values())
    numbers |= {token: next(free) for token in tokens if token not in numbers}
    # No gaps: ids index the embedding, and some readers refuse a vocabulary with holes.
    numbers |= {f"[unused{number}]": number for number in free}
    return dict(sorted(numbers.items(), key=lambda entry: entry[1]))


def tokenizer() -> Any:
    """Return the tokenizer, in transformers' own class."""
    from transformers import BertTokenizer

    return BertTokenizer(vocab=vocabulary(), do_lower_case=True, model_max_length=256)
