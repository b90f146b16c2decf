"""Where a saved model is: a folder on this machine, or a repository of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vipocc.errors import CheckpointError

FILES = ("config.yaml", "model.safetensors")
"""What a repository must hold, the small one first."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_model(name: str | Path, *, revision: str | None = None, cache_dir: str | Path | None = None) -> Path:
    """Return the folder of a saved model.

    A folder wins over a hub id of the same spelling. What the cache holds of the revision is taken as it is, without
    asking the hub; `revision` tells apart what a repository held at different times.

    Args:
        name: a folder, or the id of a hub repository such as `somebody/vipocc-kitti-360`.
        revision: branch, tag or commit in the repository.
        cache_dir: the hub's cache, by default its own ($HF_HOME).

    Raises:
        CheckpointError: there is neither; the repository, revision or one of its files is absent; or it is neither in
            the cache nor can the hub be reached.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError("a folder has no revisions", where=folder, fix="leave out revision")
        return folder
    if isinstance(name, Path) or not _HUB_ID.fullmatch(name):
        raise CheckpointError(
            "there is no such folder, and it is no id of a hub repository",
            where=name,
            fix="name a folder such as runs/*/checkpoints/step_*, or a repository as owner/name",
        )
    cached = _cached(name, revision, cache_dir)
    return _fetched(name, revision, cache_dir) if cached is None else cached


def _cached(name: str, revision: str | None, cache_dir: str | Path | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(name, file, cache_dir=cache_dir, revision=revision) for file in FILES]
    # The hub's client also notes in its cache that a file is absent, by an object that is no path.
    paths = [Path(path) for path in found if isinstance(path, str)]
    return paths[0].parent if len(paths) == len(FILES) else None


def _fetched(name: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f"{name} at {revision}" if revision else name
    by_hand = f"where there is network run `hf download {name} --local-dir FOLDER`, then name FOLDER"
    try:
        first = Path(hf_hub_download(name, FILES[0], revision=revision, cache_dir=cache_dir))
        # The cache's folder is called after the commit; the weights are fetched of the same one.
        hf_hub_download(name, FILES[1], revision=first.parent.name, cache_dir=cache_dir)
        return first.parent
    except GatedRepoError:
        what, fix = (
            "access to this hub repository has to be granted",
            "ask for it on its page, then run `hf auth login`",
        )
    except RepositoryNotFoundError:
        what, fix = (
            "there is no such folder, and no such hub repository",
            "correct the name, or `hf auth login` for a private one",
        )
    except RevisionNotFoundError:
        what, fix = f"the hub repository has no revision '{revision}'", "correct revision, or leave it out"
    except RemoteEntryNotFoundError as error:
        missing = next((file for file in FILES if file in str(error)), FILES[0])
        what, fix = f"the hub repository holds no {missing}, so no model of vipocc", "name a repository that holds one"
    except LocalEntryNotFoundError as error:
        # Raised for any trouble on the way to the hub; the trouble itself is its cause.
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
        reason = "HF_HUB_OFFLINE is set" if offline else type(error.__cause__ or error).__name__
        what, fix = f"no such folder, not in the hub's cache, and the hub cannot be reached ({reason})", by_hand
    except Exception as error:  # the hub's client raises httpx's and the operating system's kinds too
        what, fix = f"the model cannot be fetched from the hub ({type(error).__name__})", by_hand
    raise CheckpointError(what, where=at, fix=fix)
