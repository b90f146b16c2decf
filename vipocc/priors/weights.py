"""Foundation-model weights: found on disk or the hub, checked whole, and named exactly in every record.

Only safetensors are read, so nothing in a checkpoint is executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vipocc.errors import CheckpointError
from vipocc.licences import known_licence
from vipocc.priors.embedded import embedded_folder, is_embedded

if TYPE_CHECKING:
    import torch

PROCESSOR = "preprocessor_config.json"
"""Settings of the model's image processor, beside its weights."""

_HUB_FILES = ["*.json", "*.txt", "*.safetensors", "README.md"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Weights:
    """A model's folder or file on this machine and what identifies it."""

    name: str
    """The hub id, embedded model, folder or file that was asked for."""
    folder: Path
    """Where config.json and the safetensors lie; of an original checkpoint (`vipocc.priors.pth`) the file itself."""
    revision: str | None
    """Commit hash of a hub snapshot, else None."""
    digest: str
    """blake2b over the names and bytes of config.json and all safetensors, or over the bytes of the file."""
    licence: str
    """From the model's card, else the table above, else `unknown`."""

    def provenance(self) -> dict[str, Any]:
        """Return what a store's record says of the model; the folder's place on this machine is no part of it."""
        name = Path(self.name).name if Path(self.name).expanduser().exists() else self.name
        return {"model": name, "revision": self.revision, "digest": self.digest, "licence": self.licence}


def find_weights(name: str, revision: str | None, option: str) -> Weights:
    """Return the weights called `name`: one of the package, a folder, or a hub id, cached or downloaded.

    Args:
        name: `embedded:` and a model of the package, a folder, or a hub id such as `facebook/sam-vit-huge`.
        revision: commit or tag of a hub id.
        option: the command-line option that names this model, for messages.

    Raises:
        CheckpointError: neither a folder with a model nor a hub id that can be fetched.
    """
    folder = Path(name).expanduser()
    commit: str | None = None
    if is_embedded(name):
        folder = embedded_folder(name, option)
    elif folder.is_dir():
        folder = folder.resolve()
        commit = _snapshot_commit(folder)
    elif _HUB_ID.fullmatch(name) and not name.startswith("."):
        folder = _from_hub(name, revision, option)
        commit = _snapshot_commit(folder)
    else:
        raise CheckpointError("there is no model folder", where=name, fix=f"correct {option} (a folder or a hub id)")
    files = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not files:
        raise CheckpointError(
            "not a model in transformers' layout: config.json and *.safetensors are expected",
            where=folder,
            fix=f"give {option} a folder written by save_pretrained or `hf download`",
        )
    _check_headers(files, option)
    digest = _digest(tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files))
    return Weights(name, folder, commit, digest, _licence(name, folder))


def read_config(weights: Weights, model_type: str, option: str) -> dict[str, Any]:
    """Return the model's config.json; raises `CheckpointError` if it is not of `model_type`."""
    path = weights.folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = values["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"the model's configuration cannot be read ({type(error).__name__})", where=path, fix="download it again"
        ) from None
    if found != model_type:
        raise CheckpointError(
            f"a model of type '{found}' where '{model_type}' is needed", where=weights.folder, fix=f"correct {option}"
        )
    return dict(values)


def load_model(
    architecture: Any, weights: Weights, option: str, config: Any = None, state: dict[str, torch.Tensor] | None = None
) -> Any:
    """Return `architecture.from_pretrained`, in evaluation mode, float32, on the CPU, refusing anything incomplete.

    transformers fills tensors that a checkpoint lacks with random numbers and a warning; here that is an error.

    Args:
        architecture: a model class of transformers.
        weights: what was found; the folder is read unless `state` is given.
        option: the command-line option that names this model, for messages.
        config: with `state`, the model's configuration.
        state: tensors under the names of transformers' files, in the place of a folder's.

    Raises:
        CheckpointError: unreadable weights, or tensors that are missing or of another shape (the first ones named).
    """
    try:
        with quiet_transformers():
            model, info = architecture.from_pretrained(
                weights.folder if state is None else None,
                **({} if state is None else {"config": config, "state_dict": state}),
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # transformers, safetensors and torch each raise their own kinds for a damaged file
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"the weights cannot be read ({reason})",
            where=weights.folder,
            fix=f"download them again or correct {option}",
        ) from error
    for kind in ("missing_keys", "mismatched_keys"):
        names = sorted(str(entry[0] if isinstance(entry, tuple) else entry) for entry in info.get(kind) or ())
        if names:
            what = "misses" if kind == "missing_keys" else "has other shapes for"
            raise CheckpointError(
                f"the checkpoint {what} {len(names)} tensors of {architecture.__name__}, {names[0]} first",
                where=weights.folder,
                fix=f"download it again or correct {option}",
            )
    return model.float().eval().requires_grad_(False)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' reports and bars: they would tear the run's own progress, and what matters is raised."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _from_hub(name: str, revision: str | None, option: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=_HUB_FILES))
        if (cached / "config.json").is_file() and any(cached.glob("*.safetensors")):
            return cached
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass  # not in the cache: the hub is asked next
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    reason = "HF_HUB_OFFLINE is set"
    if not offline:
        try:
            with quiet_transformers():
                return Path(snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES))
        except Exception as error:  # the hub's client raises its own, httpx's and the operating system's kinds
            reason = type(error).__name__
    raise CheckpointError(
        f"model '{name}' is not on this machine and cannot be fetched from the hub ({reason})",
        fix=f"where there is network run `hf download {name} --local-dir FOLDER`, then give {option} FOLDER",
    )


def _snapshot_commit(folder: Path) -> str | None:
    # The hub's cache names a snapshot's folder by its commit; `hf download --local-dir` notes it beside each file.
    if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name):
        return folder.name
    note = folder / ".cache" / "huggingface" / "download" / "config.json.metadata"
    first = note.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip() if note.is_file() else ""
    return first if _COMMIT.fullmatch(first) else None


def _check_headers(files: list[Path], option: str) -> None:
    from safetensors import SafetensorError, safe_open

    for path in files:
        try:
            with safe_open(path, framework="numpy") as handle:
                handle.keys()
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"the weights are damaged ({error})", where=path, fix=f"download them again or correct {option}"
            ) from None


@cache
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    folder = Path(files[0][0]).parent
    for path in (folder / "config.json", *(Path(name) for name, _, _ in files)):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as handle:
            for block in iter(lambda: handle.read(1 << 22), b""):
                digest.update(block)
    return digest.hexdigest()


def _licence(name: str, folder: Path) -> str:
    card = folder / "README.md"
    if card.is_file():
        head = re.match(r"---\s*\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
        stated = re.search(r"^license:\s*(\S+)", head.group(1), re.MULTILINE) if head else None
        if stated:
            return stated.group(1).strip("'\"")
    known = known_licence(name)
    return known if known != "unknown" else known_licence(folder.name)
