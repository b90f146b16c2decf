"""Original checkpoint files (`.pth`): found, checked whole, named in every record, and read without executing anything.

A `.pth` is a pickle, and a pickle may call whatever it likes. Here only tensors and plain containers are unpickled
(torch's `weights_only`); a file that asks for anything else is refused by the name of what it asked for.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from functools import cache
from pathlib import Path

import torch

from vipocc.errors import CheckpointError
from vipocc.priors.weights import Weights

ENDINGS = (".pth", ".pt")
"""Of names that mean an original checkpoint file."""

PTH_LICENCES = {
    r"depth_anything_v2(_metric_(vkitti|hypersim))?_vits": "apache-2.0",
    r"depth_anything_v2(_metric_(vkitti|hypersim))?_vit[blg]": "cc-by-nc-4.0",
    r"groundingdino_swint_ogc": "apache-2.0",
    r"groundingdino_swinb_cogcoor": "apache-2.0",
    r"sam_vit_b_01ec64": "apache-2.0",
    r"sam_vit_l_0b3195": "apache-2.0",
    r"sam_vit_h_4b8939": "apache-2.0",
}
"""Licences of the official files by their names (patterns, without the ending); a file itself states none."""

_WRAPPERS = ("model", "state_dict")
_REFUSED = re.compile(r"(?:GLOBAL|global|class) (\S+?)(?: was not|\.? |$)")


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
    return Weights(name, path, None, digest, pth_licence(path.name))


def pth_licence(name: str) -> str:
    """Return the licence of the official file called `name`, `unknown` for any other."""
    stem = Path(name).stem.lower()
    return next((licence for pattern, licence in PTH_LICENCES.items() if re.fullmatch(pattern, stem)), "unknown")


def load_pth(path: Path, option: str) -> dict[str, torch.Tensor]:
    """Return the tensors of an original checkpoint by name, on the CPU, read lazily from the file where it allows that.

    One wrapping of `{"model": ...}` or `{"state_dict": ...}` is taken off, and so is a prefix `module.` that all names
    have (what training on several GPUs leaves).

    Raises:
        CheckpointError: the file is absent, empty, truncated or damaged, asks for more than tensors, or holds none.
    """
    again = f"download it again or correct {option}"
    try:
        zipped = _is_zip(path)
        if zipped:
            status = path.stat()
            bad = _bad_member(str(path), status.st_size, status.st_mtime_ns)
            if bad is not None:
                raise CheckpointError(f"the checkpoint is damaged ({bad})", where=path, fix=again)
        # The older format, one pickle after another, cannot be mapped into memory.
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise _refused(path, error, option, again) from None
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint cannot be read ({error.strerror or type(error).__name__})", where=path, fix=again
        ) from None
    except Exception as error:  # torch raises a dozen kinds for bytes that are no checkpoint
        raise CheckpointError(
            f"the checkpoint is empty, truncated or damaged ({type(error).__name__})", where=path, fix=again
        ) from None
    return _state(held, path, option)


def _state(held: object, path: Path, option: str) -> dict[str, torch.Tensor]:
    if isinstance(held, dict):
        held = next((held[name] for name in _WRAPPERS if isinstance(held.get(name), dict)), held)
    wrong = f"give {option} a file that holds a network's state_dict"
    if not isinstance(held, dict) or not held:
        raise CheckpointError("the checkpoint holds no tensors by name", where=path, fix=wrong)
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"the checkpoint holds {name!r}, a {type(value).__name__}, where tensors by name are expected",
                where=path,
                fix=wrong,
            )
    if all(name.startswith("module.") for name in held):
        held = {name.removeprefix("module."): value for name, value in held.items()}
    return dict(held)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        raise EOFError
    return head == b"PK\x03\x04"


@cache
def _bad_member(path: str, size: int, mtime_ns: int) -> str | None:
    """Return what is wrong with a zip: a mapped file is read without checks, and altered weights look like weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        return str(error)
    return None if bad is None else f"the checksum of {bad} differs"


def _refused(path: Path, error: Exception, option: str, again: str) -> CheckpointError:
    named = _REFUSED.search(str(error))
    if named is None:
        return CheckpointError("the checkpoint is damaged (its pickle cannot be read)", where=path, fix=again)
    return CheckpointError(
        f"the checkpoint asks for '{named.group(1)}', and only tensors are read from a file that could run code",
        where=path,
        fix=f"if you trust it, save its state_dict alone with torch.save, and give {option} that file",
    )


@cache
def _digest(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
