"""Original checkpoint files (`.pth`): found, checked whole, named in every record, and read without executing anything.

How a file is read, and what is refused, is `vipocc.torch_files`'.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import torch

from vipocc.errors import CheckpointError
from vipocc.licences import known_licence
from vipocc.priors.weights import Weights
from vipocc.torch_files import named_tensors, read_torch_file

ENDINGS = (".pth", ".pt")
"""Of names that mean an original checkpoint file."""

_WRAPPERS = ("model", "state_dict")


def is_pth(name: str) -> bool:
    """Tell whether `name` means an original checkpoint file rather than a folder or a hub id."""
    return name.lower().endswith(ENDINGS) and not Path(name).expanduser().is_dir()


def find_pth(name: str, option: str) -> Weights:
    """Return the original checkpoint file called `name`: its path stands in `folder`, its digest covers every byte.

    Args:
        name: path of a `*.pth` or `*.pt` file.
        option: the command-line option that names this model, for messages.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    path = Path(name).expanduser()
    if not is_pth(name):
        raise CheckpointError("not an original checkpoint (*.pth, *.pt)", where=name, fix=f"correct {option}")
    if not path.is_file():
        raise CheckpointError("there is no such checkpoint file", where=name, fix=f"correct {option}")
    path = path.resolve()
    status = path.stat()
    try:
        digest = _digest(str(path), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint cannot be read ({error.strerror})", where=path, fix=f"correct {option}"
        ) from None
    return Weights(name, path, None, digest, known_licence(path.name))


def load_pth(path: Path, option: str) -> dict[str, torch.Tensor]:
    """Return the tensors of an original checkpoint by name, on the CPU, read lazily from the file where it allows that.

    One wrapping of `{"model": ...}` or `{"state_dict": ...}` is taken off, and so is a prefix `module.` that all names
    have (what training on several GPUs leaves).

    Raises:
        CheckpointError: the file is absent, empty, truncated or damaged, asks for more than tensors, or holds none.
    """
    held = read_torch_file(
        path,
        again=f"download it again or correct {option}",
        trust=f"if you trust it, save its state_dict alone with torch.save, and give {option} that file",
    )
    if isinstance(held, dict):
        held = next((held[name] for name in _WRAPPERS if isinstance(held.get(name), dict)), held)
    return named_tensors(held, path, fix=f"give {option} a file that holds a network's state_dict")


@cache
def _digest(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
