"""Whether the stores of a workspace were made from the folder that its root names now."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import numpy as np

from vipocc.data_manifests.manifest import read_metadata
from vipocc.errors import DataError, MissingInputError, StoreError
from vipocc.stores.inputs import RecordedInputs
from vipocc.stores.verification import open_store
from vipocc.workspace import Workspace

# Units of each store whose input is compared. Any image of another recording differs, so a few would do.
_LOOKED_AT = 64


def refuse_other_root(workspace: Workspace) -> None:
    """Raise `StoreError` if the root was changed to a folder of other files than the stores were made from.

    Drives of two copies have the same names, frames and paths, so that rows of the one would stand beside rows of the
    other. A folder that was only moved or copied has the same contents and is taken; costs nothing while the root is
    the manifest's.
    """
    try:
        metadata = read_metadata(workspace.manifest)
    except (MissingInputError, DataError):
        return  # there is nothing to compare with; it is written anew
    before = Path(os.path.normpath(workspace.path / metadata["root"]))
    if before == workspace.root:
        return
    for kind in ("frames", "lidar"):
        path = workspace.store(kind)
        if not (path / "zarr.json").is_file():
            continue
        store = open_store(path, workspace.root)
        inputs = RecordedInputs(store)
        units = sorted(store.ledger.units())
        step = max(1, int(np.ceil(len(units) / _LOOKED_AT)))
        for unit in units[::step]:
            record = store.ledger.read(unit)
            for entry in islice(record.rows.values() if record is not None else (), 1):
                other = inputs.changed([ref for ref in entry["inputs"] if "path" in ref][:1])
                if other:
                    raise StoreError(
                        f"the store was made from the files of {before}, and '{other}' of {workspace.root} is another",
                        where=path,
                        fix="set root: in vipocc.yaml back, or make a workspace for the other folder with "
                        "`vipocc init -C FOLDER`",
                    )
