"""Where the detector's tokenizer comes from: a folder, the file's own folder, or the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vipocc.errors import CheckpointError
from vipocc.priors.weights import quiet_transformers

_FILES = ("tokenizer.json", "vocab.txt")
_WANTED = ["tokenizer*.json", "vocab.txt", "special_tokens_map.json", "config.json"]


def read_tokenizer(folder: Path) -> Any:
    """Return the tokenizer that lies in `folder`; raises `CheckpointError` if it cannot be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for absent or damaged tokenizer files
        raise CheckpointError(
            f"the detector's tokenizer cannot be read ({type(error).__name__})",
            where=folder,
            fix="the folder needs tokenizer.json or vocab.txt beside the weights",
        ) from None


def find_tokenizer(name: str, beside: Path) -> Path:
    """Return the folder with the tokenizer of a detector that is one file.

    A folder given by `name` comes first, then what lies beside the file `beside`, then the hub's cache, then the hub.

    Raises:
        CheckpointError: there is none, and none can be fetched.
    """
    for folder in (Path(name).expanduser(), beside.parent):
        if any((folder / file).is_file() for file in _FILES):
            return folder.resolve()
    if "/" not in name or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise CheckpointError(
            "there is no tokenizer (tokenizer.json or vocab.txt)", where=name, fix="correct --tokenizer"
        )
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        cached = Path(snapshot_download(name, local_files_only=True, allow_patterns=_WANTED))
        if any((cached / file).is_file() for file in _FILES):
            return cached
    except (OSError, ValueError):
        pass  # not in the cache: the hub is asked next
    reason = "HF_HUB_OFFLINE is set"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() not in {"1", "ON", "YES", "TRUE"}:
        try:
            with quiet_transformers():
                return Path(snapshot_download(name, allow_patterns=_WANTED))
        except Exception as error:  # the hub's client raises its own, httpx's and the operating system's kinds
            reason = type(error).__name__
    raise CheckpointError(
        f"the tokenizer '{name}' is not on this machine and cannot be fetched from the hub ({reason})",
        fix="put BERT's tokenizer.json or vocab.txt beside the .pth, or give --tokenizer FOLDER",
    )
